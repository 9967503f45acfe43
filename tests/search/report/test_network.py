"""The drawing of a network, and what it says of a layer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backbones import LatencyTable, load_architecture
from backbones.latency import layer_runtimes
from search.report.network import draw_network
from search.report.runs import Run, read_run
from tests.search.report.run_files import NETWORK


@pytest.fixture(scope="module")
def run(runs: Path) -> Run:
    return read_run(runs / "search")


def test_blocks_are_the_layers(run: Run) -> None:
    network = load_architecture(NETWORK)
    drawing = draw_network(network, run, "pixel1", {})
    blocks = [block for stage in drawing.stages for block in stage]
    assert [block.out_channels for block in blocks] == [la.out_channels for la in network.layers]
    assert all(len({(b.out_channels, b.stride) for b in stage}) == 1 for stage in drawing.stages)
    expected, _ = layer_runtimes(network, LatencyTable.load("pixel1"))
    assert {i: b.runtime for i, b in enumerate(blocks) if b.kind != "fixed"} == expected
    skipped = [b for b in blocks if b.kind == "skip"]
    assert len(skipped) == sum(layer.op == "skip" for layer in network.layers)
    assert all((b.kernel, b.expansion) == (0, 0) for b in skipped)


def test_a_layer_says_what_decided_it(run: Run) -> None:
    row = {
        "chosen": "5x5-6",
        "runtimes": {"3x3-3": 1.5, "5x5-6": 4.0, "skip": 0.0},
        "decisions": [
            {"option": "kernel 5×5", "importance": 0.25, "threshold": -1.5},
            {"option": "layer", "importance": -2.0, "threshold": 0.5},
        ],
    }
    layers = {"layers": [row], "unit": "ms", "latency_table": "own"}
    layers |= {"fixed_runtime": 20.0, "fixed_first": 1}
    losses = {"networks": [{"loss": 1.0, "layers": [{"3x3-3": 1.125, "5x5-6": 1.0}]}]}
    search = dataclasses.replace(run, layers=layers)
    drawing = draw_network(load_architecture(NETWORK), search, "pixel1", losses)
    block = next(b for stage in drawing.stages for b in stage if b.kind != "fixed")
    assert block.title.startswith("layer 1: ")
    facts = dict(block.facts)
    assert facts["runtime"] == "4.00 ms"
    assert facts["kernel 5×5"] == "importance 0.25 > threshold -1.5"
    assert facts["layer"] == "importance -2 ≤ threshold 0.5"
    assert facts["other types, runtime"] == "3x3-3 1.50, skip 0.00"
    assert facts["loss with the type, less the loss around"] == "3x3-3 +0.125, 5x5-6 +0.000"
    assert drawing.runtimes[0] == ("all that is fixed", 20.0)
    assert drawing.table == "own"


@pytest.mark.parametrize(
    ("network", "table"), [(NETWORK, "gone.json"), (NETWORK, ""), ("efficientnet_lite0", "pixel1")]
)
def test_without_a_table_that_covers_it_a_network_has_no_runtimes(network: str, table: str) -> None:
    drawing = draw_network(load_architecture(network), None, table, {})
    assert drawing.runtimes == ()
    blocks = [block for stage in drawing.stages for block in stage]
    assert {block.runtime for block in blocks} == {None}
    assert {block.kind for block in blocks} <= {"layer", "skip"}
