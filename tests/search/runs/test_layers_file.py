"""What a search leaves of its layers: runtimes, importances and thresholds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import LatencyTable
from search.runs.layers_file import LAYERS_FILE, write_layers
from search.selection.runtime import RuntimeModel
from search.space import SearchSpace
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.single_path import Supernet


def written(folder: Path) -> Any:
    return json.loads((folder / LAYERS_FILE).read_text())


@pytest.mark.parametrize("importance", ["relative", "norm", "none"])
def test_what_is_above_its_threshold_is_the_network(
    space: SearchSpace, table: LatencyTable, rng: random.Random, tmp_path: Path, importance: str
) -> None:
    """Read by hand, importances and thresholds stand for the network that the supernet is."""
    model = RuntimeModel(space, table)
    supernet = Supernet(space, 2, importance=importance, importance_floor=0.1)
    choices = space.sample(rng)
    supernet.reset_thresholds(choices)
    write_layers(tmp_path, model, choices, supernet)
    content = written(tmp_path)
    total = content["fixed_runtime"]
    for row, choice, layer in zip(content["layers"], choices, space.layers, strict=True):
        used = {d["option"]: d["importance"] > d["threshold"] for d in row["decisions"]}
        assert ("layer" in used) == layer.droppable
        assert used.get("layer", True) == (choice is not None)
        if choice is not None:
            assert used["kernel 5×5"] == (space.kernel_sizes[choice.kernel] == 5)
            assert used["expansion 6"] == (space.expansions[choice.expansion] == 6)
            ratio = space.se_ratios[choice.se]
            assert (used["SE 0.25"], used["SE 0.5"]) == (ratio > 0, ratio > 0.25)
        assert row["chosen"] == str(space.choice_type(choice))
        total += row["runtimes"][row["chosen"]]
    assert total == pytest.approx(model.runtime_of(choices))
    assert (content["unit"], content["latency_table"]) == ("ms", "pixel1")


@pytest.mark.parametrize("kind", ["frozen", "multi-path"])
def test_where_no_threshold_decided_there_is_none(
    space: SearchSpace, table: LatencyTable, rng: random.Random, tmp_path: Path, kind: str
) -> None:
    choices = space.sample(rng)
    supernet = Supernet(space, 2) if kind == "frozen" else MultiPathSupernet(space, 2)
    for parameter in supernet.decision_parameters():
        parameter.requires_grad_(kind != "frozen")
    before = torch.get_rng_state()
    write_layers(tmp_path, RuntimeModel(space, table), choices, supernet)
    assert torch.equal(torch.get_rng_state(), before)
    assert all("decisions" not in row for row in written(tmp_path)["layers"])
