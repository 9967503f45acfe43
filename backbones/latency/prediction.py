"""What a network costs by a latency table."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.latency.table import ConstantPart, LatencyTable, LayerRuntimes
from backbones.layer_types import SKIP


def layer_runtimes(
    architecture: Architecture, table: LatencyTable
) -> tuple[dict[int, float], dict[str, str]]:
    """Looks every searchable layer of a network up in a table.

    The k-th layer of a shape (channels, stride, input size) is looked up in the k-th row of that
    shape, so networks of the table's own search space meet exactly their rows. A layer with
    another activation than the table's layers is not covered.

    Returns:
        The corrected runtime of every layer found, by its index in the architecture, and why the
        others are not covered, by part ("layers[3]", "stem").
    """
    begin, end = _searchable(architecture, table.constant)
    uncovered = _other_parts(architecture, table.constant)
    rows: dict[tuple[int, int, int, tuple[int, int]], deque[LayerRuntimes]] = defaultdict(deque)
    for row in table.layers:
        rows[row.in_channels, row.out_channels, row.stride, row.input_size].append(row)
    found: dict[int, float] = {}
    sizes = input_sizes(architecture, table.input_size)
    for index in range(begin, end):
        layer, channels = architecture.layers[index], architecture.in_channels[index]
        shape = (channels, layer.out_channels, layer.stride, sizes[index])
        queue = rows.get(shape)
        found_row = (queue.popleft() if len(queue) > 1 else queue[0]) if queue else None
        runtime = found_row.runtime(layer.type) if found_row else None
        if runtime is None:
            height, width = sizes[index]
            uncovered[f"layers[{index}]"] = (
                f"{layer.type} with {channels} → {layer.out_channels} channels, stride "
                f"{layer.stride} at {height}×{width}"
            )
        elif layer.type != SKIP and layer.activation != table.activation:
            uncovered[f"layers[{index}]"] = (
                f"{layer.type} with activation {layer.activation}, where the table's layers have "
                f"{table.activation}"
            )
        else:
            found[index] = table.corrected_layer(runtime, layer.type)
    return found, uncovered


def _searchable(architecture: Architecture, constant: ConstantPart) -> tuple[int, int]:
    """Where the layers begin and end that are not of the constant part."""
    return len(constant.first), len(architecture.layers) - len(constant.last)


def _other_parts(architecture: Architecture, constant: ConstantPart) -> dict[str, str]:
    """What is not as in the constant part, and that it is not."""
    begin, end = _searchable(architecture, constant)
    return {
        name: "not the one that the table's constant part was measured with"
        for name, theirs, ours in (
            ("stem", architecture.stem, constant.stem),
            ("first layers", architecture.layers[:begin], constant.first),
            ("last layers", architecture.layers[end:], constant.last),
            ("head", architecture.head if constant.head else None, constant.head),
        )
        if theirs != ours
    }


def input_sizes(architecture: Architecture, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Height and width in pixels of every layer's input."""
    reductions = (2, *architecture.reductions[:-1])
    return [
        (math.ceil(image_size[0] / stride), math.ceil(image_size[1] / stride))
        for stride in reductions
    ]


def predict_runtime(architecture: Architecture, table: LatencyTable) -> float:
    """Runtime of a network as the sum of its parts (Eq. 11), in the table's unit.

    A table's correction, where it has one, is applied to every part.

    Raises:
        UserError: naming what the table does not cover.
    """
    found, uncovered = layer_runtimes(architecture, table)
    if uncovered:
        raise not_covered(table, f"architecture '{architecture.name}'", uncovered)
    return table.corrected_constant + sum(found.values())


def not_covered(table: LatencyTable, what: str, uncovered: Mapping[str, str]) -> UserError:
    """The error that names what a table lacks: the first parts of ``layer_runtimes``' answer."""
    parts = "; ".join(f"{part}: {why}" for part, why in list(uncovered.items())[:3])
    return UserError(
        f"latency table '{table.name}' does not cover {what}: it lacks "
        f"{len(uncovered)} part{'s' * (len(uncovered) != 1)}, {parts}; profile them, or use a "
        "table made for it"
    )
