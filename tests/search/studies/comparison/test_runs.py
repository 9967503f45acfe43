"""Run folders that a full disk or a power cut has spoiled: one line, or left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backbones import UserError
from detection.engine.metrics import has_row, mend_metrics, read_metrics
from detection.engine.results import results_part
from search.studies.commands import Command
from search.studies.comparison.runs import load_run, training_speed, whole_config

CONFIG = """MODEL:
  SPNAS:
    ARCH: mnasnet_b1
    WIDTH_MULT: 1.0
SEED: 3
SOLVER:
  IMS_PER_BATCH: 16
"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no MODEL.SPNAS.ARCH"),
        (CONFIG[: CONFIG.index("SOLVER")].encode(), "it has no SOLVER.IMS_PER_BATCH"),
        (CONFIG.encode() + b"WANDB: {", "is not the configuration of a run"),
        (b"\xff\xfe\x00", "is not the configuration of a run"),
        (b"[1, 2]", "it has no MODEL.SPNAS.ARCH"),
        (b"1: 2", "it has no MODEL.SPNAS.ARCH"),
    ],
)
def test_a_cut_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        whole_config(tmp_path)


@pytest.mark.parametrize(
    "content", ["", '{"detection": {"sco', "null", "[]", '{"detection": null}']
)
def test_cut_results(tmp_path: Path, content: str) -> None:
    """They count as none: the run goes on, and writes them again."""
    (tmp_path / "results.json").write_text(content)
    assert not Command("train_net.py", "c.yaml", tmp_path).finished
    assert results_part(tmp_path, "detection") is None
    with pytest.raises(UserError, match=r"results\.json|is not a run of '.* tools/train_net\.py'"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    "part",
    [
        "{}",
        '{"scores": {"val": {"bbox": {}}}, "cost": {}}',
        '{"scores": {"val": {"bbox": []}}, "cost": {"of": "another version"}}',
        '{"scores": {"val": 3}, "cost": null}',
    ],
)
def test_results_of_another_version(tmp_path: Path, part: str) -> None:
    (tmp_path / "results.json").write_text(f'{{"detection": {part}}}')
    (tmp_path / "config.yaml").write_text(CONFIG)
    with pytest.raises(UserError, match=r"the files of the run .* are not as this version writes"):
        load_run(tmp_path)


def test_results_of_another_stage_are_no_end(tmp_path: Path) -> None:
    """A search on a detector writes what it found before it evaluates."""
    (tmp_path / "results.json").write_text('{"search": {"layers": []}}')
    assert Command("search_net.py", "c.yaml", tmp_path).finished
    assert not Command("train_net.py", "c.yaml", tmp_path).finished


def test_cut_lines_of_metrics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [json.dumps({"iteration": i, "time": time}) for i, time in ((19, 0.5), (39, 0.25))]
    file = tmp_path / "metrics.json"
    file.write_text("\n".join([rows[0], rows[1][:9] + rows[1], rows[1], rows[1][:14]]))
    assert training_speed(tmp_path, 8) == 8 / 0.375
    assert "line 2 is cut" in caplog.text and "line 4 is cut" in caplog.text
    mend_metrics(tmp_path)
    assert file.read_text().splitlines()[-1] == rows[1]
    assert file.read_text().endswith("\n")
    assert has_row(tmp_path, 39) and not has_row(tmp_path, 59)
    assert [row["iteration"] for row in read_metrics(tmp_path)] == [19, 39]
    assert training_speed(tmp_path / "none", 8) is None
