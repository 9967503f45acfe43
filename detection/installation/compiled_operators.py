"""Stands in for Detectron2's compiled module: installed as ``detectron2/_C.py``.

Importing it succeeds, so everything that never needs a compiled operator works. Touching an
operator raises :class:`MissingOperatorError`. The file is copied into the wheel, so it must not
import anything.
"""

from __future__ import annotations


class MissingOperatorError(NotImplementedError, AttributeError):
    """A compiled Detectron2 operator was asked for and this build has none.

    It is an ``AttributeError`` too, so that ``hasattr(_C, name)`` answers ``False``.
    """


def get_compiler_version() -> str:
    """What Detectron2's environment report prints as the compiler."""
    return "none (pure-Python build, without compiled operators)"


def get_cuda_version() -> str:
    """What Detectron2's environment report prints as the CUDA compiler."""
    return "not available"


def has_cuda() -> bool:
    """Whether the operators were compiled with CUDA: never, in this build."""
    return False


def __getattr__(name: str) -> object:
    # The import system and `inspect` probe for dunder names; those are simply absent.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise MissingOperatorError(
        f"this Detectron2 is a pure-Python build and lacks the compiled operator '{name}' "
        "(deformable convolution, rotated boxes and the fast COCO evaluator need such operators). "
        "Build Detectron2 from its source repository with a C++ compiler (and CUDA, for a GPU) "
        "and install that instead of this one, or choose a model or an option that does without"
    )
