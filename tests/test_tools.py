"""Every tool explains itself at once, and names what there is."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from backbones.inference import ENGINES
from search.profiling.evaluation import SEED
from search.studies.methods.study import METHODS
from search.studies.tuning.solvers import SOLVERS

ROOT = Path(__file__).resolve().parent.parent
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
HEAVY = {"torch", "detectron2", "timm", "numpy", "matplotlib", "wandb", "optuna", "PIL", "yaml"}


@cache
def help_of(tool: str, *step: str) -> tuple[str, set[str]]:
    """What ``--help`` prints, and the top-level names of all modules imported for it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "tools" / tool), *step, "--help"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "1000", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    modules = re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    return " ".join(done.stdout.split()), {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("tool", TOOLS)
def test_help_imports_nothing_heavy(tool: str) -> None:
    text, modules = help_of(tool)
    assert text.startswith(f"usage: {tool}")
    assert "argparse" in modules
    assert not modules & HEAVY
    assert text.isascii(), "a console may know no other letters"


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("compare_search.py",), METHODS),
        (("known_answer.py", "search"), METHODS),
        (("tune_lambda.py",), SOLVERS),
        (("profile_latency.py",), ENGINES),
        (("compare_backbones.py",), ENGINES),
    ],
)
def test_help_lists_what_there_is(command: tuple[str, ...], names: dict[str, object]) -> None:
    text, _ = help_of(*command)
    listed = ", ".join(names)
    assert re.search(rf"(?:of|\(|engine:) ?{re.escape(listed)}(?![\w,-])", text), text


def test_the_seed_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = runpy.run_path(str(ROOT / "tools" / "evaluate_latency.py"))["parse"]
    monkeypatch.setattr(sys, "argv", ["tool", "--table", "t", "--output", "o"])
    assert parse().seed == SEED
