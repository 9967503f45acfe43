"""Searches that measure their choices: from a network of the small space to a target."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from torch import Tensor

from backbones import Architecture, UserError
from backbones.latency import predict_runtime
from search.runs.build import build_latency_table
from search.runs.classification import SearchTrainer
from search.runs.formulations.measured import Measured, neighbour, rivals
from search.runs.formulations.registry import FORMULATIONS
from search.runs.formulations.values import gradient_values, measured_losses
from search.runs.sensitivities import Sensitivities, digest_of
from search.selection.target import select_by_value
from search.space import Candidate, Choice, SearchSpace
from tests.search.runs.sensitivity.conftest import OWN, TARGET


def all_networks(space: SearchSpace) -> list[list[Choice]]:
    return [list(c) for c in itertools.product(*map(space.choices, space.layers))]


class CountingJudge:
    """Losses that functions make up, and how often they were asked.

    Args:
        loss: of a network.
        exported: of a network as it is exported; by default the same.
    """

    def __init__(
        self,
        loss: Callable[[Sequence[Choice]], float],
        exported: Callable[[Sequence[Choice]], float] | None = None,
    ) -> None:
        self._loss = loss
        self._exported = exported or loss
        self.asked: list[tuple[Choice, ...]] = []

    def loss(self, choices: Sequence[Choice]) -> float:
        self.asked.append(tuple(choices))
        return self._loss(choices)

    blind_loss = fitness = loss

    def exported_loss(self, choices: Sequence[Choice]) -> float:
        self.asked.append(tuple(choices))
        return self._exported(choices)

    def hold(self, choices: Sequence[Choice], layers: int) -> None:
        """Nothing to gain."""

    def gate_gradients(self, choices: Sequence[Choice]) -> Tensor:
        raise AssertionError("not asked for")


def additive(space: SearchSpace, seed: int) -> Callable[[Sequence[Choice]], float]:
    """A loss that is a sum over layers of numbers drawn for every choice."""
    rng = random.Random(seed)
    parts = [{c: rng.random() for c in space.choices(layer)} for layer in space.layers]
    return lambda choices: sum(part[c] for part, c in zip(parts, choices, strict=True))


@pytest.mark.parametrize("formulation", ["sensitivity", "taylor"])
def test_a_search_ends_at_its_target(
    formulation: str, config: Callable[..., CfgNode], tmp_path: Path
) -> None:
    cfg = config("SEARCH.FORMULATION", formulation, "SEARCH.FAMILY", "[0.5]")
    trainer = SearchTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    table = build_latency_table(cfg, trainer.space)
    for folder, target in (("", TARGET), ("family/0.5", 0.5)):
        found = Architecture.load(tmp_path / "run" / folder / "architecture.json")
        assert 0.9 * target <= predict_runtime(found, table) <= target
        assert found.provenance["method"] == formulation
    assert (tmp_path / "run" / "sensitivity.json").exists() == (formulation == "sensitivity")
    results = json.loads((tmp_path / "run" / "results.json").read_text())["search"]
    assert results["target_runtime"] == TARGET
    started = [str(trainer.space.choice_type(choice)) for choice in OWN]
    assert results["start"][0]["layers"] == started


@pytest.mark.parametrize("seed", range(5))
def test_an_additive_loss_is_searched_exactly(trainer: SearchTrainer, seed: int) -> None:
    """The network chosen is the best of all networks in the band below the target."""
    loss = additive(trainer.space, seed)
    judge = CountingJudge(loss)
    formulation = trainer.formulation
    assert isinstance(formulation, Measured)
    tolerance = trainer.cfg.SEARCH.TOLERANCE
    runtime = trainer.runtime_model.runtime_of
    within = [
        choices
        for choices in all_networks(trainer.space)
        if TARGET * (1 - tolerance) <= runtime(choices) <= TARGET
    ]
    assert len(within) > 2
    assert formulation.choose(trainer, TARGET, judge) == min(within, key=loss)
    assert trainer.reference == tuple(OWN)


def test_values_are_differences_to_the_network(trainer: SearchTrainer) -> None:
    loss = additive(trainer.space, 0)
    values = measured_losses(trainer, CountingJudge(loss), OWN)
    for index, layer in enumerate(trainer.space.layers):
        expected = [
            loss(OWN) - loss([*OWN[:index], choice, *OWN[index + 1 :]])
            for choice in trainer.space.choices(layer)
        ]
        torch.testing.assert_close(values[index], torch.tensor(expected, dtype=torch.float64))


def test_rounds_measure_around_what_they_came_to(config: Callable[..., CfgNode]) -> None:
    """Around the start first, then around networks nearer to the target; the best is taken."""
    trainer = SearchTrainer(config("SEARCH.SENSITIVITY.ROUNDS", "3"))
    space, model = trainer.space, trainer.runtime_model
    judge = CountingJudge(additive(space, 3))
    choices = trainer.formulation.choose(trainer, TARGET, judge)
    file = json.loads(Path(trainer.cfg.OUTPUT_DIR, "sensitivity.json").read_text())
    around = [entry["around"].split() for entry in file["networks"]]
    runtimes = []
    for names in around:
        network = [
            {str(space.choice_type(c)): c for c in space.choices(layer)}[name]
            for layer, name in zip(space.layers, names, strict=True)
        ]
        runtimes.append(model.runtime_of(network))
    full = model.runtime_of(OWN)
    assert runtimes[0] == full
    assert 1 < len(around) <= 3
    for index, runtime in enumerate(runtimes[1:], start=1):
        level = full * (TARGET / full) ** (index / 3)
        assert runtime <= level * (1 + 1e-9)
    assert TARGET * 0.9 <= model.runtime_of(choices) <= TARGET
    single = SearchTrainer(config("SEARCH.SENSITIVITY.ROUNDS", "1"))
    Path(trainer.cfg.OUTPUT_DIR, "sensitivity.json").unlink()
    once = CountingJudge(additive(space, 3))
    single.formulation.choose(single, TARGET, once)
    assert len(once.asked) < len(judge.asked)


def test_the_best_of_the_rounds_is_taken(config: Callable[..., CfgNode]) -> None:
    """Where choices depend on each other, rounds differ, and their networks are measured."""
    trainer = SearchTrainer(config("SEARCH.SENSITIVITY.ROUNDS", "3"))
    rng = random.Random(4)
    losses = {tuple(network): rng.random() for network in all_networks(trainer.space)}
    judge = CountingJudge(lambda choices: losses[tuple(choices)])
    chosen = trainer.formulation.choose(trainer, TARGET, judge)
    path = Path(trainer.cfg.OUTPUT_DIR, "sensitivity.json")
    file = Sensitivities(path, trainer.space, json.loads(path.read_text())["measured"], OWN)
    values = [torch.tensor([file.loss - x for x in row]) for row in file.layers if file.loss]
    node = trainer.cfg.SEARCH
    first = select_by_value(trainer.space, trainer.runtime_model, values, TARGET, node.TOLERANCE)
    assert losses[tuple(chosen)] <= losses[tuple(first)]


@pytest.mark.parametrize("seed", range(5))
def test_rivals_are_the_best_without_a_choice(trainer: SearchTrainer, seed: int) -> None:
    """Against every network of the space at the target."""
    space, tolerance = trainer.space, trainer.cfg.SEARCH.TOLERANCE
    loss = additive(space, seed)
    values = measured_losses(trainer, CountingJudge(loss), OWN)
    runtime = trainer.runtime_model.runtime_of
    within = [n for n in all_networks(space) if TARGET * (1 - tolerance) <= runtime(n) <= TARGET]
    best = min(within, key=loss)
    others = [[n for n in within if n[index] != best[index]] for index in range(len(best))]
    expected = {tuple(min(networks, key=loss)) for networks in others if networks}
    assert expected
    found = rivals(trainer, values, TARGET, best)
    assert found == sorted(map(list, expected), key=loss)


def test_rivals_are_measured_whole(config: Callable[..., CfgNode]) -> None:
    """Where choices depend on each other, one of them can be better than what adds up best."""
    trainer = SearchTrainer(
        config("SEARCH.SENSITIVITY.RIVALS", "2", "SEARCH.SENSITIVITY.ROUNDS", "1")
    )
    space, tolerance = trainer.space, trainer.cfg.SEARCH.TOLERANCE
    parts = additive(space, 1)
    values = measured_losses(trainer, CountingJudge(parts), OWN)  # kept in the run's folder
    best = select_by_value(space, trainer.runtime_model, values, TARGET, tolerance)
    rival, other, *_ = rivals(trainer, values, TARGET, best)
    for lowest in (best, rival, other):
        judge = CountingJudge(parts, lambda c, n=lowest: float(list(c) != n))  # type: ignore[misc]
        assert trainer.formulation.choose(trainer, TARGET, judge) == lowest
        assert judge.asked == [tuple(best), tuple(rival), tuple(other)]


def test_rivals_of_a_better_network_are_measured_too(config: Callable[..., CfgNode]) -> None:
    """Until none of those of the best network has a lower loss."""
    trainer = SearchTrainer(
        config("SEARCH.SENSITIVITY.RIVALS", "2", "SEARCH.SENSITIVITY.ROUNDS", "1")
    )
    space, tolerance = trainer.space, trainer.cfg.SEARCH.TOLERANCE
    parts = additive(space, 8)
    values = measured_losses(trainer, CountingJudge(parts), OWN)
    best = select_by_value(space, trainer.runtime_model, values, TARGET, tolerance)
    path, seen = [best], [best]
    while further := [n for n in rivals(trainer, values, TARGET, path[-1]) if n not in seen][:2]:
        seen += further
        path.append(further[-1])
    assert len(path) > 2
    falling = CountingJudge(parts, lambda c: -float(path.index(list(c)) if list(c) in path else 0))
    assert trainer.formulation.choose(trainer, TARGET, falling) == path[-1]
    assert falling.asked == list(map(tuple, seen))


def test_what_was_measured_is_not_measured_again(trainer: SearchTrainer) -> None:
    space = trainer.space
    loss = additive(space, 0)
    whole = CountingJudge(loss)
    expected = measured_losses(trainer, whole, OWN)
    count = 1 + sum(len(space.choices(layer)) - 1 for layer in space.layers)
    assert len(whole.asked) == count

    path = Path(trainer.cfg.OUTPUT_DIR, "sensitivity.json")
    content = json.loads(path.read_text())
    names = [list(row) for row in content["networks"][0]["layers"]]
    assert names == [
        [str(space.choice_type(choice)) for choice in space.choices(layer)]
        for layer in space.layers
    ]
    del content["networks"][0]["layers"][1:]  # interrupted in the second layer
    path.write_text(json.dumps(content))
    rest = CountingJudge(loss)
    again = measured_losses(trainer, rest, OWN)
    assert len(rest.asked) == sum(len(space.choices(layer)) - 1 for layer in space.layers[1:])
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    nothing = CountingJudge(loss)
    measured_losses(trainer, nothing, OWN)
    assert nothing.asked == []

    smaller = list(OWN)
    smaller[1] = Candidate(0, 0, 0)
    measured_losses(trainer, CountingJudge(loss), smaller)
    kept = json.loads(path.read_text())["networks"]
    assert len(kept) == 2
    with torch.no_grad():
        trainer.supernet.stem.conv.weight[0, 0, 0, 0] += 1  # trained further
    other = CountingJudge(loss)
    measured_losses(trainer, other, OWN)
    assert len(other.asked) == count
    assert len(json.loads(path.read_text())["networks"]) == 1


def test_losses_that_were_measured_otherwise_are_dropped(
    trainer: SearchTrainer, tmp_path: Path
) -> None:
    file, space = tmp_path / "sensitivity.json", trainer.space

    def digest(space: SearchSpace, images: int) -> str:
        return digest_of(space, {"images": images}, trainer.supernet)

    known = Sensitivities(file, space, digest(space, 4), OWN)
    known.loss = 1.0
    known.layers = [[1.0] * len(space.choices(layer)) for layer in space.layers]
    known.save()
    more = dataclasses.replace(space, kernel_sizes=(3, 5, 7))
    assert Sensitivities(file, more, digest(more, 4), OWN).layers == []
    assert Sensitivities(file, space, digest(space, 5), OWN).loss is None
    assert Sensitivities(file, space, digest(space, 4), OWN).layers == known.layers


def test_gradients_value_what_is_given_up(trainer: SearchTrainer) -> None:
    """Of the start's own choice nothing, and of growth nothing either."""
    made = torch.tensor([[1.0, 10.0, 0.0], [2.0, 20.0, 0.0], [3.0, 30.0, 300.0]])

    class Gradients(CountingJudge):
        def gate_gradients(self, choices: Sequence[Choice]) -> Tensor:
            return made

    values = gradient_values(trainer, Gradients(lambda _: 0.0), OWN)
    # candidates in order: 3x3-1, 3x3-6, 5x5-1, 5x5-6, and the skip-op
    assert values[0].tolist() == [-11, -1, -10, 0]
    assert values[2].tolist() == [-30, 0, -30, 0, -300]
    skipping: list[Choice] = [*OWN[:2], None]
    assert gradient_values(trainer, Gradients(lambda _: 0.0), skipping)[2].tolist() == [0] * 5


def test_steps_take_turns(config: Callable[..., CfgNode]) -> None:
    trainer = SearchTrainer(config())
    formulation, supernet = trainer.formulation, trainer.supernet
    seen = []
    for iteration in range(40):
        trainer.iter = iteration
        with formulation.step(trainer):
            supernet.prepare()
            seen.append([d.choice() for d in supernet.decisions])  # type: ignore[union-attr]
    assert all(choices == OWN for choices in seen[::2])
    assert len({tuple(choices) for choices in seen[1::2]}) > 5
    rng = random.Random(0)
    near = [neighbour(trainer.space, OWN, rng) for _ in range(400)]
    same = sum(a == b for network in near for a, b in zip(network, OWN, strict=True)) / 1200
    # half of the layers are drawn anew, and one in four or five of those is its own again
    assert 0.5 < same < 0.75


def test_without_a_start_the_largest_network_is_it(config: Callable[..., CfgNode]) -> None:
    trainer = SearchTrainer(config("SEARCH.START", ""))
    assert list(trainer.reference) == [trainer.space.candidates[-1]] * 3
    assert trainer.seed is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("SEARCH.TARGET", "0.0"), "'sensitivity' has no λ; set SEARCH.TARGET"),
        (("SEARCH.SENSITIVITY.ROUNDS", "0"), "ROUNDS is 0, IMAGES 6 and CALIBRATION_BATCHES 2"),
        (("SEARCH.SENSITIVITY.IMAGES", "0"), "IMAGES 0 and"),
        (("SEARCH.SENSITIVITY.RIVALS", "-1"), "RIVALS is -1; expected 0 or more"),
        (("SEARCH.HELD_OUT", "0.0"), "HELD_OUT"),
    ],
)
def test_mistakes(config: Callable[..., CfgNode], options: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        SearchTrainer(config(*options))
    assert "\n" not in str(error.value)


def test_both_are_offered_on_detectors() -> None:
    assert FORMULATIONS["sensitivity"].on_detectors and FORMULATIONS["taylor"].on_detectors
