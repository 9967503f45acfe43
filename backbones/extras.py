"""Packages that only some commands need, and where they have wheels: extras of ``setup.cfg``."""

from __future__ import annotations

import importlib.util
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from backbones.errors import UserError

__all__ = ["EXTRAS", "Extra", "require"]


@dataclass(frozen=True)
class Extra:
    """Optional packages that are used together.

    Attributes:
        packages: what pip installs.
        marker: of the systems and Pythons that have wheels of all; empty for every one.
        where: the same in words.
    """

    packages: tuple[str, ...]
    marker: str = ""
    where: str = ""

    def is_available(self, environment: Mapping[str, str] | None = None) -> bool:
        """Whether there are wheels.

        Args:
            environment: values of a marker's variables; this interpreter's own by default.
        """
        from packaging.markers import Marker

        return not self.marker or Marker(self.marker).evaluate(dict(environment or {}))


EXTRAS: dict[str, Extra] = {
    "onnxruntime": Extra(("onnx", "onnxruntime", "onnxscript")),
    "litert": Extra(("ai-edge-litert", "backports.strenum<1.3")),
    "litert-converter": Extra(
        ("ai-edge-quantizer", "litert-torch"),
        marker="sys_platform == 'linux' and platform_machine == 'x86_64' "
        "and python_version < '3.14'",
        where="Linux on x86_64 with Python 3.10 to 3.13",
    ),
    "tune": Extra(("botorch", "optuna>=5", "optuna-integration", "sqlalchemy")),
    "cluster": Extra(("submitit>=1.5",)),
}
"""By name, as in ``setup.cfg``."""


def require(*modules: str, extra: str = "") -> None:
    """Checks that optional packages are installed.

    Args:
        modules: names to import.
        extra: the one of :data:`EXTRAS` that they belong to; empty if they are packages of their
            names.

    Raises:
        UserError: naming the first that is missing, and how to install it, or that there is no
            wheel of it here.
    """
    missing = next((name for name in modules if importlib.util.find_spec(name) is None), None)
    if missing is None:
        return
    wanted = EXTRAS[extra] if extra else Extra(modules)
    if not wanted.is_available():
        here = f"{platform.system()} on {platform.machine()} with Python"
        raise UserError(
            f"the package '{missing}' is not installed, and {here} {platform.python_version()} has "
            f"no wheel of it; use {wanted.where}"
        )
    raise UserError(
        f"the package '{missing}' is not installed; get it with: "
        f"python -m pip install {shlex.join(wanted.packages)}"
    )
