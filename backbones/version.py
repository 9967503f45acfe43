"""The version of the project."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def project_version() -> str:
    """As the installed metadata states it."""
    try:
        return version("spnas")
    except PackageNotFoundError:
        return "of a checkout that is not installed"
