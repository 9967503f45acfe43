"""The order in which a network computes its modules, as far as their names tell it.

The order of tensors in a file says nothing: safetensors and other tools sort them. Names do:
numbers count up, and libraries' names for the parts of a network are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_CHAINS: tuple[tuple[str, ...], ...] = (
    # timm: a network, a depthwise separable block, an inverted residual, its squeeze-and-excite
    ("conv_stem", "bn1", "blocks", "conv_head", "bn2", "classifier"),
    ("conv_dw", "bn1", "se", "conv_pw", "bn2"),
    ("conv_pw", "bn1", "conv_dw", "bn2", "se", "conv_pwl", "bn3"),
    ("conv_reduce", "conv_expand"),
    ("conv", "bn"),
    # torchvision, and repositories that name alike
    ("features", "conv", "classifier"),
    ("layers", "classifier"),
    # pytorchcv: a network, its stages, its kinds of blocks
    ("features", "output"),
    ("init_block", "stage", "final_block"),
    ("exp_conv", "conv1", "se", "conv2"),
    ("bc_conv", "exp_conv", "dw_conv", "se", "pw_conv"),
    # ProxylessNAS and once-for-all, by their authors
    ("first_conv", "blocks", "final_expand_layer", "feature_mix_layer", "classifier"),
    ("inverted_bottleneck", "depth_conv", "point_linear"),
    ("mobile_inverted_conv", "shortcut"),
    # FBNet, by its authors
    ("backbone", "head"),
    ("pw", "dw", "se", "pwl"),
    # EfficientNet-PyTorch, by lukemelas: a network, a block
    ("_conv_stem", "_bn0", "_blocks", "_conv_head", "_bn1", "_fc"),
    (
        "_expand_conv",
        "_bn0",
        "_depthwise_conv",
        "_bn1",
        "_se_reduce",
        "_se_expand",
        "_project_conv",
        "_bn2",
    ),
    # this project
    ("stem", "layers", "head", "hidden", "classifier"),
    ("expand", "depthwise", "se", "project"),
    ("conv", "norm"),
)
"""Parts beside each other, in order. A part may have a number after the name given here."""

_Place = tuple[int, tuple[int, ...]]


class ModuleOrder:
    """Which of two modules comes first.

    Args:
        names: of all modules with weights, in any order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._siblings: dict[tuple[str, ...], set[str]] = {}
        for name in names:
            parts = tuple(name.split("."))
            for depth, part in enumerate(parts):
                self._siblings.setdefault(parts[:depth], set()).add(part)
        self._places = {parent: _places(parts) for parent, parts in self._siblings.items()}

    def before(self, first: str, second: str) -> bool | None:
        """Whether ``first`` comes before ``second``; None if the names do not tell."""
        ours, theirs = first.split("."), second.split(".")
        depth = 0
        while depth < min(len(ours), len(theirs)) and ours[depth] == theirs[depth]:
            depth += 1
        if depth == min(len(ours), len(theirs)):
            return None
        return self._beside(tuple(ours[:depth]), ours[depth], theirs[depth])

    def _beside(self, parent: tuple[str, ...], first: str, second: str) -> bool | None:
        if places := self._places[parent]:
            return places[first] < places[second]
        (text, number), (other_text, other) = _split(first), _split(second)
        return number < other if text == other_text and number != other else None


def _places(parts: set[str]) -> dict[str, _Place]:
    """The place of every part among those beside it; empty if no chain has them all."""
    for chain in ((), *_CHAINS):
        found = {part: place for part in parts if (place := _place(part, chain)) is not None}
        if len(found) == len(parts) == len(set(found.values())):
            return found
    return {}


def _place(part: str, chain: tuple[str, ...]) -> _Place | None:
    if part in chain:
        return chain.index(part), ()
    text, number = _split(part)
    if not number or (text and text not in chain):
        return None
    return (chain.index(text) if text else 0), number


def _split(part: str) -> tuple[str, tuple[int, ...]]:
    """A part's text and the numbers after it: ``stage12`` → ``("stage", (12,))``."""
    text, digits = re.fullmatch(r"(.*?)(\d+(?:_\d+)*)?", part, re.DOTALL).groups()  # type: ignore[union-attr]
    return text, tuple(int(number) for number in (digits or "").split("_") if number)
