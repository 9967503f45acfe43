"""Where the configuration files are, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_path(*parts: str) -> Path:
    """A path below ``configs/``: inside the installed package, else at the top of the checkout."""
    installed = _PACKAGE / "configs"
    root = installed if installed.is_dir() else _PACKAGE.parent / "configs"
    return root.joinpath(*parts)
