"""A formulation is one class and one entry: all else follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backbones import UserError
from backbones.latency import predict_runtime
from search.runs.build import build_latency_table
from search.runs.classification import SearchTrainer
from search.runs.formulations.base import Search, SupernetFormulation
from search.runs.formulations.encodings import MultiPath, SinglePath
from search.runs.formulations.joint import Joint
from search.runs.formulations.registry import (
    FORMULATIONS,
    detector_formulation,
    formulations_table,
    supernet_formulation,
)
from search.studies.methods.study import METHODS, find_architecture, methods_of
from search.supernets.one_shot import OneShot
from tests.search.conftest import SHORT, make_cfg

STUDIED = ("SEARCH.SAMPLES", "1")


@dataclass(frozen=True)
class EverySecond(Joint):
    """Weights in every step, decisions in every second one."""

    kind = "toy"
    schedule = "weights in every step, decisions in every second one"
    on_detectors = False  # no gradient is dropped there

    def mask_gradients(self, search: Search) -> None:
        if search.iter % 2:
            for parameter in search.supernet.decision_parameters():
                parameter.grad = None


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> EverySecond:
    formulation = EverySecond("a toy", "Sec. 0", SinglePath("ste"), study_options=STUDIED)
    monkeypatch.setitem(FORMULATIONS, "toy", formulation)
    return formulation


def decisions(supernet: OneShot) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in supernet.decision_parameters()]


def test_a_new_formulation_is_searched_with(toy: EverySecond, images: Path, tmp_path: Path) -> None:
    options = ("SEARCH.FORMULATION", "toy", *SHORT)
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path, *options)
    trainer = SearchTrainer(cfg)
    moved = []
    step = trainer.run_step

    def run_step() -> None:
        before = decisions(trainer.supernet)
        step()
        after = decisions(trainer.supernet)
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))

    trainer.run_step = run_step  # type: ignore[method-assign]
    trainer.train()
    assert moved == [True, False, True, False]
    assert (tmp_path / "results.json").exists()


def test_a_new_formulation_is_a_method_of_studies(
    toy: EverySecond, images: Path, tmp_path: Path
) -> None:
    method = methods_of(FORMULATIONS)["toy"]
    assert method.overrides == ("SEARCH.FORMULATION", "toy", *STUDIED)
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path, *SHORT)
    found = find_architecture(cfg, method, 0.65, 0, tmp_path / "found")
    assert found.provenance["method"] == "toy"
    table = build_latency_table(cfg, SearchTrainer(cfg).space)
    assert 0.9 * 0.65 <= predict_runtime(found, table) <= 0.65


def test_a_new_formulation_is_documented_and_offered(
    toy: EverySecond, images: Path, tmp_path: Path
) -> None:
    (row,) = (line for line in formulations_table().splitlines() if "`toy`" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["`toy`", "toy", "a toy", toy.schedule, "no", "Sec. 0"]
    cfg = make_cfg("search/digits.yaml", images, tmp_path, "SEARCH.FORMULATION", "magic")
    with pytest.raises(UserError, match=r"expected one of sigmoid, .*, random, toy$"):
        SearchTrainer(cfg)


def test_the_default_comes_first(images: Path, tmp_path: Path) -> None:
    """Its method in a study changes nothing; every other one names its formulation."""
    cfg = make_cfg("search/digits.yaml", images, tmp_path)
    default, *others = FORMULATIONS
    assert default == cfg.SEARCH.FORMULATION
    assert METHODS["single-path"].overrides == ()
    named = [m.overrides[1] for m in METHODS.values() if "SEARCH.FORMULATION" in m.overrides]
    assert named == others


def test_studies_keep_the_names_of_their_methods() -> None:
    assert set(METHODS) == {
        *("single-path", "ste", "norm", "literal", "log-odds", "softmax", "multi-path"),
        *("multi-path-gumbel", "evolution", "sensitivity", "taylor", "random-search", "random"),
    }


@pytest.mark.parametrize("name", FORMULATIONS)
def test_parts_are_disjoint_and_all_images(name: str, images: Path, tmp_path: Path) -> None:
    formulation = FORMULATIONS[name]
    if not isinstance(formulation, SupernetFormulation):
        pytest.skip("trains no supernet")
    options = ("SEARCH.FORMULATION", name, "SEARCH.HELD_OUT", "0.5")
    trainer = SearchTrainer(make_cfg("search/digits_small.yaml", images, tmp_path, *options))
    weights, held_out = (list(part.indices) for part in trainer.parts)
    assert sorted([*weights, *held_out]) == list(range(16))
    assert bool(held_out) == (not isinstance(formulation, Joint))


def test_subset_dropout_leaves_paths_alone(images: Path, tmp_path: Path) -> None:
    """Decisions that are trained with the weights of paths: no subsets are dropped there."""
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path, "SEARCH.SUBSET_DROPOUT", "1.0")
    trainer = SearchTrainer(cfg)
    joint = Joint("paths", "", MultiPath("softmax"))
    trainer.supernet = supernet = joint.build_supernet(cfg, trainer.space, 2).train()
    with joint.step(trainer):
        assert supernet.subset_dropout == 1 and not joint.on_detectors
        assert supernet(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_what_a_formulation_cannot_do(images: Path, tmp_path: Path) -> None:
    cfg = make_cfg("search/digits.yaml", images, tmp_path, "SEARCH.FORMULATION", "random")
    with pytest.raises(
        UserError,
        match=r"'random' trains no supernet; expected .*, evolution, sensitivity, taylor$",
    ):
        supernet_formulation(cfg)
    with pytest.raises(
        UserError,
        match=r"is 'random'; a search on a detector .* sigmoid or ste or sensitivity or taylor$",
    ):
        detector_formulation(cfg)
    cfg.merge_from_list(
        ["SEARCH.FORMULATION", "evolution", "SEARCH.TARGET", "0.0", "SEARCH.HELD_OUT", "0.5"]
    )
    with pytest.raises(UserError, match=r"'evolution' has no λ; set SEARCH.TARGET"):
        SearchTrainer(cfg)
