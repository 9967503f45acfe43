"""Number formats of a deployed network, by the short names that tools take."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PRECISIONS: Mapping[str, str] = MappingProxyType(
    {"fp32": "float32", "fp16": "float16", "int8": "int8"}
)
"""Of weights and feature maps: the format, as latency tables state it, by its short name."""


def short_name(precision: str) -> str:
    """The short name of a format; one that has none is its own."""
    return {format_: name for name, format_ in PRECISIONS.items()}.get(precision, precision)
