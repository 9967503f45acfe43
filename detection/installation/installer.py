"""Installs the wheel into the running interpreter, unless a working Detectron2 is there."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from backbones.errors import UserError
from detection.installation.index_settings import last_line
from detection.installation.source import check_sdist, fetch_sdist
from detection.installation.wheel import REQUIREMENTS, VERSION, build_wheel

# Imports the parts that models and training need, and reports as JSON what came of it.
_PROBE = """
import importlib, importlib.metadata, importlib.util, json
spec = importlib.util.find_spec("detectron2")
report = {"found": spec is not None and spec.origin is not None}
if report["found"]:
    report["location"] = spec.submodule_search_locations[0]
    try:
        report["version"] = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        report["version"] = "unknown version"
    try:
        for name in ("layers", "modeling", "data", "engine", "evaluation", "checkpoint", "solver",
                     "structures", "model_zoo", "utils.visualizer"):
            importlib.import_module("detectron2." + name)
    except BaseException as error:
        report["error"] = f"{type(error).__name__}: {error}"
print("\\n" + json.dumps(report))
"""


@dataclass(frozen=True)
class Installed:
    """A Detectron2 that the running interpreter finds.

    Attributes:
        version: as its installed metadata states it.
        location: the package's folder.
        error: what importing it raises; empty if it works.
    """

    version: str
    location: str
    error: str = ""

    @property
    def is_own(self) -> bool:
        """Whether this installer made it."""
        return "+spnas" in self.version


@dataclass(frozen=True)
class Outcome:
    """What :func:`install` did.

    Attributes:
        wheel: the wheel that was built, or ``None`` if a working Detectron2 was left alone.
        installed: the Detectron2 that is there now, or ``None`` if only the wheel was wanted.
    """

    wheel: Path | None
    installed: Installed | None

    def __str__(self) -> str:
        if self.installed is None:
            return f"built {self.wheel}"
        where = f"detectron2 {self.installed.version} in {self.installed.location}"
        if self.wheel is None:
            return f"{where} works and is left alone (--force replaces it)"
        return f"installed {where} from {self.wheel}"


def default_wheel_dir() -> Path:
    """The user's cache folder for the source and the wheel, by the platform's convention."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "spnas" / "detectron2"


def find_installed() -> Installed | None:
    """Looks for Detectron2 in a fresh process of this interpreter, and tries whether it works.

    Returns:
        What was found, or ``None`` if there is no such package.

    Raises:
        UserError: if that process ends without an answer.
    """
    with tempfile.TemporaryDirectory() as empty:
        # An empty working folder: a source checkout beside the caller is no installation.
        result = subprocess.run(
            [sys.executable, "-c", _PROBE], cwd=empty, capture_output=True, text=True
        )
    try:
        report = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        raise UserError(
            f"'{sys.executable}' ended with code {result.returncode} while importing detectron2: "
            f"{last_line(result.stderr)}; check this Python environment"
        ) from None
    if not report["found"]:
        return None
    return Installed(report["version"], report["location"], report.get("error", ""))


def install(
    sdist: Path | None = None,
    wheel_dir: Path | None = None,
    *,
    wheel_only: bool = False,
    force: bool = False,
) -> Outcome:
    """Makes ``import detectron2`` work in the running interpreter's environment.

    A working Detectron2 is left alone, whatever its version. Only one that this installer made
    itself is renewed, if it is of another version or broken.

    Args:
        sdist: a local copy of the source; downloaded if not given.
        wheel_dir: where source and wheel are kept; the user's cache folder by default.
        wheel_only: build the wheel and install nothing.
        force: replace whatever Detectron2 is installed.

    Raises:
        UserError: if the source cannot be had or is not the expected one, a Detectron2 is
            installed that does not work, requirements are missing, or pip fails.
    """
    if sdist is not None:
        check_sdist(sdist)
    if not wheel_only and not force:
        present = find_installed()
        if present is not None and not _is_outdated(present):
            return Outcome(None, _usable(present))
    if not wheel_only:
        _check_requirements()
    folder = wheel_dir or default_wheel_dir()
    wheel = build_wheel(sdist or fetch_sdist(folder), folder)
    if wheel_only:
        return Outcome(wheel, None)
    _pip_install(wheel)
    return Outcome(wheel, _verify(wheel))


def _is_outdated(present: Installed) -> bool:
    return present.is_own and (present.version != VERSION or bool(present.error))


def _usable(present: Installed) -> Installed:
    """Returns ``present`` if it works.

    Raises:
        UserError: if it does not. It may be the user's own build, so it is not replaced unasked.
    """
    if not present.error:
        return present
    hint = ""
    if "pkg_resources" in present.error:
        hint = "install 'setuptools<81', which still has pkg_resources, or "
    raise UserError(
        f"detectron2 {present.version} in {present.location} is installed but does not work "
        f"({present.error}); {hint}mend or uninstall it, or replace it with --force"
    )


def _check_requirements() -> None:
    """Refuses an environment that lacks what Detectron2 imports.

    pip installs the wheel without its dependencies, so that it never exchanges the user's PyTorch.
    """
    missing = [text for text in REQUIREMENTS if not _is_met(Requirement(text))]
    if missing:
        arguments = " ".join(f"'{text}'" for text in missing)
        raise UserError(
            "Detectron2 needs packages that this environment lacks; first run: "
            f"python -m pip install {arguments}"
        )


def _is_met(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def _pip_install(wheel: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index"]
    result = subprocess.run(
        [*command, "--force-reinstall", str(wheel)], capture_output=True, text=True
    )
    if result.returncode != 0:
        raise UserError(
            f"pip could not install '{wheel}': {last_line(result.stderr)}; "
            "use a virtual environment that you may write to"
        )
    importlib.invalidate_caches()


def _verify(wheel: Path) -> Installed:
    installed = find_installed()
    if installed is None:
        raise UserError(
            f"pip installed '{wheel}', but '{sys.executable}' does not find detectron2; check "
            "pip's --target, --prefix and --user settings ('pip config list')"
        )
    if installed.error:
        raise UserError(
            f"detectron2 {installed.version} was installed in {installed.location}, but importing "
            f"it fails: {installed.error}; check the versions of torch and torchvision, which "
            "must match"
        )
    return installed
