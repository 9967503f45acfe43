"""The two latency tools as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import LatencyTable, UserError
from backbones.files import write_json
from search.profiling.cli import image_size
from search.space import SearchSpace

SPNAS = ("--architectures", "spnas_100")
ROOT = Path(__file__).resolve().parents[3]


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), *arguments], capture_output=True, text=True
    )


@pytest.fixture
def space_config(small_space: SearchSpace, tmp_path: Path) -> Path:
    write_json(tmp_path / "space.json", small_space.to_dict())
    config = tmp_path / "search.yaml"
    config.write_text(f"SEARCH:\n  SPACE: {tmp_path / 'space.json'}\nVERSION: 2\n")
    return config


@pytest.mark.slow
def test_profile_then_evaluate(space_config: Path, tmp_path: Path) -> None:
    table, report = tmp_path / "torch.json", tmp_path / "report.json"
    at_once = tmp_path / "evaluation.json"
    base = ("--config-file", str(space_config), "--rounds", "1", "--networks", "6")
    options = ("--engine", "torch", "--input-size", "64x64", "--output", str(table))
    options += ("--evaluation", str(at_once), "--evaluation-networks", "4")
    run = tool("profile_latency.py", *base, *options)
    assert run.returncode == 0, run.stderr
    assert "95/95" in run.stderr  # 2 + 8 × 8 parts, 6 + 4 networks, and 19 of the reference
    assert len(json.loads(at_once.read_text())["networks"]) == 4
    assert LatencyTable.load(table).engine == "torch"
    run = tool("evaluate_latency.py", *base, "--table", str(table), "--output", str(report))
    assert run.returncode == 0, run.stderr
    assert "spearman" in run.stdout
    assert len(json.loads(report.read_text())["networks"]) == 6


def test_a_quick_profile_is_marked(space_config: Path, tmp_path: Path) -> None:
    table = tmp_path / "quick.json"
    options = ("--engine", "torch", "--input-size", "64x64", "--output", str(table), "--quick")
    run = tool("profile_latency.py", "--config-file", str(space_config), *options)
    assert run.returncode == 0, run.stderr
    assert "278 visits (about" in run.stdout  # of 2 + 8 × 8 parts, 8 networks, and the reference
    found = LatencyTable.load(table)
    assert found.warning.startswith("rough, as it was measured in 3 rounds")
    assert "3 rounds, rough" in found.source
    assert f"Wrote {table}, {found.warning}" in run.stdout


def test_named_networks_with_a_breakdown() -> None:
    options = ("--engine", "torch", "--rounds", "1", "--breakdown")
    run = tool("profile_latency.py", *options, "--architectures", "spnas_100", "--table", "pixel1")
    assert run.returncode == 0, run.stderr
    assert "| spnas_100" in run.stdout
    assert "80.4" in run.stdout
    assert "conv" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "tensorrt", "--output", "t.json"), "unknown engine 'tensorrt'; expected"),
        (("--engine", "torch"), "--output is missing"),
        (("--engine", "torch", "--evaluation-networks", "1"), "-networks is 1; expected 2"),
        (("--engine", "torch", "--input-size", "224"), "--input-size is '224'; expected HEIGHT"),
        (
            ("--engine", "torch", "--input-size", "64x64", *SPNAS, "--table", "pixel1"),
            "'pixel1' is for classification at 224×224",
        ),
        (("--engine", "torch", "--architectures", "spnas_9"), "unknown architecture 'spnas_9'"),
        (("--output", "t.json"), "--engine is missing; expected torch, onnxruntime or litert"),
        (("--engine", "torch", "--prepare", "p"), "--engine is torch, which measures in place"),
        (("--engine", "litert", "--host", "pi"), "measure a prepared folder; name it: --collect F"),
        (("--prepare", "p", "--collect", "p"), "--prepare comes first, by itself"),
        (("--collect", "p", "--host", "pi", "--adb"), "are two ways to measure; name one"),
        (("--collect", "nowhere", "--output", "t.json"), "'nowhere' is no prepared folder"),
    ],
)
def test_mistakes_end_with_code_2(arguments: tuple[str, ...], message: str) -> None:
    run = tool("profile_latency.py", *arguments)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_an_evaluation_names_its_table() -> None:
    run = tool("evaluate_latency.py", "--output", "r.json")
    assert run.returncode == 2
    assert "--table is missing: the table to judge" in run.stderr


def test_image_size() -> None:
    assert image_size("800x1333") == (800, 1333)
    for text in ("224", "16x224", "ax3", "1x2x3"):
        with pytest.raises(UserError, match="expected HEIGHTxWIDTH"):
            image_size(text)
