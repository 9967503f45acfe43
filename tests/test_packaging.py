"""What is installed: a wheel of the packages and their data, and the lock with its extras."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backbones.errors import UserError
from backbones.extras import EXTRAS, require
from detection.installation.lock import PYTHONS, SYSTEMS, left_out, locked

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
CELLS = [(system, python) for system in SYSTEMS for python in PYTHONS]
in_every_cell = pytest.mark.parametrize(
    ("system", "python"), CELLS, ids=[f"{s.target}-{p}" for s, p in CELLS]
)


def requirements(text: str) -> list[Requirement]:
    """Of an option of setup.cfg; lines that name another extra are left out."""
    lines = [line.strip() for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and line[0] not in "#%"]


def test_no_package_is_forgotten() -> None:
    """They are listed one by one: a new folder that is not listed is missing in the wheel alone."""
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in ("backbones", "detection", "search")
        for path in (ROOT / top).rglob("*.py")
    }
    assert {*SETUP["options"]["packages"].split()} == {*folders, "backbones.configs"}


def test_extras_are_those_of_the_metadata() -> None:
    stated = SETUP["options.extras_require"]
    # weights are found by their packages' folders, and imported by nothing
    assert {*stated} == {*EXTRAS, "pretrained", "dev"}
    for name, extra in EXTRAS.items():
        assert f"%({name})s" in stated["dev"]
        wanted = requirements(stated[name])
        assert [f"{item.name}{item.specifier}" for item in wanted] == [*extra.packages]
        markers = {str(item.marker) for item in wanted if item.marker}
        assert markers == (
            {str(Requirement(f"x ; {extra.marker}").marker)} if extra.marker else set()
        )


@in_every_cell
def test_the_lock_has_what_the_metadata_asks_for(system: Any, python: str) -> None:
    """And of each extra all or nothing, as the system has wheels of it or not."""
    found = locked(LOCK, system, python)
    missing = left_out(system, python)
    for name in ("install_requires", *EXTRAS):
        section = "options" if name == "install_requires" else "options.extras_require"
        for wanted in requirements(SETUP[section][name]):
            held = found.get(canonicalize_name(wanted.name))
            if name in missing:
                assert held is None
            else:
                assert held is not None, wanted
                (pin,) = held.specifier
                assert pin.operator == "==" and wanted.specifier.contains(pin.version), wanted


def test_classifiers_are_the_pythons_of_the_lock() -> None:
    stated = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert tuple(stated) == PYTHONS
    assert SETUP["options"]["python_requires"] == f">={PYTHONS[0]}"
    low, high = (tuple(map(int, python.split("."))) for python in (PYTHONS[0], PYTHONS[-1]))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"not {low} <= sys.version_info < {(3, high[1] + 1)}" in makefile
    assert f"is not Python {PYTHONS[0]} to {PYTHONS[-1]};" in makefile


def test_a_missing_extra_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    require("json", extra="tune")
    command = r"pip install botorch 'optuna>=5' optuna-integration sqlalchemy$"
    with pytest.raises(UserError, match=f"'no_such_solver' is not installed; .*{command}"):
        require("json", "no_such_solver", extra="tune")
    monkeypatch.setattr("packaging.markers.Marker.evaluate", lambda *_: False)
    with pytest.raises(
        UserError, match=r"has no wheel of it; use Linux on x86_64 with Python 3\.10"
    ):
        require("no_such_converter", extra="litert-converter")


def test_no_message_names_an_index_that_has_no_spnas() -> None:
    for folder in ("backbones", "detection", "search", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not re.search(r"install\b.*\bspnas", node.value), path


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("spnas-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "backbones",
        "detection",
        "search",
    }
    for path in ("archs/spnas_100.json", "latency/pixel1.json", "search/spaces/imagenet.json",
                 "detection/mask_rcnn_spnas_fpn_1x.yaml"):  # fmt: skip
        assert f"backbones/configs/{path}" in names
    assert "detection/engine/cli.py" in names
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}.replace('.whl', ''));"
        "import backbones; print(backbones.__file__, backbones.list_models())"
    )
    zipfile.ZipFile(wheel).extractall(str(wheel).removesuffix(".whl"))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert str(tmp_path) in run.stdout
    assert "spnas_100" in run.stdout
    # what the messages of a wheel name is there: what installs Detectron2, without any checkout
    unpacked = str(wheel).removesuffix(".whl")
    run = subprocess.run(
        [sys.executable, "-m", "detection.installation", "--sdist", "nowhere", "--wheel-only"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": unpacked},
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("error: cannot read the Detectron2 source")
    (info,) = Path(unpacked).glob("*.dist-info")
    assert list(info.rglob("LICENSE"))
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    assert "Requires-Python: >=3.10" in metadata
