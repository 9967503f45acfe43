"""Types of layers: one text each, and one type for every text."""

from __future__ import annotations

import itertools
import typing

import pytest

from backbones import LayerSpec, UserError
from backbones.blocks import BLOCKS
from backbones.layer_types import SKIP, LayerType, Op, parse_types
from backbones.specs import _OP_CHECKS

EXPANSIONS = (0.5, 1, 2.3, 2.5, 3, 4, 6, 10, 1 / 3, 0.1 + 0.2, 1e-5)
SE_RATIOS = (0, 0.25, 0.5, 1, 1 / 3, 1e-6)


def every_type() -> list[LayerType]:
    options = itertools.product((3, 5, 7), EXPANSIONS, SE_RATIOS, ("mbconv", "ds"))
    return [SKIP, *itertools.starmap(LayerType, options)]


def test_every_type_survives_the_round_trip() -> None:
    types = every_type()
    texts = list(map(str, types))
    assert [LayerType.parse(text) for text in texts] == types
    assert len(set(texts)) == len(set(types)) == len(types) == 1 + 3 * 11 * 6 * 2
    assert parse_types(" ".join(texts)) == types


@pytest.mark.parametrize(
    ("layer_type", "text"),
    [
        (LayerType(3, 6), "3x3-6"),
        (LayerType(5, 6.0, 0.25), "5x5-6-0.25"),
        (LayerType(3, 2.3), "3x3-2.3"),
        (LayerType(3, 10), "3x3-10"),
        (LayerType(3, 1e-05), "3x3-0.00001"),
        (LayerType(3, 1, op="ds"), "ds:3x3-1"),
        (LayerSpec(24, op="ds", kernel_size=5, se_ratio=0.5).type, "ds:5x5-1-0.5"),
        (LayerSpec(24, kernel_size=5, expansion=3, activation="relu6").type, "5x5-3"),
        (LayerSpec(24, op="skip", kernel_size=5).type, "skip"),
    ],
)
def test_text(layer_type: LayerType, text: str) -> None:
    assert str(layer_type) == text
    assert LayerType.parse(text) == layer_type


@pytest.mark.parametrize(
    "text",
    [
        *("", "3x3", "3x5-6", "03x03-6", "3x3-6.0", "3x3-6-0", "3x3-1e-05", "3x3--6", "3x3-6-"),
        *("3x3-6-0.25-1", "mbconv:3x3-6", "skip:3x3-6", "conv:3x3-6", "ds:skip", ":3x3-6"),
        *("3x3-6 ", "3x3-٣", f"3x3-{'9' * 400}", f"{'9' * 5000}x3-6", "Skip", "3x3-nan", "ds"),
    ],
)
def test_no_other_text_is_a_type(text: str) -> None:
    with pytest.raises(UserError, match="is no type of a layer; expected kernel") as error:
        LayerType.parse(text)
    assert f"'{text}'" in str(error.value)


def test_squeeze_and_excitation() -> None:
    assert LayerType(3, 6, 0.25).has_se
    assert not any(plain.has_se for plain in (SKIP, LayerType(3, 6), LayerType(3, 1, op="ds")))


def test_every_op_has_a_module_and_a_check() -> None:
    assert set(BLOCKS) == set(_OP_CHECKS) == set(typing.get_args(Op))
