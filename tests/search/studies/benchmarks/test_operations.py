"""A step of the supernet launches about as many operations as the largest network's."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from backbones import LatencyTable
from search.space import SearchSpace
from search.studies.benchmarks import operations as module
from search.studies.benchmarks.operations import (
    deciding,
    operations,
    operations_of,
    operations_report,
    operations_section,
)
from search.supernets.single_path import Supernet


def test_operations_are_those_that_call_no_other() -> None:
    x, y = torch.ones(3, requires_grad=True), torch.ones(3)
    products = (x * y).sum()  # made before, so not counted
    assert operations(lambda: None).total() == 0
    assert operations(lambda: torch.add(y, y)).total() == 1
    assert operations(lambda: torch.mul(torch.add(y, y), y)).total() == 2
    # a linear layer is a transposition and a product, neither of which is counted twice
    linear = operations(lambda: F.linear(y[None], torch.ones(2, 3))).total()
    assert 2 < linear < 10
    backward = operations(products.backward).total()
    assert backward >= 2  # the backward pass is counted, too: of the sum, and of the products


def test_a_whole_step(space: SearchSpace, table: LatencyTable) -> None:
    """Forward and backward, at most 1.2 times the largest network's."""
    fixed = operations_of("largest", space, table)
    assert fixed > 3000
    assert fixed < operations_of("supernet", space, table) <= 1.2 * fixed


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_deciding_and_the_runtime_term(
    space: SearchSpace, table: LatencyTable, dropout: float
) -> None:
    """Forward and backward, at most 400, whatever the number of layers."""
    found = deciding(space, table, dropout)
    assert 100 < found.total() <= 400
    assert not {"_local_scalar_dense", "is_nonzero", "nonzero"} & set(found)  # the host waits


def test_a_report_and_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"supernet": 1200, "multi_path": 9000, "largest": 1000}
    monkeypatch.setattr(module, "operations_of", lambda network, *_: counts[network])
    monkeypatch.setattr(
        module, "deciding", lambda *_, dropout=0.0: Counter(mul=300 + int(100 * dropout))
    )
    report: dict[str, Any] = operations_report("imagenet", "pixel1")
    assert report["ratios"] == {"supernet": 1.2, "multi_path": 9.0, "largest": 1.0}
    text = operations_section(report)
    for part in ("1,200", "1.200", "9,000", "alone: 300, and with subset dropout 340."):
        assert part in text


def test_layers_add_views_alone(space: SearchSpace) -> None:
    """What is decided is in tensors over all layers: a further layer is a few views of them."""
    counts = []
    for layers in (2, 4):
        stages = tuple(dataclasses.replace(stage, num_layers=layers) for stage in space.stages)
        supernet = Supernet(dataclasses.replace(space, stages=stages).scaled(0.5), 2).train()
        supernet.prepare()
        counts.append(operations(supernet.prepare).total())
    assert 0 < counts[1] - counts[0] <= 10 * 10
