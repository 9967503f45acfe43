"""Checkpoints that are cut, empty or gone, disks that are full, and which checkpoints are kept."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

import detection
from backbones.errors import UserError
from backbones.files import write_json
from detection.engine.checkpoint import Checkpointer
from detection.engine.checkpoint_files import last_iteration, last_whole, number_to_keep
from detection.engine.results import write_results
from detection.engine.writers import build_run_writers
from search.studies.kills.differences import differences
from tests.detection.engine.test_trainer import Run

resource = pytest.importorskip("resource")  # not on Windows


def _saved(folder: Path, *iterations: int) -> Checkpointer:
    checkpointer = Checkpointer(nn.Linear(40, 30), folder)
    for iteration in iterations:
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return checkpointer


def _flip(content: bytes) -> bytes:
    """One bit of a tensor is another: PyTorch reads such a file without noticing."""
    at = content.index(b"data/0") + 400
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def _refused(content: bytes) -> bytes:
    return b"PK\x03\x04" + content[4:200]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "garbage": lambda content: bytes(range(256)) * 20,
    "a flipped bit": _flip,
    "a torn archive": _refused,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_is_passed_over(
    tmp_path: Path, damage: str, log_of: Callable[[str], list[str]]
) -> None:
    checkpointer = _saved(tmp_path, 1, 3, 5)
    last, before = tmp_path / "model_0000005.pth", tmp_path / "model_0000003.pth"
    last.write_bytes(DAMAGES[damage](last.read_bytes()))
    lines = log_of("detection.engine.checkpoint_files")
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 3}
    (line,) = lines
    assert line.startswith("WARNING") and str(last) in line
    assert line.endswith(f"The run goes on from '{before}'")
    assert checkpointer.get_checkpoint_file() == str(before)
    checkpointer.save("model_0000005", iteration=5)
    assert checkpointer.get_checkpoint_file() == str(last)
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 5}
    assert len(lines) == 1


def test_several_damaged_checkpoints(tmp_path: Path) -> None:
    """One that is missing counts as damaged; the final one of a shorter training comes last."""
    checkpointer = _saved(tmp_path, 1, 3, 5)
    checkpointer.save("model_final", iteration=0)
    checkpointer.tag_last_checkpoint("model_0000005.pth")
    (tmp_path / "model_best.pth").write_bytes((tmp_path / "model_0000001.pth").read_bytes())
    for number, expected in ((5, 3), (3, 1), (1, 0)):
        (tmp_path / f"model_000000{number}.pth").unlink()
        assert last_iteration(tmp_path) == expected
    (tmp_path / "model_final.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"is whole: .*5.pth.*final.pth.*OUTPUT_DIR output/other"):
        checkpointer.resume_or_load("", resume=True)


@pytest.mark.parametrize("name", ["", "../model.pth", "/tmp/model.pth", "\0" * 17])
def test_a_last_checkpoint_that_names_no_file_of_the_run(
    tmp_path: Path, name: str, log_of: Callable[[str], list[str]]
) -> None:
    _saved(tmp_path, 1, 3)
    (tmp_path.parent / "model.pth").write_bytes((tmp_path / "model_0000001.pth").read_bytes())
    (tmp_path / "last_checkpoint").write_text(name)
    lines = log_of("detection.engine.checkpoint_files")
    assert last_whole(tmp_path) == tmp_path / "model_0000003.pth"
    assert "which cannot name a file" in lines[0]


def assert_same_files(whole: Path, parts: Path) -> None:
    """But for rows of metrics, of which a run that failed has one more."""
    found = differences(whole, parts)
    assert [line for line in found if not line.startswith("metrics.json")] == []


@pytest.mark.parametrize("last", ["model_0000005.pth", "model_final.pth"])
def test_a_run_with_a_damaged_checkpoint_ends_as_the_whole_one(tmp_path: Path, last: str) -> None:
    """In mid-run, and behind the last step, where the periodic one is of the same iteration."""
    Run(tmp_path / "whole", 9, checkpoint_period=3).train()
    parts = Run(tmp_path / "parts", 9, checkpoint_period=3)
    if last != "model_final.pth":
        parts.fail_at = 7
        with pytest.raises(UserError, match="hole"):
            parts.train()
    else:
        parts.train()
    damaged = tmp_path / "parts" / last
    damaged.write_bytes(damaged.read_bytes()[:-300])
    again = Run(tmp_path / "parts", 9, checkpoint_period=3)
    again.resume_or_load(resume=True)
    assert again.start_iter == (9 if last == "model_final.pth" else 3)
    again.train()
    assert_same_files(tmp_path / "whole", tmp_path / "parts")
    assert last_iteration(tmp_path / "parts") == 8


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """In the block the system writes no file beyond a number of bytes, as where a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("size", [0, 1000, 5000])
def test_a_full_disk_keeps_what_is_there(tmp_path: Path, size: int) -> None:
    """Checkpoints, the best model, results: no part of a file is left, and none is lost."""
    checkpointer = _saved(tmp_path, 1)
    write_results(tmp_path, {"a": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    writes: dict[str, Callable[[], Any]] = {
        "model_0000003.pth": lambda: checkpointer.save("model_0000003", iteration=3),
        "model_0000001.pth": lambda: checkpointer.save("model_0000001", iteration=3),
        "model_best.pth": lambda: checkpointer.save_aside("model_best", checkpointer.model),
        "results.json": lambda: write_results(tmp_path, {"b": "c" * 6000}),
        "architecture.json": lambda: write_json(tmp_path / "architecture.json", "c" * 6000),
    }
    for name, write in writes.items():
        with small_files(size), pytest.raises(UserError) as caught:
            write()
        message = str(caught.value)
        assert message.startswith(f"cannot write '{tmp_path / name}' (") and "\n" not in message
        assert "MB left): make room, and repeat the command, with --resume" in message
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 1}


def test_a_full_disk_stops_a_run_which_then_goes_on(tmp_path: Path) -> None:
    Run(tmp_path / "whole", 9, checkpoint_period=3).train()
    parts = Run(tmp_path / "parts", 9, checkpoint_period=3)
    save = parts.checkpointer.save

    def full(name: str, **kwargs: Any) -> None:
        with small_files(1000 if name == "model_0000005" else 10**9):
            save(name, **kwargs)

    parts.checkpointer.save = full
    with pytest.raises(UserError, match=r"cannot write '.*model_0000005.pth'"):
        parts.train()
    again = Run(tmp_path / "parts", 9, checkpoint_period=3)
    again.resume_or_load(resume=True)
    assert again.start_iter == 3
    again.train()
    assert_same_files(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_the_metrics(tmp_path: Path, log_of: Callable[[str], list[str]]) -> None:
    """/dev/full answers every write as a full disk does."""

    class Written(Run):
        def build_writers(self) -> list[Any]:
            writer: Any = build_run_writers(self.output_dir, self.max_iter)[1]
            writer._file_handle.close()
            writer._file_handle = open("/dev/full", "a")  # noqa: SIM115
            return [writer]

    lines = log_of("detectron2.engine.train_loop")
    with pytest.raises(UserError, match=r"metrics.json' \(No space left on device; its disk has"):
        Written(tmp_path, 9, checkpoint_period=1).train()
    assert not [line for line in lines if line.startswith("ERROR")]
    assert last_iteration(tmp_path) == 1


def test_how_many_checkpoints_are_kept() -> None:
    cfg = get_cfg()
    detection.add_spnas_config(cfg)
    assert number_to_keep(cfg, usual=3) == 3
    assert number_to_keep(cfg, usual=None) is None
    cfg.SOLVER.MAX_TO_KEEP = 5
    assert number_to_keep(cfg, usual=None) == 5
    cfg.SOLVER.MAX_TO_KEEP = -1
    with pytest.raises(UserError, match="SOLVER.MAX_TO_KEEP is -1"):
        number_to_keep(cfg, usual=3)


def test_a_checkpoint_that_is_needed_is_never_removed(tmp_path: Path) -> None:
    """Of one that is kept, the old one goes when the new one is whole, and named."""
    run = Run(tmp_path, 9, checkpoint_period=2, max_to_keep=1)
    kept = []
    save = run.checkpointer.save

    def saved(name: str, **kwargs: Any) -> None:
        kept.append(last_iteration(tmp_path))
        save(name, **kwargs)

    run.checkpointer.save = saved
    run.train()
    assert kept == [None, 1, 3, 5, 7]
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000007.pth",
        "model_final.pth",
    ]
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 8
