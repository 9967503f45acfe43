"""``layers.json``: why every layer of the network found is what it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from detectron2.utils import comm

from backbones.files import write_json
from search.selection.runtime import RuntimeModel
from search.space import Choice, SearchSpace
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet

LAYERS_FILE = "layers.json"


def write_layers(
    folder: Path, runtime_model: RuntimeModel, choices: Sequence[Choice], supernet: OneShot
) -> None:
    """Writes the runtime of every choice of every layer, and what decided among them.

    Thresholds and importances are in the units that are compared (Eq. 2-4): an option is used where
    its importance is above its threshold.

    Args:
        folder: of the run; the main process alone writes.
        runtime_model: of the space that was searched.
        choices: of the network found, one per searchable layer.
        supernet: that the network is of; thresholds that were not trained have decided nothing.
    """
    if not comm.is_main_process():
        return
    space, table = runtime_model.space, runtime_model.table
    decided = isinstance(supernet, Supernet) and supernet.thresholds.values.requires_grad
    decisions = _decisions(cast(Supernet, supernet), space) if decided else None
    layers: list[dict[str, Any]] = []
    for index, (layer, choice) in enumerate(zip(space.layers, choices, strict=True)):
        types = [str(space.choice_type(option)) for option in space.choices(layer)]
        runtimes = dict(zip(types, runtime_model.choice_runtimes(index), strict=True))
        row = {
            "in_channels": layer.in_channels,
            "out_channels": layer.out_channels,
            "stride": layer.stride,
            "chosen": str(space.choice_type(choice)),
            "runtimes": runtimes,
        }
        layers.append({**row, "decisions": decisions[index]} if decisions else row)
    content = {
        "latency_table": table.name,
        "unit": table.unit,
        "fixed_runtime": runtime_model.fixed_runtime,
        "fixed_first": len(space.first),
        "layers": layers,
    }
    write_json(folder / LAYERS_FILE, content)


@torch.no_grad()
def _decisions(supernet: Supernet, space: SearchSpace) -> list[list[dict[str, Any]]]:
    """Of every layer, the options above the smallest one with importance and threshold."""
    logits = supernet.logits().double().cpu()
    thresholds = supernet.thresholds.values.detach().double().cpu()
    importances = logits * supernet.thresholds.temperature + thresholds
    names = [
        *(f"kernel {option}×{option}" for option in space.kernel_sizes[1:]),
        *(f"expansion {option:g}" for option in space.expansions[1:]),
        *(f"SE {option:g}" for option in space.se_ratios[1:]),
        "layer",
    ]
    return [
        [
            {"option": name, "importance": float(value), "threshold": float(threshold)}
            for name, value, threshold, known in zip(names, *row, strict=True)
            if known
        ]
        for row in zip(importances, thresholds, supernet.known, strict=True)
    ]
