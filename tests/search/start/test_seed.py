"""What SEARCH.START names, where its weights are, and what is said where it names nothing."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from backbones import Architecture, HeadSpec, UserError, create_model
from backbones.exported import save_backbone
from backbones.weights import save_checkpoint
from search.config import load_search_config
from search.space import Candidate, SearchSpace
from search.start.remapping import start_supernet
from search.start.seed import search_space, seed_of
from search.supernets.single_path import Supernet
from tests.search.conftest import SHORT, overrides
from tests.search.start.conftest import random_network, tiny_network

ROOT = Path(__file__).resolve().parents[3]


def config(*options: object) -> CfgNode:
    return load_search_config("", ["MODEL.DEVICE", "cpu", *options])


def around(start: object, *options: object) -> CfgNode:
    return config("SEARCH.SPACE", "around", "SEARCH.START", str(start), *options)


def exported(folder: Path, architecture: Architecture | None = None) -> Path:
    """A run's folder, with the network that it left."""
    architecture = architecture or tiny_network()
    folder.mkdir()
    save_backbone(folder, architecture, random_network(architecture).state_dict())
    return folder


def test_nothing_named() -> None:
    assert seed_of(config()) is None
    assert search_space(config()) == SearchSpace.load("imagenet")


@pytest.mark.parametrize(
    ("start", "weights"),
    [
        ("efficientnet_lite0", "package://efficientnet_lite0"),
        ("package://efficientnet_lite0", "package://efficientnet_lite0"),
        ("mobilenetv2_100", "timm://mobilenetv2_100"),
        ("torchvision://mobilenet_v2", "torchvision://mobilenet_v2"),
    ],
)
def test_a_published_network(start: str, weights: str) -> None:
    cfg = around(start)
    seed = seed_of(cfg)
    assert seed is not None
    assert seed.weights == weights
    assert seed.space == search_space(cfg)
    assert seed.space.architecture(seed.choices, "again").layers == seed.architecture.layers
    own = seed_of(around(start, "MODEL.WEIGHTS", "own.pth"))
    assert own is not None and own.weights == "own.pth"


def test_weights_of_a_package() -> None:
    """The supernet starts as the network whose weights come with a package."""
    seed = seed_of(around("efficientnet_lite0"))
    assert seed is not None
    supernet = Supernet(seed.space).eval()
    start_supernet(supernet, seed)
    assert supernet.choices() == list(seed.choices)
    network = create_model("efficientnet_lite0", pretrained=True).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = network(images), supernet(images)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_files_and_folders(tmp_path: Path) -> None:
    folder = exported(tmp_path / "run")
    for start in (folder, folder / "architecture.json"):
        seed = seed_of(around(start))
        assert seed is not None
        assert seed.weights == str(folder / "backbone.pth")
        assert seed.architecture == Architecture.load(folder / "architecture.json")
        assert seed.space.name == "around_tiny"
    own = seed_of(around(folder, "MODEL.WEIGHTS", "own.pth"))
    assert own is not None and own.weights == "own.pth"


def test_a_network_of_a_named_space(tmp_path: Path) -> None:
    """Also the layers behind the searched ones are the network's."""
    space = SearchSpace.load("digits_small")
    assert space.last
    choices = [Candidate(1, 1, 0), Candidate(0, 0, 0), None]
    folder = exported(tmp_path / "run", space.architecture(choices, "drawn"))
    seed = seed_of(config("SEARCH.SPACE", "digits_small", "SEARCH.START", str(folder)))
    assert seed is not None
    assert seed.space == space
    assert list(seed.choices) == choices
    network = random_network(seed.architecture)
    supernet = Supernet(space, network.num_classes).eval()
    start_supernet(supernet, seed)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, found = network(images), supernet(images)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def one_line(error: pytest.ExceptionInfo[UserError]) -> None:
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("SEARCH.SPACE", "around"), r"SPACE is 'around', but SEARCH.START is empty; name"),
        (("SEARCH.SPACE", "around", "SEARCH.START", "resnet"), "unknown architecture 'resnet'"),
        (
            ("SEARCH.SPACE", "around", "SEARCH.START", "timm://mobilenetv2"),
            "no network of the zoo has weights at 'timm://mobilenetv2'; nearest",
        ),
        (
            ("SEARCH.START", "mobilenetv2_100"),
            "SEARCH.START: architecture 'mobilenetv2_100' is not a network of search space "
            "'imagenet'; set SEARCH.SPACE around, or start from another network",
        ),
        (
            ("SEARCH.SPACE", "around", "SEARCH.START", "fbnet_b"),
            r"'fbnet_b' cannot be the start of a search: its layer \d+ is 'ds'",
        ),
        (("SEARCH.START", "spnas_100"), None),
        (("SEARCH.SPACE", "around", "SEARCH.START", "nowhere/architecture.json"), "nowhere"),
        (
            (
                *("SEARCH.SPACE", "around", "SEARCH.START", "efficientnet_lite0"),
                *("SEARCH.AROUND.EXTRA_DEPTH", "-1"),
            ),
            "SEARCH.AROUND.EXTRA_DEPTH is -1; expected 0 or more",
        ),
        (("SEARCH.REFIT_BATCHES", "1"), "REFIT_BATCHES is 1; expected 0 or at least 2: layers are"),
        (("SEARCH.REFIT_BATCHES", "-4"), "REFIT_BATCHES is -4; expected 0 or at least 2"),
        (("SEARCH.REFIT_BATCHES", "2"), "REFIT_BATCHES is 2, but SEARCH.START is empty"),
        (
            (
                *("SEARCH.START", "spnas_100", "SEARCH.REFIT_BATCHES", "2"),
                *("SEARCH.CALIBRATION_BATCHES", "0"),
            ),
            "SEARCH.CALIBRATION_BATCHES is 0; with SEARCH.REFIT_BATCHES 2 expected 1 or more",
        ),
        (
            (
                *("SEARCH.START", "spnas_100", "SEARCH.REFIT_BATCHES", "2"),
                *("SEARCH.SENSITIVITY.CALIBRATION_BATCHES", "1"),
            ),
            "SENSITIVITY.CALIBRATION_BATCHES is 1; with SEARCH.REFIT_BATCHES 2 expected 2 or more",
        ),
    ],
)
def test_mistakes(options: tuple[str, ...], message: str | None) -> None:
    def read() -> None:
        cfg = config(*options)
        search_space(cfg)
        seed_of(cfg)

    if message is None:  # a network of the default space
        read()
        return
    with pytest.raises(UserError, match=message) as error:
        read()
    one_line(error)


def test_no_weights_at_hand(tmp_path: Path) -> None:
    file = tmp_path / "architecture.json"
    tiny_network().save(file)
    with pytest.raises(UserError, match=r"SEARCH.START is '.*', and there is no backbone.pth") as e:
        seed_of(around(file))
    one_line(e)


COMMAND = ["--config-file", "search/pretrained.yaml", "SEARCH.LATENCY_TABLE", "macs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SEARCH.START", "resnet"], "unknown architecture 'resnet'"),
        (["SEARCH.START", "{bare}"], "there is no backbone.pth beside"),
        (["SEARCH.START", ""], "SEARCH.SPACE is 'around', but SEARCH.START is empty"),
        (["SEARCH.START", "fbnet_b"], "its layer"),
        (["SEARCH.START", "{other}"], "belongs to another architecture"),
        (["SEARCH.START", "{good}", "SEARCH.AROUND.KERNEL_SIZES", "[4]"], "kernel_size"),
        (["SEARCH.START", "{good}", "SEARCH.AROUND.EXPANSIONS", "[0]"], "expansion"),
        (["SEARCH.START", "{good}", "SEARCH.AROUND.SE_RATIOS", "[-1]"], "se_ratio"),
        (["SEARCH.START", "{good}", "SEARCH.FORMULATION", "multi-path"], "supernets of one path"),
        (
            ["SEARCH.START", "{good}", "SEARCH.WIDTH_MULT", "0.5"],
            "other widths; set SEARCH.WIDTH_MULT 1.0",
        ),
        (["SEARCH.START", "{good}", "SEARCH.TARGET", "0.0"], "has no λ; set SEARCH.TARGET"),
        (["SEARCH.START", "{good}", "SEARCH.TARGET", "900"], "SEARCH.TARGET is 900"),
        (["SEARCH.START", "{good}", "SEARCH.SENSITIVITY.ROUNDS", "0"], "ROUNDS is 0, IMAGES"),
    ],
)
def test_the_tool_answers_mistakes_in_one_line(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "bare").mkdir()
    tiny_network().save(tmp_path / "bare" / "architecture.json")
    folders = {"bare": tmp_path / "bare", "good": exported(tmp_path / "good")}
    folders["other"] = exported(tmp_path / "other")
    other = dataclasses.replace(tiny_network(), head=HeadSpec(40))
    state = random_network(other).state_dict()
    save_checkpoint(folders["other"] / "backbone.pth", {"model": state})
    target = [] if "SEARCH.TARGET" in arguments else ["SEARCH.TARGET", "20.0"]
    keys = [argument.format(**folders) for argument in arguments]
    made = [*overrides(images, tmp_path / "out"), *SHORT, "SEARCH.HELD_OUT", "0.5"]
    command = ["search_net.py", *COMMAND, *made, "DATALOADER.NUM_WORKERS", "0", *target, *keys]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "tools" / "search_net.py"), run_name="__main__")
    assert ending.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
