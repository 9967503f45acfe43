"""How Detectron2 uses the backbones: ``import detection`` registers them and the data sets.

Without Detectron2 the package can still be imported, since `detection.installation` installs it;
asking for anything that needs Detectron2 then says how to get it.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

from backbones.threads import yield_cores

__all__ = [
    "SPNASBackbone",
    "add_spnas_config",
    "build_retinanet_spnas_fpn_backbone",
    "build_spnas_backbone",
    "build_spnas_fpn_backbone",
]

_INSTALL = "python -m detection.installation"


def _detectron2_problem() -> str | None:
    """What is wrong with Detectron2 in this environment; None if it can be used."""
    if find_spec("detectron2") is None:
        return f"Detectron2 is not installed; install it with: {_INSTALL}"
    try:
        with warnings.catch_warnings():
            # fvcore compiles two losses when it is imported; nothing that a user could change.
            warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
            import detectron2.checkpoint
            import detectron2.data
            import detectron2.engine
            import detectron2.evaluation
            import detectron2.modeling  # noqa: F401
    # An old Detectron2 fails on today's NumPy and Pillow with AttributeErrors.
    except (ImportError, AttributeError) as error:
        if getattr(error, "name", None) == "pkg_resources":
            return (
                "the installed Detectron2 needs 'pkg_resources', which setuptools 81 removed; "
                f'run: pip install "setuptools<81", or replace it with: {_INSTALL} --force'
            )
        return (
            f"the installed Detectron2 cannot be imported ({error}); it is too old for the other "
            f"libraries or its build is broken: replace it with: {_INSTALL} --force"
        )
    return None


yield_cores()  # the next line imports PyTorch
_problem = _detectron2_problem()
if TYPE_CHECKING or _problem is None:
    import detection.registration  # noqa: F401
    from detection.config import add_spnas_config
    from detection.modeling.backbone import SPNASBackbone, build_spnas_backbone
    from detection.modeling.pyramid import (
        build_retinanet_spnas_fpn_backbone,
        build_spnas_fpn_backbone,
    )


def __getattr__(name: str) -> object:
    """Reached for names that Detectron2's absence left undefined."""
    if name in __all__:
        raise ImportError(f"'detection.{name}' is not available: {_problem}")
    raise AttributeError(f"module 'detection' has no attribute '{name}'")
