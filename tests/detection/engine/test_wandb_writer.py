from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
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
from detection.engine import wandb_calls
from detection.engine.config import add_engine_config
from detection.engine.metrics import read_metrics
from detection.engine.wandb_files import sync_command
from detection.engine.wandb_settings import environment_of_run, resolve_mode
from detection.engine.wandb_writer import WandbSettings, WandbWriter
from detection.engine.writers import build_run_writers
from tests.wandb_files import history, of_kind, wait_for_end

OFFLINE = WandbSettings(mode="offline", name="first", group="seeds", tags=("a", "b"))
LOGGER = "detection.engine.wandb_writer"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
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
    assert json.loads((folder / "wandb_folder.json").read_text())["closed"] is True

    # Resumed from the checkpoint of iteration 9; 10 to 19 are already there.
    second = WandbWriter(OFFLINE, folder)
    assert second.run_id == run_id
    _train(second, 10, 30)
    second.log_table("AP by scale", ["size", "AP"], [["small", 2.5]])
    second.close()
    both = sorted((folder / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_mtime)
    assert lines[-1].endswith(f"upload it with: wandb sync {both[0]} {both[1]}")

    wait_for_end(folder, 2)
    rows = history(folder)
    assert [step for step, _ in rows] == [4, 9, 14, 19, 24, 29]
    for step, values in rows:
        assert values["lr"] == step / 10
        assert (values["image/width"], values["image/height"]) == (6, 4)
        assert sum(values["histogram/values"]) == 2000
        assert len(values["histogram/values"]) <= 512
    assert rows[3][1]["AP by scale/nrows"] == 2
    runs = of_kind(folder, "run")
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
    assert f"offline-run-*-{fake.inits[0]['id']}" in line
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

    monkeypatch.setattr(wandb_calls, "threading", SimpleNamespace(Thread=Impatient))
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
    for value, mode in (("offline", "offline"), ("DRYRUN", "offline"), ("run", "online")):
        monkeypatch.setenv("WANDB_MODE", value)
        assert resolve_mode("auto", wandb) == mode
    assert resolve_mode("online", wandb) == "online"


def test_settings_from_a_configuration() -> None:
    cfg = CfgNode()
    add_engine_config(cfg)
    assert WandbSettings.from_cfg(cfg.WANDB) == WandbSettings()
    cfg.WANDB.GROUP, cfg.WANDB.TAGS, cfg.WANDB.ENTITY = "seeds", ["a", 1], "team"
    expected = WandbSettings(group="seeds", tags=("a", "1"), entity="team")
    assert WandbSettings.from_cfg(cfg.WANDB) == expected
    cfg.WANDB.MODE = "on"
    with pytest.raises(UserError, match="WANDB.MODE is 'on'; expected one of auto, online"):
        WandbSettings.from_cfg(cfg.WANDB)


ENVIRONMENT = {
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "team",
    "WANDB_NAME": "n1",
    "WANDB_RUN_GROUP": "g",
    "WANDB_TAGS": "a, b,",
    "WANDB_NOTES": "why",
    "WANDB_JOB_TYPE": "train",
    "WANDB_RUN_ID": "abc123",
}


def test_wandbs_variables_replace_defaults(
    tmp_path: Path, fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And lose to what was set by the user."""
    for name, value in {**ENVIRONMENT, "WANDB_DIR": str(tmp_path / "elsewhere")}.items():
        monkeypatch.setenv(name, value)
    WandbWriter(OFFLINE, tmp_path)
    WandbWriter(WandbSettings(mode="offline", project="mine", entity="me"), tmp_path)
    keys = ("project", "entity", "name", "group", "tags", "notes", "job_type", "id", "dir")
    folder = str(tmp_path / "elsewhere")
    assert [[init[key] for key in keys] for init in fake.inits] == [
        ["theirs", "team", "first", "seeds", ["a", "b"], "why", "train", "abc123", folder],
        ["mine", "me", "n1", "g", ["a", "b"], "why", "train", "abc123", folder],
    ]
    assert (tmp_path / "wandb_run_id").read_text() == "abc123"


@pytest.mark.parametrize(
    ("variable", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")]
)
def test_switched_off_by_a_variable(
    tmp_path: Path,
    fake: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    _train(WandbWriter(WandbSettings(), tmp_path), 0, 10)
    assert not fake.inits and not list(tmp_path.iterdir())
    _train(WandbWriter(OFFLINE, tmp_path), 0, 10)  # by the key, which was set
    assert len(fake.inits) == 1


def test_how_to_resume_is_theirs_as_well(
    tmp_path: Path, fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RESUME", "must")
    WandbWriter(WandbSettings(mode="online"), tmp_path)
    assert fake.inits[0]["resume"] == "must"


def test_runs_of_a_study_share_nothing_but_their_group() -> None:
    own = {"WANDB_RUN_ID": "abc", "WANDB_NAME": "mine", "WANDB_RESUME": "must", "A": "1"}
    study = Path("out/study")
    found = environment_of_run(own, study / "mnasnet" / "seed0", study)
    name = {"WANDB_NAME": "mnasnet/seed0"}
    assert found == {"A": "1", "WANDB_RUN_GROUP": "mine", **name}
    assert environment_of_run({}, study / "mnasnet" / "seed0", study) == {
        **{"WANDB_RUN_GROUP": "study", **name}
    }
    grouped = {"WANDB_RUN_GROUP": "theirs", "WANDB_NAME": "mine"}
    assert environment_of_run(grouped, Path("out/run"), None) == {"WANDB_RUN_GROUP": "theirs"}


def test_a_copy_is_a_run_of_its_own_and_a_moved_folder_is_not(
    tmp_path: Path, fake: SimpleNamespace, log_of: Callable[[str], list[str]]
) -> None:
    lines = log_of("detection.engine.wandb_memory")
    original, copy, moved = (tmp_path / name for name in ("a", "b", "c"))
    original.mkdir()

    def trained(folder: Path, start: int) -> str:
        writer = WandbWriter(OFFLINE, folder)
        _train(writer, start, start + 10)
        writer.close()
        return str(fake.inits[-1]["id"])

    first = trained(original, 0)
    (original / "metrics.json").write_text('{"iteration": 4, "lr": 0.4}\n')
    shutil.copytree(original, copy)
    second = trained(copy, 10)
    assert second != first and trained(copy, 20) == second
    # What the copy has of the original's course goes along.
    steps = [step for step, _ in fake.run.logged]
    assert steps == [4, 9, 4, 14, 19, 24, 29]
    (line,) = lines
    assert f"'{copy}' is a copy of '{original}', which has the W&B run '{first}'" in line
    original.rename(moved)
    assert trained(moved, 10) == first
    # Moved to another disk: a new folder, and nothing where it was.
    shutil.copytree(moved, tmp_path / "d")
    shutil.rmtree(moved)
    assert trained(tmp_path / "d", 20) == first


KILLED = """
import os, signal, sys, time
from pathlib import Path
from detectron2.utils.events import EventStorage
from detection.engine.wandb_writer import WandbSettings
from detection.engine.writers import build_run_writers
from tests.wandb_files import history, of_kind, wait_for_end

writers = build_run_writers(sys.argv[1], 99, WandbSettings(mode="offline"))[1:3]
with EventStorage(0) as storage:
    for step in range(int(sys.argv[2])):
        storage.iter = step
        storage.put_scalars(**{f"loss{i}": step / 7 + i for i in range(int(sys.argv[3]))})
        if step % 5 == 4:
            for writer in writers:
                writer.write()
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("values", "kept"), [(1, 0), (300, 1)])
def test_killed_offline(
    tmp_path: Path, values: int, kept: int, log_of: Callable[[str], list[str]]
) -> None:
    """W&B writes in blocks: nothing is in its file, or what ends within a record."""
    lines = log_of(LOGGER)
    folder = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(folder), "20", str(values)]
    assert subprocess.run(command, cwd=ROOT).returncode == -9
    assert (folder / "wandb_last_step").read_text() == "19"
    (cut,) = folder.glob("wandb/offline-run-*/*.wandb")
    writers = build_run_writers(str(folder), 99, WandbSettings(mode="offline"), 10)[1:3]
    with EventStorage(10) as storage:
        for step in range(10, 30):
            storage.iter = step
            storage.put_scalar("loss0", step / 7)
            if step % 5 == 4:
                for writer in writers:
                    writer.write()
    for writer in writers:
        writer.close()
    folders = sorted(folder.glob("wandb/offline-run-*"))
    uploaded = folders if kept else [path for path in folders if path != cut.parent]
    assert lines[-1].endswith(f"wandb sync {' '.join(map(str, uploaded))}")
    assert cut.exists() == bool(kept)
    wait_for_end(folder)
    found = history(folder)
    assert [step for step, _ in found] == [4, 9, 14, 19, 24, 29]
    rows = {row["iteration"]: row["loss0"] for row in read_metrics(folder)}
    assert all(values["loss0"] == pytest.approx(rows[step]) for step, values in found)


def test_the_command_of_an_older_wandb() -> None:
    folders = [Path("a b/1"), Path("a b/2")]
    assert sync_command(folders, "0.30.0") == "wandb sync 'a b/1' 'a b/2'"
    assert "with wandb 0.29 or newer" in sync_command(folders, "0.22.1")
    assert sync_command(folders[:1], "0.22.1") == "wandb sync 'a b/1'"
