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
MATHEMATICS = ("supernets", "selection")
"""Rooms of the search that are the method itself, without Detectron2, images or run folders."""


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


@pytest.mark.parametrize("room", MATHEMATICS)
def test_the_mathematics_of_search_needs_torch_and_backbones_alone(room: str) -> None:
    files = [ROOT / "search" / "space.py", *(ROOT / "search" / room).glob("*.py")]
    assert len(files) > 1
    for file in files:
        names = imported(file) - set(sys.stdlib_module_names)
        assert names <= {"torch", "backbones", "search"}, file


@pytest.mark.parametrize("room", MATHEMATICS)
def test_the_mathematics_imports_no_other_room(room: str) -> None:
    """However the import is written, and wherever it stands."""
    allowed = {"space", *MATHEMATICS}
    files = [file for file in (ROOT / "search" / room).glob("*.py") if file.stem != "__init__"]
    assert len(files) > 1
    for file in files:
        assert rooms_of_search(file) <= allowed, file


def rooms_of_search(path: Path) -> set[str]:
    """Names right below ``search`` that a module imports anywhere."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("search.")}


def test_backbones_are_imported_when_asked_for() -> None:
    code = (
        "import sys, backbones; assert set(backbones.__all__) <= set(dir(backbones));"
        "backbones.UserError; print('torch' in sys.modules);"
        "from backbones import *; print(create_model.__module__, 'torch' in sys.modules);"
        "print(sorted(n for n in backbones.__all__ if not hasattr(backbones, n)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.split("\n")[:3] == ["False", "backbones.factory True", "[]"], run.stderr


def test_backbones_names_have_one_home() -> None:
    import backbones

    homes = [name for names in backbones._HOMES.values() for name in names]
    assert sorted(homes) == sorted(backbones.__all__)
    with pytest.raises(ImportError, match="nowhere"):
        from backbones import nowhere  # noqa: F401


def test_backbones_need_torch_alone() -> None:
    """Also at run time: what is imported lazily stays out until it is asked for."""
    code = (
        "import sys, backbones; backbones.create_model('spnas_100');"
        "print(sorted({'timm', 'detectron2', 'torchvision', 'fvcore'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stderr
