"""How networks of a supernet are judged: losses and gradients, with statistics of their own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from fvcore.nn.precise_bn import update_bn_stats
from torch import Tensor

from backbones.exported import save_backbone
from search.runs.classification import SearchTrainer
from search.runs.judge import ClassifierJudge, statistics_kept
from search.space import Candidate, Choice, SearchSpace
from search.start.refitting import changed_layers, fit_layers, layer_rows
from search.supernets.export import export_network
from search.supernets.single_path import Supernet
from tests.search.conftest import as_expected
from tests.search.runs.sensitivity.conftest import OWN
from tests.search.start.conftest import random_network


def test_a_loss_is_that_of_the_network_on_its_own(trainer: SearchTrainer) -> None:
    """Independent: exported, with precise statistics, and its cross entropy by hand."""
    judge = trainer.judge
    for choices in (OWN, [Candidate(0, 0, 0), Candidate(1, 0, 0), None]):
        network = export_network(
            trainer.supernet, choices, trainer.space.architecture(choices, "one")
        )
        update_bn_stats(network.train(), map(as_expected, judge._statistics), 2)
        network.eval()
        with torch.no_grad():
            batches = [(network(as_expected(x)), y) for x, y in judge._held_out]
            losses = [F.cross_entropy(*batch, reduction="none") for batch in batches]
        assert len(torch.cat(losses)) == 6
        assert judge.loss(choices) == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
        assert judge.loss(choices) == judge.loss(choices)


def test_layers_that_networks_share_are_computed_once(trainer: SearchTrainer) -> None:
    judge, space = trainer.judge, trainer.space
    networks = [[*OWN[:2], choice] for choice in space.choices(space.layers[2])]
    alone = [(judge.loss(choices), judge.blind_loss(choices)) for choices in networks]
    for layers in range(3):
        judge.hold(OWN, layers)
        assert [(judge.loss(c), judge.blind_loss(c)) for c in networks] == alone
    with torch.no_grad():
        trainer.supernet.stem.conv.weight.mul_(-1)
    assert [(judge.loss(c), judge.blind_loss(c)) for c in networks] == alone
    judge.hold(OWN, 0)
    assert [judge.loss(c) for c in networks] != [loss for loss, _ in alone]


def test_a_loss_is_that_of_the_fitted_network_that_is_exported(
    config: Callable[..., CfgNode],
) -> None:
    """Judged on the batches of the statistics, layer by layer; exported, as a whole."""
    trainer = SearchTrainer(config("SEARCH.REFIT_BATCHES", "2", "SEARCH.CALIBRATION_BATCHES", "2"))
    trainer.resume_or_load(resume=False)
    judge = trainer.judge
    dropped: list[Choice] = [*OWN[:2], None]
    for choices in ([Candidate(0, 0, 0), Candidate(1, 0, 0), OWN[2]], dropped, OWN):
        network = trainer.networks.calibrated(choices, 2)
        with torch.no_grad():
            batches = [(network(as_expected(x)), y) for x, y in judge._held_out]
            losses = [F.cross_entropy(*batch, reduction="none") for batch in batches]
        found = judge.exported_loss(choices)
        assert found == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
        plain = trainer.networks.cut(choices).layers
        fitted = [
            not torch.equal(a.project.conv.weight, b.project.conv.weight)  # type: ignore[union-attr]
            for a, b in zip(network.layers, plain, strict=True)
            if hasattr(a, "project")
        ]
        assert any(fitted) == (choices != OWN)


def test_fitted_layers_that_networks_share_are_computed_once(
    config: Callable[..., CfgNode],
) -> None:
    trainer = SearchTrainer(config("SEARCH.REFIT_BATCHES", "2"))
    trainer.resume_or_load(resume=False)
    judge, space = trainer.judge, trainer.space
    around: list[Choice] = [Candidate(0, 0, 0), Candidate(1, 0, 0), OWN[2]]
    networks = [[*around[:2], choice] for choice in space.choices(space.layers[2])]
    alone = [judge.loss(choices) for choices in networks]
    for layers in range(3):
        judge.hold(around, layers)
        assert [judge.loss(choices) for choices in networks] == alone
    with torch.no_grad():
        trainer.supernet.layers[1].project.conv.weight.mul_(-1)  # type: ignore[union-attr]
    judge.hold(around, 0)
    assert [judge.loss(choices) for choices in networks] != alone


def test_layers_stay_as_they_were_fitted_in_the_network_held(
    config: Callable[..., CfgNode],
) -> None:
    """Independent: the layer fitted behind the other change, moved, and its loss by hand."""
    trainer = SearchTrainer(config("SEARCH.REFIT_BATCHES", "2"))
    trainer.resume_or_load(resume=False)
    judge = trainer.judge
    around: list[Choice] = [Candidate(0, 0, 0), Candidate(1, 0, 0), OWN[2]]
    other: list[Choice] = [OWN[0], *around[1:]]
    images = [as_expected(batch) for batch in judge._statistics]
    held, start, network = (trainer.networks.cut(c) for c in (around, trainer.reference, other))
    changed = changed_layers(held.architecture, start.architecture)
    fit_layers(held, images, layer_rows(start, images), changed)
    network.layers[changed[1]] = held.layers[changed[1]]
    update_bn_stats(network.train(), images, 2)
    network.eval()
    with torch.no_grad():
        batches = [(network(as_expected(x)), y) for x, y in judge._held_out]
        losses = torch.cat([F.cross_entropy(*batch, reduction="none") for batch in batches])
    alone = judge.loss(other)
    for layers in (0, 1):  # the second time as a search that goes on
        fresh = ClassifierJudge(trainer.networks)
        fresh.hold(around, layers)
        assert fresh.loss(other) == pytest.approx(float(losses.mean()), rel=1e-4)
        assert fresh.loss(other) != pytest.approx(alone, rel=1e-4)


def test_the_blind_loss_has_the_labels_of_others(trainer: SearchTrainer) -> None:
    judge = trainer.judge
    images = torch.cat([x for x, _ in judge._held_out])[:4]
    judge.__dict__["_held_out"] = [(images, torch.tensor([0, 0, 0, 1]))]
    blind = judge.blind_loss(OWN)
    judge.__dict__["_held_out"] = [(images, torch.tensor([1, 0, 0, 0]))]
    assert blind == judge.loss(OWN) != judge.blind_loss(OWN)


def test_judging_leaves_the_supernet_as_it_was(trainer: SearchTrainer) -> None:
    supernet = trainer.supernet
    supernet.train()
    supernet.layers[1].eval()
    state = {k: v.clone() for k, v in supernet.state_dict().items()}
    modes = [m.training for m in supernet.modules()]
    trainer.judge.loss(OWN)
    trainer.judge.blind_loss(OWN)
    trainer.judge.gate_gradients(OWN)
    assert [m.training for m in supernet.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in supernet.state_dict().items())
    assert supernet.forced is None
    assert all(p.grad is None for p in supernet.parameters())
    with statistics_kept(supernet):
        supernet.eval()
        supernet.stem.norm.get_buffer("running_mean").add_(1)
    assert [m.training for m in supernet.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in supernet.state_dict().items())


def test_gradients_by_indicators(trainer: SearchTrainer) -> None:
    """Against differences of the loss of one image, which are in double precision."""
    supernet = trainer.supernet
    assert isinstance(supernet, Supernet)
    supernet.eval()
    image, label = torch.randn(1, 3, 32, 32), torch.tensor([1])
    with supernet.gated(OWN) as gates:
        assert gates.is_leaf and gates.requires_grad
        (found,) = torch.autograd.grad(F.cross_entropy(supernet(image), label), gates)
    assert supernet.forced is None
    supernet.double()

    def loss(gates: Tensor) -> Tensor:
        (supernet.forced,) = supernet.thresholds.decisions(gates)
        return F.cross_entropy(supernet(image.double()), label)

    step = 1e-5
    fixed = supernet.thresholds.gates_of(OWN)
    for layer, gradient in enumerate(found):
        for index in range(len(gradient)):
            sides = []
            for sign in (1, -1):
                moved = fixed.clone()
                moved[layer, index] += sign * step
                with torch.no_grad():
                    sides.append(float(loss(moved)))
            slope = (sides[0] - sides[1]) / (2 * step)
            assert float(gradient[index]) == pytest.approx(slope, rel=1e-2, abs=1e-5)
    assert any(float(g.abs().max()) > 1e-4 for g in found)


def test_mean_magnitudes_over_images(trainer: SearchTrainer) -> None:
    """Independent: one image after the other through the supernet with its statistics."""
    supernet, judge = trainer.supernet, trainer.judge
    assert isinstance(supernet, Supernet)
    found = judge.gate_gradients(OWN)
    with statistics_kept(supernet), supernet.using(OWN):
        judge.estimate()
        state = {k: v.clone() for k, v in supernet.state_dict().items()}
    with statistics_kept(supernet):
        supernet.load_state_dict(state)
        supernet.eval()
        magnitudes = []
        for batch, targets in judge._held_out:
            for image, target in zip(as_expected(batch), targets, strict=True):
                with supernet.gated(OWN) as gates:
                    F.cross_entropy(supernet(image[None]), target[None]).backward()
                assert gates.grad is not None
                magnitudes.append(gates.grad.abs())
    torch.testing.assert_close(found, torch.stack(magnitudes).mean(0))


def test_a_layer_with_a_single_choice_has_no_gradient(
    config: Callable[..., CfgNode], start: Path, tmp_path: Path
) -> None:
    """Where kernel, expansion and SE have one option each and the layer cannot be skipped."""
    space = SearchSpace.load("digits_small")
    own = dataclasses.replace(space, name="own", kernel_sizes=(5,), expansions=(6,))
    only: list[Choice] = [Candidate(0, 0, 0)] * 3
    (tmp_path / "own.json").write_text(json.dumps(own.to_dict()))
    architecture = own.architecture(only, "only")
    folder = tmp_path / "only"
    folder.mkdir()
    save_backbone(folder, architecture, random_network(architecture, 2).state_dict())
    cfg = config(
        *("SEARCH.SPACE", str(tmp_path / "own.json"), "SEARCH.START", str(folder)),
        *("SEARCH.FORMULATION", "taylor", "SEARCH.TARGET", "0.8", "SEARCH.TOLERANCE", "0.9"),
    )
    trainer = SearchTrainer(cfg)
    trainer.resume_or_load(resume=False)
    gradients = trainer.judge.gate_gradients(only)
    assert gradients.shape == (3, 1)
    assert gradients[:2].tolist() == [[0.0], [0.0]] and gradients[2] > 0
