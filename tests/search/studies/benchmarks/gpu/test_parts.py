"""What a GPU will be asked runs in small on a CPU, from the tool to every part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detection.data.digits import read_manifest
from search.studies.benchmarks.gpu import checks, full_size, latency, search_steps
from search.studies.benchmarks.gpu.checks import CHECKS, STEPS
from search.studies.benchmarks.gpu.full_size import RECIPES
from search.studies.benchmarks.gpu.setting import Setting
from search.studies.benchmarks.gpu.tables import TABLES, gpu_section

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[5]


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A CPU, from the top of the checkout."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Setting("cpu", True, tmp_path)


def test_the_tool_runs_a_part(tmp_path: Path) -> None:
    words = ["gpu", "--device", "cpu", "--tiny", "--only", "c", "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert "timm's training step" in gpu_section(report)
    part = report["parts"]["c"]
    assert part["error"] is None
    for precision in ("float32", "bfloat16"):
        steps = part["figures"][precision]["steps"]
        assert {*steps} == {"spnas", "timm"}
        ratio = steps["spnas"]["seconds"] / steps["timm"]["seconds"]
        assert steps["spnas"]["time_ratio"] == pytest.approx(ratio)
        assert f"{precision}, steps, timm: seconds" in done.stdout


def test_without_a_gpu_the_tool_says_so(tmp_path: Path) -> None:
    words = ["gpu", "--folder", str(tmp_path), "--only", "c"]
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == "error: --device is cuda, but PyTorch finds no usable GPU here; use --device cpu"
    assert not (tmp_path / "gpu.json").exists()


def test_search_steps(setting: Setting) -> None:
    """Of every network in every precision, and compiled."""
    figures = {name: measure() for name, measure in search_steps.measurements(setting)}
    eager, compiled = {"supernet", "multi_path", "largest"}, {"supernet", "largest"}
    assert {name: {*measured["steps"]} for name, measured in figures.items()} == {
        "float32": eager,
        "bfloat16": eager,
        "bfloat16, compiled largest": {"largest"},
        "bfloat16, compiled supernet and largest": compiled,
    }
    for name, measured in figures.items():
        for cost in measured["steps"].values():
            assert cost["seconds"] > 0, (name, cost)
        assert measured["steps"]["largest"]["time_ratio"] == 1
        assert name in TABLES["b"](figures)


def test_a_check_stops_and_resumes(setting: Setting) -> None:
    ((_, measure),) = checks.measurements(setting, ("classifier",))
    figures = measure()
    assert "classifier" in TABLES["a"]({"checks": figures})
    found = figures["classifier"]
    done, steps = found["steps"]
    assert 0 < done < steps == STEPS
    assert len(found["seconds"]) == 2
    log = (setting.folder / "checks/classifier.again.log").read_text()
    assert f"iteration {done}" in log


def test_a_check_that_fails_is_told(setting: Setting) -> None:
    """What is no key of the configuration, of a run that should have begun."""
    wrong = checks.Check(**{**vars(CHECKS["classifier"]), "options": ("SOLVER.NONE", "1")})
    with pytest.raises(Exception, match="before the stop, exit code 2"):
        checks.check(Setting("cpu", False, setting.folder), wrong, setting.fresh("checks/wrong"))


def test_a_table_and_a_search_on_it(setting: Setting) -> None:
    figures = {name: measure() for name, measure in latency.measurements(setting)}
    smallest, largest = figures["table"]["range"]
    assert figures["search"]["target"] == pytest.approx((smallest + largest) / 2, abs=1e-3)
    assert 0 < figures["search"]["predicted"] <= figures["search"]["target"] * 1.001
    found = figures["search"]
    error = 100 * (found["predicted"] / found["measured"] - 1)
    assert found["error_percent"] == pytest.approx(error)
    assert figures["table"]["scores"]["all"]["networks"] == 2
    assert "searched for" in TABLES["e"](figures)


def test_a_recipe_starts(setting: Setting) -> None:
    """On made-up ImageNet; hours are those of all steps at the pace of the first ones."""
    name = "ImageNet classifier"
    figures: dict[str, Any] = {
        title: measure() for title, measure in full_size.measurements(setting, (name,))
    }
    found = figures[name]
    assert found["hours"] == pytest.approx(found["seconds"] * RECIPES[name].steps / 3600)
    waiting = found["data_seconds"] / found["median_seconds"]
    assert 0 < waiting < 1
    assert found["hours_without_waiting"] == pytest.approx(found["hours"] * (1 - waiting))
    assert name in TABLES["f"](figures)


def test_the_steps_of_the_recipes_are_the_configurations_own() -> None:
    """What hours are derived from: epochs, batches, learning rates and iterations."""
    from search.config import load_search_config

    for recipe in RECIPES.values():
        cfg = load_search_config(recipe.config_file)
        assert recipe.batch == cfg.SOLVER.IMS_PER_BATCH
        assert recipe.lr == cfg.SOLVER.BASE_LR
        epochs, images = cfg.CLASSIFICATION.EPOCHS, 1_281_167
        steps = cfg.SOLVER.MAX_ITER if recipe.batch == 16 else round(epochs * images / recipe.batch)
        assert recipe.steps == steps


def test_checks_train_thirty_steps(setting: Setting) -> None:
    """Of the digits that are made for them."""
    setting.prepare_digits()
    manifest = read_manifest(setting.folder / "datasets" / "digits")
    assert manifest is not None
    counts = manifest["counts"]["classification"]
    assert counts["train"]["images"] == setting.digits.images_train
