from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from backbones.errors import UserError
from detection.engine import wandb_writer
from detection.engine.config import add_engine_config
from detection.engine.wandb_settings import resolve_mode
from detection.engine.wandb_writer import WandbSettings, WandbWriter

OFFLINE = WandbSettings(mode="offline", name="first", group="seeds", tags=("a", "b"))
LOGGER = "detection.engine.wandb_writer"


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def _train(writer: WandbWriter, start: int, end: int) -> None:
    with EventStorage(start) as storage:
        for step in range(start, end):
            storage.iter = step
            storage.put_scalar("lr", step / 10, smoothing_hint=False)
            if step % 5 == 4:
                storage.put_image("image", torch.rand(3, 4, 6))
                storage.put_histogram("histogram", torch.arange(2000.0))
                writer.write()
                storage.clear_images()
                storage.clear_histograms()


def _records(folder: Path) -> Iterator[Any]:
    """What W&B stored offline: its files are LevelDB logs of protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime):
        data, position, part = path.read_bytes(), 7, b""
        while position + 7 <= len(data):
            if 32768 - position % 32768 < 7:
                position += 32768 - position % 32768
                continue
            length, kind = struct.unpack_from("<HB", data, position + 4)
            part += data[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(part)
                part = b""
                yield record


def _history(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    return [
        (
            record.history.step.num,
            {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            },
        )
        for record in _records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def test_offline_for_real(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], log_of: Callable[[str], list[str]]
) -> None:
    lines = log_of(LOGGER)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("SEED: 5\nSOLVER: {STEPS: [1, 2]}\n")
    first = WandbWriter(OFFLINE, folder)
    run_id = first.run_id
    assert run_id == (folder / "wandb_run_id").read_text()
    _train(first, 0, 20)
    first.log_table("AP by scale", ["size", "AP"], [["small", np.float32(1.5)], ["all", None]])
    first.log_summary({"AP": torch.tensor(0.5), "APs": float("nan")})
    first.close()
    (offline,) = (folder / "wandb").glob("offline-run-*")
    assert lines[-1] == f"INFO: W&B is in '{offline}'; upload it with: wandb sync {offline}"

    # Resumed from the checkpoint of iteration 9; 10 to 19 are already there.
    second = WandbWriter(OFFLINE, folder)
    assert second.run_id == run_id
    _train(second, 10, 30)
    second.log_table("AP by scale", ["size", "AP"], [["small", 2.5]])
    second.close()

    deadline = time.monotonic() + 60  # W&B's own process may still be writing
    while sum(r.WhichOneof("record_type") == "exit" for r in _records(folder)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    history = _history(folder)
    assert [step for step, _ in history] == [4, 9, 14, 19, 24, 29]
    for step, values in history:
        assert values["lr"] == step / 10
        assert (values["image/width"], values["image/height"]) == (6, 4)
        assert sum(values["histogram/values"]) == 2000
        assert len(values["histogram/values"]) <= 512
    assert history[3][1]["AP by scale/nrows"] == 2
    runs = [r.run for r in _records(folder) if r.WhichOneof("record_type") == "run"]
    assert {run.run_id for run in runs} == {run_id}
    assert (runs[0].project, runs[0].display_name) == ("spnas", "first")
    assert (runs[0].run_group, list(runs[0].tags)) == ("seeds", ["a", "b"])
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert (config["SEED"], config["SOLVER"]) == (5, {"STEPS": [1, 2]})
    output = capfd.readouterr()
    assert "wandb" not in output.out + output.err


def test_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_of: Callable[[str], list[str]]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    lines = log_of(LOGGER)
    writer = WandbWriter(OFFLINE, tmp_path)
    _train(writer, 0, 10)
    writer.log_table("t", ["a"], [[1]])
    writer.log_summary({"a": 1})
    writer.close()
    (line,) = lines
    assert line.startswith("WARNING: W&B is not installed") and "pip install wandb" in line


class _Run:
    """Stands for W&B's run."""

    id = "abc"
    dir = "run/wandb/offline-run-abc/files"
    starting_step = 0

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.failure: Exception | None = None
        self.answer = threading.Event()
        self.answer.set()
        self.finished = False

    def log(self, values: dict[str, Any], step: int) -> None:
        if self.failure:
            raise self.failure
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = self.answer.wait(60)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """W&B's module with one run; ``fake.inits`` are the arguments of ``wandb.init``."""
    settings = SimpleNamespace(base_url="https://api.wandb.ai", api_key="k")
    fake = SimpleNamespace(
        settings=settings,
        setup=lambda _: SimpleNamespace(settings=settings),
        run=_Run(),
        inits=[],
        unreachable=False,
        Settings=SimpleNamespace,
        Image=lambda image: image.shape,
        Histogram=lambda np_histogram: np_histogram,
        Table=lambda columns, data: (columns, data),
        teardown=lambda: None,
    )

    def init(**arguments: Any) -> _Run:
        fake.inits.append(arguments)
        if fake.unreachable and arguments["mode"] == "online":
            raise ConnectionError("no route\nto host")
        return fake.run

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_a_failure_is_told_once(
    tmp_path: Path, fake: SimpleNamespace, log_of: Callable[[str], list[str]]
) -> None:
    lines = log_of(LOGGER)
    writer = WandbWriter(OFFLINE, tmp_path)
    fake.run.failure = OSError("No space left on device")
    _train(writer, 0, 30)
    writer.close()
    assert lines == [
        "WARNING: W&B failed to write (OSError: No space left on device): this run goes on "
        "without it"
    ]


def test_an_unreachable_server_means_offline(
    tmp_path: Path, fake: SimpleNamespace, log_of: Callable[[str], list[str]]
) -> None:
    lines = log_of(LOGGER)
    fake.unreachable = True
    _train(WandbWriter(WandbSettings(mode="online"), tmp_path), 0, 5)
    assert [(init["mode"], init["resume"]) for init in fake.inits] == [
        ("online", "allow"),
        ("offline", None),
    ]
    assert fake.inits[0]["id"] == fake.inits[1]["id"]
    assert [step for step, _ in fake.run.logged] == [4]
    (line,) = lines
    assert "no route" in line and "wandb sync" in line


def test_online_without_a_key_does_not_ask_for_one(
    tmp_path: Path, fake: SimpleNamespace, log_of: Callable[[str], list[str]]
) -> None:
    lines = log_of(LOGGER)
    fake.settings.api_key = None
    WandbWriter(WandbSettings(mode="online"), tmp_path)
    assert [init["mode"] for init in fake.inits] == ["offline"]
    assert "wandb login" in lines[0]


def test_a_hanging_finish_is_given_up(
    tmp_path: Path,
    fake: SimpleNamespace,
    log_of: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """W&B answers only once the writer has been closed, which was after 70 seconds."""
    waits: list[float | None] = []

    class Impatient(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            waits.append(timeout)
            super().join(0.05)

    monkeypatch.setattr(wandb_writer, "threading", SimpleNamespace(Thread=Impatient))
    lines = log_of(LOGGER)
    writer = WandbWriter(OFFLINE, tmp_path)
    fake.run.answer.clear()
    writer.close()
    assert not fake.run.finished
    fake.run.answer.set()
    (line,) = lines
    assert "failed to finish (TimeoutError: no answer within 70 s)" in line
    assert waits == [70]


def test_the_server_knows_better(tmp_path: Path, fake: SimpleNamespace) -> None:
    """Another machine went on with the same run: its steps are not repeated."""
    fake.run.starting_step = 15
    _train(WandbWriter(OFFLINE, tmp_path), 0, 25)
    assert [step for step, _ in fake.run.logged] == [19, 24]


def test_a_table_alone(tmp_path: Path, fake: SimpleNamespace) -> None:
    """An evaluation writes no scalars; it still continues the run."""
    _train(WandbWriter(OFFLINE, tmp_path), 0, 10)
    WandbWriter(OFFLINE, tmp_path).log_table("AP", ["a"], [[1]])
    assert fake.run.logged[-1] == (10, {"AP": (["a"], [[1]])})
    assert (tmp_path / "wandb_last_step").read_text() == "10"
    assert fake.inits[0]["id"] == fake.inits[1]["id"]


@pytest.mark.parametrize("settings", [WandbSettings(enabled=False), WandbSettings(mode="disabled")])
def test_switched_off(tmp_path: Path, fake: SimpleNamespace, settings: WandbSettings) -> None:
    _train(WandbWriter(settings, tmp_path), 0, 10)
    assert not fake.inits and not list(tmp_path.iterdir())


def test_other_ranks_are_silent(
    tmp_path: Path, fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    _train(WandbWriter(OFFLINE, tmp_path), 0, 10)
    assert not fake.inits


def test_automatic_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SimpleNamespace(base_url="https://api.wandb.ai", api_key=None)
    wandb = SimpleNamespace(
        setup=lambda _: SimpleNamespace(settings=settings), Settings=SimpleNamespace
    )
    assert resolve_mode("auto", wandb) == "offline"
    (tmp_path / "netrc").write_text("machine elsewhere.org login user password x\n")
    assert resolve_mode("auto", wandb) == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    assert resolve_mode("auto", wandb) == "online"
    (tmp_path / "netrc").unlink()
    settings.api_key = "k"
    assert resolve_mode("auto", wandb) == "online"
    settings.api_key = None
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert resolve_mode("auto", wandb) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert resolve_mode("auto", wandb) == "offline"
    assert resolve_mode("online", wandb) == "online"


def test_settings_from_a_configuration() -> None:
    cfg = CfgNode()
    add_engine_config(cfg)
    cfg.WANDB.GROUP, cfg.WANDB.TAGS = "seeds", ["a", 1]
    assert WandbSettings.from_cfg(cfg.WANDB) == WandbSettings(group="seeds", tags=("a", "1"))
    cfg.WANDB.MODE = "on"
    with pytest.raises(UserError, match="WANDB.MODE is 'on'; expected one of auto, online"):
        WandbSettings.from_cfg(cfg.WANDB)
