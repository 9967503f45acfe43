"""Imports run one way: backbones ← detection ← search ← tools."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "backbones": {"backbones"},
    "detection": {"backbones", "detection"},
    "search": {"backbones", "detection", "search"},
    "tools": {"backbones", "detection", "search"},
}
OURS = {*ALLOWED, "tests"}
MATHEMATICS = (
    "space", "decisions", "superkernel", "thresholds", "supernet", "runtime", "target", "tradeoff",
    "export",
)  # fmt: skip


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_direction(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(bad)
        for path in files
        if (bad := (imported(path) & OURS) - ALLOWED[package])
    }
    assert not wrong


@pytest.mark.parametrize("name", MATHEMATICS)
def test_the_mathematics_of_search_needs_torch_and_backbones_alone(name: str) -> None:
    names = imported(ROOT / "search" / f"{name}.py")
    assert names - set(sys.stdlib_module_names) <= {"torch", "backbones", "search"}


def test_backbones_need_torch_alone() -> None:
    """Also at run time: what is imported lazily stays out until it is asked for."""
    code = (
        "import sys, backbones; backbones.create_model('spnas_100');"
        "print(sorted({'timm', 'detectron2', 'torchvision', 'fvcore'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stderr
