"""Installs Detectron2 where only the package index is reachable."""

from __future__ import annotations

from detection.installation.installer import Installed, Outcome, find_installed, install
from detection.installation.mends import MENDS
from detection.installation.patching import Mend, apply_mends
from detection.installation.source import SHA256, fetch_sdist
from detection.installation.wheel import build_wheel

__all__ = [
    "MENDS",
    "SHA256",
    "Installed",
    "Mend",
    "Outcome",
    "apply_mends",
    "build_wheel",
    "fetch_sdist",
    "find_installed",
    "install",
]
