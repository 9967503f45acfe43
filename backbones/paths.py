"""Where the configuration files and the tools are, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["config_path", "tools_folder"]

_PACKAGE = Path(__file__).resolve().parent


def config_path(*parts: str) -> Path:
    """A path below ``configs/``: inside the installed package, else at the top of the checkout."""
    installed = _PACKAGE / "configs"
    root = installed if installed.is_dir() else _PACKAGE.parent / "configs"
    return root.joinpath(*parts)


def tools_folder() -> Path:
    """The scripts: ``spnas_tools`` beside installed packages, else ``tools/`` of the checkout."""
    installed = _PACKAGE.parent / "spnas_tools"
    return installed if installed.is_dir() else _PACKAGE.parent / "tools"
