"""The type of a layer, which search spaces choose and latency tables price, and its name."""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from backbones.errors import UserError

Op = Literal["mbconv", "ds", "skip"]

_NUMBER = r"(\d+(?:\.\d+)?)"
_NAME = re.compile(rf"(?:(\w+):)?(\d{{1,3}})x\d{{1,3}}-{_NUMBER}(?:-{_NUMBER})?", re.ASCII)


@dataclass(frozen=True)
class LayerType:
    """What a layer computes, apart from its shape: ``MBConv-k×k-e-se`` of Sec. III-A.

    As text, an ``mbconv`` is ``5x5-6`` or, with squeeze-and-excitation, ``5x5-6-0.25``; the
    skip-op is ``skip``; any other op stands before a colon: ``ds:3x3-1``. Every type has one text
    and every text one type.

    Attributes:
        kernel_size: of the depthwise convolution.
        expansion: its channels over the layer's input channels.
        se_ratio: of the squeeze; 0 is no SE.
        op: as in ``LayerSpec``.
    """

    kernel_size: int
    expansion: float
    se_ratio: float = 0
    op: Op = "mbconv"

    def __post_init__(self) -> None:
        assert self.op != "skip" or not (self.kernel_size or self.expansion or self.se_ratio)

    @property
    def has_se(self) -> bool:
        """Whether it has squeeze-and-excitation."""
        return self.se_ratio > 0

    def __str__(self) -> str:
        if self.op == "skip":
            return self.op
        prefix = "" if self.op == "mbconv" else f"{self.op}:"
        suffix = f"-{_number(self.se_ratio)}" if self.has_se else ""
        size = self.kernel_size
        return f"{prefix}{size}x{size}-{_number(self.expansion)}{suffix}"

    @classmethod
    def parse(cls, text: str) -> LayerType:
        """The type that has this text.

        Raises:
            UserError: if none has.
        """
        if text == str(SKIP):
            return SKIP
        match = _NAME.fullmatch(text)
        op = (match[1] or "mbconv") if match else ""
        if match and op in typing.get_args(Op) and op != "skip":
            found = cls(int(match[2]), float(match[3]), float(match[4] or 0), typing.cast(Op, op))
            if str(found) == text:
                return found
        raise UserError(
            f"'{text}' is no type of a layer; expected kernel, expansion and, with "
            "squeeze-and-excitation, its ratio, as in '3x3-6' and '5x5-3-0.25', or 'skip'; "
            "another op than mbconv stands first, as in 'ds:3x3-1'"
        )


SKIP = LayerType(0, 0, op="skip")
"""The skip-op: the identity."""


def parse_types(text: str) -> list[LayerType]:
    """The types of a network's searchable layers from one line.

    Raises:
        UserError: naming what is no type.
    """
    return [LayerType.parse(name) for name in text.split()]


def _number(value: float) -> str:
    """The shortest digits that are read as the same number, without an exponent."""
    return f"{Decimal(repr(value)).normalize():f}"
