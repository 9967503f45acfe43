"""The network drawn layer by layer, in the manner of the paper's Fig. 6."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backbones.architecture import Architecture, LayerSpec
from backbones.errors import UserError
from backbones.figures import shown
from backbones.latency import LatencyTable, input_sizes, layer_runtimes
from search.report.runs import Run

IMAGE = (224, 224)
"""Height and width in pixels that layers are drawn for where no table names another size."""

Fact = tuple[str, str]
"""What is known of a block: name and value."""


@dataclass(frozen=True)
class Block:
    """A layer as it is drawn.

    Attributes:
        title: its type, or what part of the network it is.
        kind: ``skip``, ``fixed`` where a search leaves the layer as it is, else ``layer``.
        kernel: size of its convolution, 0 of a skipped layer.
        expansion: of its channels; 0 where there is none.
        se: ratio of squeeze-and-excitation; 0 without.
        out_channels: of the layer.
        stride: relative to the image, of its output.
        runtime: by the latency table; None where that is not known.
        facts: all that is shown when it is pointed at.
    """

    title: str
    kind: str
    kernel: int
    expansion: float
    se: float
    out_channels: int
    stride: int
    runtime: float | None = None
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """A network as the page shows it.

    Attributes:
        name: of the network.
        stages: blocks by stage; a stage is all layers of one width and resolution.
        runtimes: by part, in order: stem and head together, then layer by layer.
        unit: of the runtimes.
        table: that they are from; empty without any.
    """

    name: str
    stages: tuple[tuple[Block, ...], ...]
    runtimes: tuple[tuple[str, float], ...] = field(default=())
    unit: str = "ms"
    table: str = ""


def draw_network(
    architecture: Architecture, run: Run | None, table_name: str, losses: Mapping[str, Any]
) -> Drawing:
    """A network with what is known of its layers.

    Args:
        architecture: of the network.
        run: the search that found it; None without one.
        table_name: of the latency table; a name or a path that may have gone.
        losses: of ``sensitivity.json``; empty where the search was another.
    """
    left = run.layers if run else {}
    table = _table(table_name, architecture)
    unit = str(left.get("unit", table.unit if table else "ms"))
    begin = left.get("fixed_first", len(table.constant.first) if table else 0)
    rows: dict[int, Mapping[str, Any]] = dict(enumerate(left.get("layers", ()), start=begin))
    runtimes, _ = layer_runtimes(architecture, table) if table else ({}, {})
    runtimes |= {index: row["runtimes"][row["chosen"]] for index, row in rows.items()}
    sizes = input_sizes(architecture, table.input_size if table else IMAGE)
    blocks = []
    for index, (height, width) in enumerate(sizes):
        layer, channels = architecture.layers[index], architecture.in_channels[index]
        facts: list[Fact] = [
            ("channels", f"{channels} → {layer.out_channels}"),
            ("input", f"{height}×{width}, stride {layer.stride}"),
        ]
        if index in runtimes:
            facts.append(("runtime", f"{shown(runtimes[index])} {unit}"))
        facts += [*_why(rows.get(index, {})), *_losses(losses, index - begin)]
        number = index - begin + 1 if index in runtimes else None
        kind = "skip" if layer.op == "skip" else "layer" if number or not runtimes else "fixed"
        stride = architecture.reductions[index]
        blocks.append(_block(layer, kind, number, stride, runtimes.get(index), facts))
    fixed = left.get("fixed_runtime", table.corrected_constant if table else None)
    parts = [("all that is fixed", fixed)] if fixed is not None else []
    parts += [(b.title.removeprefix("layer "), b.runtime) for b in blocks if b.runtime]
    name = str(left.get("latency_table", table_name if table else ""))
    return Drawing(architecture.name, _stages(blocks), tuple(parts), unit, name)


def _block(
    layer: LayerSpec,
    kind: str,
    number: int | None,
    stride: int,
    runtime: float | None,
    facts: Sequence[Fact],
) -> Block:
    """A layer as it is drawn; one that is searched has a number, from 1 on."""
    skipped = kind == "skip"
    return Block(
        title=f"layer {number}: {layer.type}" if number else str(layer.type),
        kind=kind,
        kernel=0 if skipped else layer.kernel_size,
        expansion=0 if skipped else layer.expansion,
        se=layer.se_ratio,
        out_channels=layer.out_channels,
        stride=stride,
        runtime=runtime,
        facts=tuple(facts),
    )


def _table(name: str, architecture: Architecture) -> LatencyTable | None:
    """The table, if it is there and covers the whole network."""
    try:
        table = LatencyTable.load(name) if name else None
    except UserError:
        return None
    return table if table and not layer_runtimes(architecture, table)[1] else None


def _stages(blocks: Sequence[Block]) -> tuple[tuple[Block, ...], ...]:
    """Blocks by width and resolution."""
    groups = itertools.groupby(blocks, key=lambda block: (block.out_channels, block.stride))
    return tuple(tuple(group) for _, group in groups)


def _why(row: Mapping[str, Any]) -> list[Fact]:
    """Importance and threshold of every option, and what other types would take."""
    facts: list[Fact] = []
    for item in row.get("decisions", ()):
        importance, threshold = item["importance"], item["threshold"]
        sign = ">" if importance > threshold else "≤"
        words = f"importance {importance:.3g} {sign} threshold {threshold:.3g}"
        facts.append((item["option"], words))
    others = [f"{name} {shown(value)}" for name, value in row.get("runtimes", {}).items()
              if name != row["chosen"]]  # fmt: skip
    return [*facts, ("other types, runtime", ", ".join(others))] if others else facts


def _losses(losses: Mapping[str, Any], position: int) -> list[Fact]:
    """What the loss is with every type, around the last network that a search measured."""
    networks = losses.get("networks", ())
    if not (networks and 0 <= position < len(networks[-1]["layers"])):
        return []
    around = networks[-1]["loss"]
    found = networks[-1]["layers"][position].items()
    text = ", ".join(f"{name} {loss - around:+.3f}" for name, loss in found)
    return [("loss with the type, less the loss around", text)]
