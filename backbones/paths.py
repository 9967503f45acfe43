"""Where the configuration files and the tools are, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["config_names", "config_path", "tools_folder"]

_PACKAGE = Path(__file__).resolve().parent


def config_path(*parts: str) -> Path:
    """A path below ``configs/``: inside the installed package, else at the top of the checkout."""
    installed = _PACKAGE / "configs"
    root = installed if installed.is_dir() else _PACKAGE.parent / "configs"
    return root.joinpath(*parts)


def config_names() -> list[str]:
    """The configurations of runs, by their names below ``configs/``: ``search/digits.yaml``."""
    root = config_path()
    names = (file.relative_to(root).as_posix() for file in root.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("sweeps/"))  # W&B's own kind


def tools_folder() -> Path:
    """The scripts: ``spnas_tools`` beside installed packages, else ``tools/`` of the checkout."""
    installed = _PACKAGE.parent / "spnas_tools"
    return installed if installed.is_dir() else _PACKAGE.parent / "tools"
