"""The study of precisions, on an engine with known runtimes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backbones import UserError
from backbones.files import write_json
from detection.deployment import Deployment
from search.profiling.evaluation import evaluate_table
from search.profiling.profiler import profile_space
from search.profiling.workload import type_names
from search.space import SearchSpace
from search.studies.precisions.found import paired_searches
from search.studies.precisions.report import precisions_section
from search.studies.precisions.study import (
    check_tables,
    evaluated_networks,
    option_costs,
    precision_study,
)
from tests.search.profiling.conftest import KnownEngine, engine, small_space

__all__ = ["engine", "small_space"]

DEPLOYMENT = Deployment("classification", (64, 64))


def test_the_study_of_precisions(
    small_space: SearchSpace, engine: KnownEngine, tmp_path: Path
) -> None:
    """By an engine on which int8 makes all but squeeze-and-excitation twice as fast."""
    both = [
        profile_space(
            *(
                small_space,
                KnownEngine(precision=name),
                DEPLOYMENT,
                tmp_path / f"{name}.json",
                5,
                12,
            )
        )
        for name in ("fp32", "int8")
    ]
    folders = []
    for seed in (0, 1):
        for table, choice in zip(both, (small_space.candidates[0], None), strict=True):
            choices = [
                choice if layer.droppable else small_space.candidates[seed]
                for layer in small_space.layers
            ]
            folders.append(tmp_path / f"{table.name}_{seed}")
            folders[-1].mkdir()
            config = f"SEED: {seed}\nSEARCH:\n  LATENCY_TABLE: {tmp_path / table.name}.json\n"
            (folders[-1] / "config.yaml").write_text(config)
            row = {"layers": type_names(small_space, choices).split(), "val": {"top1": 50.0}}
            write_json(folders[-1] / "results.json", {"search": row})
    reports = [
        evaluate_table(table, small_space, tmp_path / f"report_{table.name}.json", 8, rounds=5)
        for table in both
    ]
    found = precision_study(both, reports, small_space, folders, 2, tmp_path / "partial")
    assert len(found["networks"]) == 8
    assert found["tables"] == {"fp32": "fp32", "int8": "int8"}
    low, middle, high = found["ratio"]
    assert 0.5 < low <= middle <= high < 1
    columns = zip(*(row["measured"].values() for row in found["networks"]), strict=True)
    orders = [sorted(range(8), key=column.__getitem__) for column in columns]
    places = [[order.index(network) for network in range(8)] for order in orders]
    squares = sum((first - second) ** 2 for first, second in zip(*places, strict=True))
    assert found["rank"]["measured"] == pytest.approx(1 - 6 * squares / (8 * 63), abs=1e-4)
    costs = found["costs"]
    assert costs["int8"]["SE 0.25"] > costs["fp32"]["SE 0.25"] > 1
    skips = sum(layer.droppable for layer in small_space.layers)
    assert [row["different_layers"] for row in found["searches"]] == [skips] * 4
    text = precisions_section({**found, "command": "python x", "hardware": "here"})
    assert f"| known    | int8        | {costs['int8']['kernel 5']:.2f} ×" in text
    with pytest.raises(UserError, match="0 searches of seed 1 on a table in int8; name one for"):
        paired_searches(folders[:3], both, small_space)
    with pytest.raises(UserError, match="an evaluation is of latency table 'int8'; expected one"):
        evaluated_networks(both, reports[::-1])
    with pytest.raises(UserError, match="share 0 networks; evaluate both with the same --seed"):
        evaluated_networks(both, [reports[0], {**reports[1], "networks": []}])
    with pytest.raises(UserError, match="'fp32' and 'fp32' are both in fp32; name tables of two"):
        check_tables([both[0], both[0]])
    with pytest.raises(UserError, match=r"differ in threads \(1 and 2\); profile both alike"):
        check_tables([both[0], dataclasses.replace(both[1], threads=2)])
    assert option_costs(small_space, both[0]) == costs["fp32"]
