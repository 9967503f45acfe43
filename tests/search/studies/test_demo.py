"""The demo's commands are the user's commands, and its summary is what the runs wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones import UserError
from detection.engine.config_file import find_config_file
from search.command_line import registry
from search.command_line.registry import typed
from search.studies.demo import demo_commands, demo_study, run_demo, summary

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("search", "train-classifier", "train")
SCORES = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 41.25)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The results of three stages."""
    cost: dict[str, Any] = {
        "backbone": "found",
        "params_detector": 9_000_000,
        "params_backbone": 2_000_000,
        "params_classifier": 3_910_000,
        "macs_backbone": 240_000_000,
        "macs_classifier": 300_000_000,
        "input_size": [192, 224],
        "latency_table": "pixel1",
        "runtime": 79.5,
        "runtime_unit": "ms",
        "measured_runtime": 9.87,
        "measured_with": "onnxruntime, CPU, 1 thread, 224×224",
    }
    found = {
        "layers": ["3x3-3", "skip"],
        "predicted_runtime": 79.5,
        "target_runtime": 80.0,
        "unit": "ms",
        "latency_table": "pixel1",
    }
    results = [
        {"search": found},
        {"classification": {"val": {"top1": 96.5}}},
        {"detection": {"cost": cost, "scores": {"digits_val": {"bbox": SCORES, "segm": SCORES}}}},
    ]
    for stage, result in zip(demo_commands(tmp_path), results, strict=True):
        stage.folder.mkdir()
        (stage.folder / "results.json").write_text(json.dumps(result))
    return tmp_path


def test_commands_hand_files_from_stage_to_stage(tmp_path: Path) -> None:
    search, classifier, detection = (stage.words() for stage in demo_commands(tmp_path))
    for arguments in (search, classifier, detection):
        script, option, config, resume, key, _ = arguments[:6]
        assert (ROOT / script).is_file()
        assert (option, resume, key) == ("--config-file", "--resume", "OUTPUT_DIR")
        assert (ROOT / config).is_file()
    assert str(tmp_path / "search" / "backbone.pth") in classifier
    assert str(tmp_path / "classifier" / "backbone.pth") in detection


def test_summary_shows_layers_runtime_accuracy_and_scales(finished: Path) -> None:
    text = summary(finished)
    for expected in ("3x3-3 skip", "79.50 ms (-0.62 % of target)", "80 ms", "96.50 %", "AP_S"):
        assert expected in text
    study = demo_study(finished, 12.0)
    assert study["scores"] == {"bbox": SCORES, "segm": SCORES}
    assert study["top1"] == 96.5


def test_elsewhere_than_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same configurations by the commands of ``spnas``."""
    monkeypatch.chdir(tmp_path)
    for command, name in zip(demo_commands(tmp_path), NAMES, strict=True):
        begin = f"spnas {name} --config-file configs/"
        assert typed(command.words()).startswith(begin)
        assert find_config_file(command.config_file).is_relative_to(ROOT / "configs")


def test_a_failing_stage_stops_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "search_net.py").write_text("raise SystemExit(2)")
    monkeypatch.setattr(registry, "tools_folder", lambda: tmp_path / "tools")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="command 1 of 3 ended with exit code 2"):
        run_demo(tmp_path / "output")
    assert "$ python tools/search_net.py --config-file configs/search/digits.yaml" in (
        capfd.readouterr().out
    )


def test_a_folder_of_another_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is run on it."""
    monkeypatch.chdir(ROOT)
    (_, _, detector) = demo_commands(tmp_path)
    detector.folder.mkdir()
    (detector.folder / "results.json").touch()
    shorter = replace(detector, options=(*detector.options, "SOLVER.MAX_ITER", "3"))
    (detector.folder / "config.yaml").write_text(shorter.config().dump())
    with pytest.raises(UserError, match=r"detection' holds .*: SOLVER.MAX_ITER is 3, not "):
        run_demo(tmp_path)
    assert "$ python" not in capfd.readouterr().out
