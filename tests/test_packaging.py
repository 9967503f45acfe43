"""What is installed: a wheel of the packages and their data, and the lock with its extras."""

from __future__ import annotations

import ast
import configparser
import json
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
    lines = [line for line in SETUP["options"]["packages"].splitlines() if line.strip()[:1] != "#"]
    assert {*" ".join(lines).split()} == {*folders, "backbones.configs", "spnas_tools"}


def test_extras_are_those_of_the_metadata() -> None:
    stated = SETUP["options.extras_require"]
    # weights are found by their packages' folders, and imported by nothing
    assert {*stated} == {*EXTRAS, "pretrained", "auto", "dev"}
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
                    assert not re.search(r"pip install\b.*\bspnas", node.value), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, as pip lays it out: a folder, and in ``bin`` the console script."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "source")], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(folder), str(folder / "source")], check=True)
    (file,) = folder.glob("spnas-*.whl")
    unpacked = folder / "site"
    zipfile.ZipFile(file).extractall(unpacked)
    (info,) = unpacked.glob("*.dist-info")
    entries = configparser.ConfigParser()
    entries.read(info / "entry_points.txt", encoding="utf-8")
    assert {*entries["console_scripts"]} == {"spnas"}
    module, _, name = entries["console_scripts"]["spnas"].partition(":")
    (unpacked / "bin").mkdir()
    (unpacked / "bin" / "spnas").write_text(
        f"import sys\nfrom {module} import {name}\nsys.exit({name}())\n", encoding="utf-8"
    )
    return unpacked


def spnas(wheel: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The wheel's console script in a folder; what it depends on is that of this Python."""
    return subprocess.run(
        [sys.executable, str(wheel / "bin" / "spnas"), *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(wheel), "DETECTRON2_DATASETS": str(folder)},
    )


@pytest.mark.slow
def test_wheel(wheel: Path) -> None:
    (info,) = wheel.glob("*.dist-info")
    tops = {path.name for path in wheel.iterdir()} - {info.name, "bin"}
    assert tops == {"backbones", "detection", "search", "spnas_tools"}
    for path in ("archs/spnas_100.json", "latency/pixel1.json", "search/spaces/imagenet.json",
                 "detection/mask_rcnn_spnas_fpn_1x.yaml"):  # fmt: skip
        assert (wheel / "backbones" / "configs" / path).is_file()
    assert (wheel / "detection" / "engine" / "cli.py").is_file()
    scripts = {path.name for path in (wheel / "spnas_tools").iterdir()}
    assert scripts == {path.name for path in (ROOT / "tools").glob("*.py")}
    assert list(info.rglob("LICENSE"))
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    assert "Requires-Python: >=3.10" in metadata


@pytest.mark.slow
def test_the_wheel_in_code_of_ones_own(wheel: Path, tmp_path: Path) -> None:
    code = "import backbones; print(backbones.__file__, backbones.list_models())"
    environ = {**os.environ, "PYTHONPATH": str(wheel)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environ,
        check=True,
    )
    assert str(wheel) in run.stdout
    assert "spnas_100" in run.stdout


@pytest.mark.slow
def test_commands_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """In an empty folder, which they leave empty."""
    run = spnas(wheel, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\n  search  " in run.stdout
    run = spnas(wheel, tmp_path, "--version")
    assert run.stdout == f"spnas {SETUP['metadata']['version']}\n"
    run = spnas(wheel, tmp_path, "search", "--help")
    assert run.stdout.startswith("usage: spnas search [-h] [--config-file FILE]"), run.stderr
    run = spnas(wheel, tmp_path, "serch")
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_wheel_installs_detectron2(wheel: Path, tmp_path: Path) -> None:
    """Without any checkout, by both of the commands that messages name."""
    words = ("--sdist", "nowhere", "--wheel-only")
    module = subprocess.run(
        [sys.executable, "-m", "detection.installation", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(wheel)},
    )
    for run in (module, spnas(wheel, tmp_path, "install-detectron2", *words)):
        assert run.returncode == 2
        assert run.stderr.splitlines()[-1].startswith("error: cannot read the Detectron2 source")


@pytest.mark.slow
def test_the_wheel_has_its_configurations(wheel: Path, tmp_path: Path) -> None:
    """As the README names them, in any folder; a tool runs as far as to its data."""
    config = "configs/classification/spnas_imagenet.yaml"
    run = spnas(wheel, tmp_path, "train-classifier", "--config-file", config)
    assert run.returncode == 2
    line = run.stderr.splitlines()[-1]
    assert line.startswith("error: CLASSIFICATION.DATASET 'imagenet': no folder"), line


@pytest.mark.slow
def test_the_doctor_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """This environment, in which all tests run, works."""
    run = spnas(wheel, tmp_path, "doctor", "--json")
    report = json.loads(run.stdout)
    assert run.returncode == (0 if report["healthy"] else 1)
    assert report["spnas"] == SETUP["metadata"]["version"]
    status = {finding["subject"]: finding["status"] for finding in report["findings"]}
    needed = ("packages", "torch", "torchvision", "Detectron2", "writing here")
    assert {status[subject] for subject in needed} == {"ok"}, run.stdout
    assert status["engine: onnxruntime"] == "ok"
