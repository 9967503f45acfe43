"""How many steps each stage makes in the time that there is, and what that takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backbones.errors import UserError
from detection.deployment import Deployment
from search.auto.probe import Costs
from search.auto.quantities import spoken
from search.profiling.announcement import workers_for
from search.profiling.pace import EVERY
from search.profiling.workload import layer_items
from search.space import SearchSpace

RECIPE = {"start": 12.0, "adapt": 2.0, "tune": 12.0}
"""Passes over the training images: the start on its published weights, the supernet, and every
network found; ``docs/auto.md`` has what other shares gave."""

FEWEST = {"start": 200, "adapt": 50, "tune": 200}
"""Steps below which a stage is not worth its time, where its recipe has as many."""

MOST = 2.5
"""Times the recipe's epochs; what a longer budget has beyond is not used up."""

_PROFILED = 0.35
"""Part of a budget that the profile, the search's measuring and the evaluations may take."""

_REPORTED = 10.0
_COUNTED = 15.0
"""Seconds at the end of a training for what the detector costs, and its samples."""

_MARGIN = 1.05


@dataclass(frozen=True)
class Effort:
    """How thoroughly is measured, beside the training.

    Attributes:
        rounds: visits of the profile to everything.
        networks: that its correction is fitted on.
        images: that a choice of the search is measured on.
        batches: for the statistics of every network that is measured.
    """

    rounds: int = 16
    networks: int = 32
    images: int = 100
    batches: int = 8

    def with_keys(self, pairs: Mapping[str, str]) -> Effort:
        """With what the keys of the command line say of it."""
        names = {"images": "IMAGES", "batches": "CALIBRATION_BATCHES"}
        keys = {name: f"SEARCH.SENSITIVITY.{key}" for name, key in names.items()}
        own = {name: int(pairs[key]) for name, key in keys.items() if key in pairs}
        return replace(self, **own)


EFFORTS = (Effort(), Effort(10, 32, 60), Effort(6, 16, 40, 4))
"""From the configurations' own down to the least; a small budget takes a smaller one."""


@dataclass(frozen=True)
class Work:
    """What is to be done, in numbers.

    Attributes:
        train_images, test_images: of the data.
        batch: images of a step.
        evaluated: test images that an exported file is judged on.
        layer_items: layers that a profile measures.
        measured: networks that a search measures.
        targets: networks that are found.
        exports: files of each.
        profiles: whether the device is profiled.
        measures: whether the trained networks are measured on the device.
    """

    train_images: int
    test_images: int
    batch: int
    evaluated: int
    layer_items: int
    measured: int
    targets: int
    exports: int
    profiles: bool
    measures: bool

    @classmethod
    def of_space(cls, space: SearchSpace, deployment: Deployment, **others: Any) -> Work:
        """With the counts that follow from the search space."""
        choices = [len(space.choices(layer)) for layer in space.layers]
        return cls(
            layer_items=len(layer_items(space, deployment)),
            measured=1 + sum(choices) - len(choices),
            **others,
        )


@dataclass(frozen=True)
class Schedule:
    """The epochs of every training, and the seconds of every stage.

    Attributes:
        epochs: of ``start``, ``adapt``, ``tune`` and ``baseline``.
        effort: of what is measured.
        seconds: by the kind of a stage; of each network's own for ``tune`` and ``export``.
        total: of all stages.
    """

    epochs: Mapping[str, float]
    effort: Effort
    seconds: Mapping[str, float]
    total: float


def schedule(
    work: Work,
    costs: Costs,
    recipe: float,
    budget: float | None,
    efforts: Sequence[Effort] = EFFORTS,
) -> Schedule:
    """Divides what a budget leaves after all that has to be done in any case.

    Args:
        work: to do.
        costs: of this machine, at the size of the images.
        recipe: epochs of the start; the others are in proportion.
        budget: in seconds; None takes the recipe as it is.
        efforts: of what is measured, the largest first.

    Raises:
        UserError: if the least that is worth its time is longer than the budget.
    """
    full = {name: epochs * recipe / RECIPE["start"] for name, epochs in RECIPE.items()}
    if budget is None:
        return _scheduled(work, costs, full, efforts[0])
    each = work.batch / max(work.train_images, 1)
    floor = {name: min(epochs, FEWEST[name] * each) for name, epochs in full.items()}
    for effort in efforts:
        least = _scheduled(work, costs, floor, effort)
        if least.total * _MARGIN <= budget and _fixed(work, costs, effort) <= _PROFILED * budget:
            break
    if least.total * _MARGIN > budget:
        raise too_small(budget, least)
    low, high = 0.0, MOST
    for _ in range(40):
        middle = (low + high) / 2
        found = _scheduled(work, costs, _grown(full, floor, middle), effort)
        low, high = (middle, high) if found.total * _MARGIN <= budget else (low, middle)
    return _scheduled(work, costs, _grown(full, floor, low), effort)


def too_small(budget: float, least: Schedule) -> UserError:
    """What is said of a budget that cannot hold the plan."""
    needed = spoken(60 * -(-least.total * _MARGIN // 60))
    largest = sorted(least.seconds.items(), key=lambda item: -item[1])[:3]
    parts = ", ".join(f"{name} {spoken(seconds)}" for name, seconds in largest)
    return UserError(
        f"a budget of {spoken(budget)} does not hold this plan: it needs at least {needed} "
        f"({parts}, …); give --budget {needed}, fewer --targets, a smaller --size or a --table"
    )


def _grown(
    full: Mapping[str, float], floor: Mapping[str, float], factor: float
) -> dict[str, float]:
    return {name: max(floor[name], factor * epochs) for name, epochs in full.items()}


def _scheduled(work: Work, costs: Costs, epochs: Mapping[str, float], effort: Effort) -> Schedule:
    rounded = {name: _rounded(value) for name, value in epochs.items()}
    rounded["baseline"] = _rounded(sum(rounded.values()))
    a_pass = work.train_images / work.batch
    overhead = _training_overhead(work, costs)
    seconds = {
        "profile": _profiling(work, costs, effort),
        "start": overhead + rounded["start"] * a_pass * costs.step,
        "search": overhead
        + rounded["adapt"] * a_pass * costs.adapting
        + _measuring(work, costs, effort),
        "tune": overhead + rounded["tune"] * a_pass * costs.step,
        "baseline": overhead + rounded["baseline"] * a_pass * costs.step,
        "export": _exporting(work, costs),
        "measure": _timing(work, costs),
        "report": _REPORTED,
    }
    times = {"tune": work.targets, "export": work.targets * work.exports}
    total = sum(value * times.get(name, 1) for name, value in seconds.items())
    return Schedule(rounded, effort, seconds, total)


def _rounded(epochs: float) -> float:
    return float(f"{epochs:.3g}")


def _fixed(work: Work, costs: Costs, effort: Effort) -> float:
    """Of what is not training, in seconds."""
    trainings = 3 + work.targets
    return (
        _profiling(work, costs, effort)
        + trainings * _training_overhead(work, costs)
        + _measuring(work, costs, effort)
        + work.targets * work.exports * _exporting(work, costs)
        + _timing(work, costs)
        + _REPORTED
    )


def _training_overhead(work: Work, costs: Costs) -> float:
    return costs.startup + _COUNTED + work.test_images * costs.evaluation


def _profiling(work: Work, costs: Costs, effort: Effort) -> float:
    if not work.profiles:
        return 0.0
    converted = work.layer_items * costs.convert_layer + effort.networks * costs.convert_network
    visits = work.layer_items * costs.visit_layer + effort.networks * costs.visit_network
    visits += (work.layer_items + effort.networks) / EVERY * costs.visit_network  # the pace
    workers = min(workers_for(work.layer_items + effort.networks), os.cpu_count() or 1)
    return costs.startup + converted / workers + effort.rounds * visits


def _measuring(work: Work, costs: Costs, effort: Effort) -> float:
    """The choices of a search, and the statistics of the networks found and of the start."""
    each = effort.images * costs.loss + effort.batches * work.batch * costs.statistics
    return work.measured * each + (work.targets + 1) * 20 * work.batch * costs.loss


def _exporting(work: Work, costs: Costs) -> float:
    """A detector of three networks, compared and judged as PyTorch and as files."""
    judged = 2 * 10 + 3 * work.evaluated
    return costs.startup + 3 * costs.convert_network + judged * costs.evaluation


def _timing(work: Work, costs: Costs) -> float:
    networks = work.targets + 2
    if not work.measures:
        return 0.0
    each = costs.convert_network + EFFORTS[0].rounds * 2 * costs.visit_network
    return costs.startup + networks * each
