"""What the lock installs on each system and Python, and whether there is a wheel of all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backbones.errors import UserError
from backbones.extras import EXTRAS
from detection.installation.index_settings import last_line

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")

ONLY_SOURCE = ("antlr4-python3-runtime", "fvcore")
"""Packages without any wheel on the package index; of Python alone, so pip builds them anywhere."""


@dataclass(frozen=True)
class System:
    """An operating system on a processor.

    Attributes:
        name: for people.
        target: what uv calls it.
        sys_platform: as in markers.
        platform_machine: as in markers.
        deployment: the least macOS, whose wheels are tagged with it; empty elsewhere.
    """

    name: str
    target: str
    sys_platform: str
    platform_machine: str
    deployment: str = ""

    def environment(self, python: str) -> dict[str, str]:
        """The values of a marker's variables with one Python."""
        windows = self.sys_platform == "win32"
        return {
            "implementation_name": "cpython",
            "os_name": "nt" if windows else "posix",
            "platform_machine": self.platform_machine,
            "platform_python_implementation": "CPython",
            "platform_system": {"win32": "Windows", "darwin": "Darwin"}.get(
                self.sys_platform, "Linux"
            ),
            "python_full_version": f"{python}.9",
            "python_version": python,
            "sys_platform": self.sys_platform,
        }


SYSTEMS = (
    System("Linux, x86-64", "x86_64-manylinux_2_28", "linux", "x86_64"),
    System("Linux, Arm (aarch64)", "aarch64-manylinux_2_28", "linux", "aarch64"),
    System("Windows, x86-64", "x86_64-pc-windows-msvc", "win32", "AMD64"),
    System("macOS 14 or newer, Apple silicon", "aarch64-apple-darwin", "darwin", "arm64", "14.0"),
)


def locked(lock: str, system: System, python: str) -> dict[str, Requirement]:
    """What a lock installs, by canonical name.

    Args:
        lock: the text of ``requirements.lock``.
        system: the operating system.
        python: its version, major and minor.

    Raises:
        ValueError: if it names two versions of a package.
    """
    environment = system.environment(python)
    found: dict[str, Requirement] = {}
    for line in lock.splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            if name in found:
                raise ValueError(f"{name} twice on {system.name} with Python {python}")
            found[name] = requirement
    return found


def left_out(system: System, python: str) -> list[str]:
    """The extras that have no wheels."""
    environment = system.environment(python)
    return [name for name, extra in EXTRAS.items() if not extra.is_available(environment)]


def systems_table() -> str:
    """Systems × Pythons, and which extras are left out, as Markdown."""
    rows = [f"| system | {' | '.join(f'Python {python}' for python in PYTHONS)} |"]
    rows.append("| --- " * (len(PYTHONS) + 1) + "|")
    for system in SYSTEMS:
        cells = [
            f"without {', '.join(missing)}" if (missing := left_out(system, python)) else "all"
            for python in PYTHONS
        ]
        rows.append(f"| {system.name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def check_lock(lock: Path) -> Iterator[str]:
    """Asks the package index for the wheels of a lock, for every system and Python.

    Nothing is installed or downloaded but metadata. uv asks, as it is configured here.

    Yields:
        A line for each: what was found.

    Raises:
        UserError: if a wheel is missing, or uv is.
    """
    text = lock.read_text(encoding="utf-8")
    for system in SYSTEMS:
        for python in PYTHONS:
            names = locked(text, system, python)
            _check(lock, system, python)
            missing = left_out(system, python)
            without = f", without {', '.join(missing)}" if missing else ""
            yield f"{system.name}, Python {python}: {len(names)} packages{without}"


def _check(lock: Path, system: System, python: str) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", str(lock), "--no-deps", "--quiet"]
    command += ["--python-platform", system.target, "--python-version", python, "--no-header"]
    command += ["--only-binary", ":all:"]
    for name in ONLY_SOURCE:
        command += ["--no-binary", name]
    deployment = {"MACOSX_DEPLOYMENT_TARGET": system.deployment} if system.deployment else {}
    environment = {**os.environ, **deployment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = next((row for row in done.stderr.splitlines() if "cause:" in row), "")
        reason = reason.partition("cause:")[2].strip() or last_line(done.stderr)
        raise UserError(
            f"'{lock}' cannot be installed on {system.name} with Python {python}: {reason}; give "
            "the package a marker in setup.cfg, and run make lock"
        )
