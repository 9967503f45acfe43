"""What a person reads of a run, and what only log.txt keeps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.utils.events import EventStorage

from backbones import create_model, load_architecture
from backbones.exported import save_backbone
from detection.engine.console import FILE_ONLY, log_to
from detection.engine.progress import ProgressPrinter

TrainNet = Callable[..., tuple[int, str]]

FOR_THE_FILE = (
    "PyTorch built with",
    "CUDNN_BENCHMARK",
    "Rank 0 of 1",
    "Distribution of instances",
    "(backbone): FPN",
    "Serializing",
    "copypaste",
    "AP by class",
    " of them: ",
)


def test_a_detector_run(train_net: TrainNet, tmp_path: Path) -> None:
    """Its console has less than 60 lines with the ten lines of progress of 200 steps."""
    architecture, run = load_architecture("spnas_100"), tmp_path / "run"
    save_backbone(tmp_path, architecture, create_model("spnas_100").state_dict())
    named = ("MODEL.SPNAS.ARCH", str(tmp_path / "architecture.json"))
    weights = tmp_path / "backbone.pth"
    code, output = train_net(*named, "MODEL.WEIGHTS", str(weights))
    assert code == 0, output
    lines = [line for line in output.splitlines() if line.strip()]
    assert len(lines) - 1 + 10 < 60, output
    log = (run / "log.txt").read_text()
    for text in FOR_THE_FILE:
        assert text in log, text
        assert text not in output, text
    wanted = (
        f"Run in '{run}' on cpu",
        "Training on tiny_train: 5 images",
        f"tensors from {weights}",
        "tensors of the model are not in the file: ",
        "total_loss",
        "Evaluating on tiny_val: 6 images",
        "bbox of tiny_val",
        f"Final results, also in '{run / 'results.json'}'",
    )
    places = [output.index(text) for text in wanted]
    assert places == sorted(places)
    assert "is not loaded" not in output
    assert "No checkpoint found" not in log


def test_an_error_is_the_last_line(train_net: TrainNet, tmp_path: Path) -> None:
    code, output = train_net("MODEL.WEIGHTS", "nowhere.pth")
    assert code == 2
    lines = output.splitlines()
    assert lines[-1].startswith("error: no checkpoint at 'nowhere.pth'")
    assert len(lines) < 10, output
    assert output.count("no checkpoint at") == 1
    assert "no checkpoint at 'nowhere.pth'" in (tmp_path / "run" / "log.txt").read_text()


def test_weights_that_lie_beside(train_net: TrainNet, tmp_path: Path) -> None:
    architecture = load_architecture("spnas_100")
    save_backbone(tmp_path, architecture, create_model("spnas_100").state_dict())
    code, output = train_net("MODEL.SPNAS.ARCH", str(tmp_path / "architecture.json"))
    assert code == 0, output
    assert "MODEL.WEIGHTS is empty: training starts from the model as it was built" in output
    weights = tmp_path / "backbone.pth"
    assert f"'{weights}' is not loaded; MODEL.WEIGHTS {weights} would do that" in output


def test_what_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("detectron2", "detection"):
        log_to(name, tmp_path)
    for name in ("detection.part", "detectron2.utils.events"):
        logging.getLogger(name).info("shown of %s", name)
    logging.getLogger("detectron2.part").warning("shown of a library")
    logging.getLogger("detectron2.part").info("hidden of a library")
    logging.getLogger("detection.part").error("hidden of ours", extra=FILE_ONLY)
    out, log = capsys.readouterr().out, (tmp_path / "log.txt").read_text()
    assert (out.count("shown of"), out.count("hidden of")) == (3, 0)
    assert (log.count("shown of"), log.count("hidden of")) == (3, 2)


def test_progress_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_to("detectron2", tmp_path)
    with EventStorage() as storage:
        storage.put_scalar("total_loss", 1.5)
        ProgressPrinter(10, lambda: "runtime: 93.1 ms").write()
        ProgressPrinter(10, str).write()
    first, second = capsys.readouterr().out.splitlines()
    assert "total_loss: 1.5" in first
    assert first.endswith("  runtime: 93.1 ms")
    assert not second.endswith(" ")
