"""A benchmark with a known answer: every network of a small space trained, searches judged by it.

A study of searches trains what they found and compares it with a few random networks. Here the
whole space is trained first, several times by one recipe, so that every search has a *regret*: how
much better the best network at its runtime truly is than the one that it found.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.latency import LatencyTable, predict_runtime
from backbones.scratch import scratch_folder
from search.profiling.workload import type_names
from search.runs.build import build_latency_table
from search.space import SearchSpace
from search.start.seed import search_space
from search.studies.known_answer.truth import MEASURES, Truth
from search.studies.methods.study import (
    METHODS,
    check_methods,
    find_architecture,
    train_architecture,
)
from search.studies.trials import PendingTrial, recipe, run_trials
from search.studies.workers import Workers

CHANCE = "chance"
MAX_NETWORKS = 1024
Trial = tuple[str, float, int]
"""Method, target and seed of one search."""


def all_networks(space: SearchSpace) -> dict[str, Architecture]:
    """Every network of a space by the types of its searchable layers.

    Raises:
        UserError: if there are too many to train them all.
    """
    choices = [space.choices(layer) for layer in space.layers]
    networks: dict[str, Architecture] = {}
    for taken in itertools.islice(itertools.product(*choices), MAX_NETWORKS + 1):
        types = type_names(space, taken)
        networks[types] = space.architecture(taken, f"{space.name}_{len(networks)}")
    if len(networks) > MAX_NETWORKS:
        raise UserError(
            f"search space '{space.name}' has more than {MAX_NETWORKS} networks; an answer is "
            "known where all are trained: choose a smaller one, such as 'digits_small'"
        )
    return networks


def train_truth(
    search_cfg: CfgNode,
    classifier_cfg: CfgNode,
    seeds: int,
    workers: Workers,
    output: Path,
    facts: Mapping[str, Any],
) -> Truth:
    """Trains every network of ``SEARCH.SPACE``; what ``output`` holds already is kept.

    Args:
        search_cfg: names the space and the latency table.
        classifier_cfg: the one recipe.
        seeds: trainings of every network.
        workers: as for :func:`search.studies.trials.run_trials`.
        output: JSON file, written after every training.
        facts: command, hardware and versions, written beside the trainings.

    Raises:
        UserError: if the file has another space or recipe.
    """
    space = search_space(search_cfg)
    table = build_latency_table(search_cfg, space)
    networks = all_networks(space)
    pending: list[PendingTrial] = [
        (
            {"layers": types, "seed": seed},
            partial(train_network, classifier_cfg, network, table, seed),
        )
        for seed in range(seeds)
        for types, network in networks.items()
    ]
    settings = {
        "space": space.to_dict(),
        "latency_table": [table.name, *table.input_size],
        **recipe(classifier_cfg),
    }
    facts = {**facts, "unit": table.unit, "size": len(networks), "recipe": settings}
    run_trials(pending, output, facts, lambda _: [], workers)
    return Truth.load(output)


def train_network(
    cfg: CfgNode, network: Architecture, table: LatencyTable, seed: int
) -> dict[str, float]:
    """One training of one network: its runtime and its scores."""
    with scratch_folder("truth") as folder:
        scores = train_architecture(cfg, network, seed, folder)
    return {
        "runtime": round(predict_runtime(network, table), 4),
        **{measure: round(scores[measure], 4) for measure in MEASURES},
    }


def run_searches(
    search_cfg: CfgNode,
    truth: Truth,
    trials: Sequence[Trial],
    workers: Workers,
    output: Path,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Runs the searches that ``output`` does not hold yet and looks up what they found.

    Args:
        search_cfg: of every search.
        truth: of the space searched.
        trials: method (a key of ``METHODS``), target and seed of each.
        workers: as for :func:`search.studies.trials.run_trials`.
        output: JSON file of the study, written after every search.
        facts: command, hardware and versions, written beside the searches.

    Returns:
        What the file then holds.

    Raises:
        UserError: if a method is unknown, if the truth has other runtimes than the search's
            table, if the file has searches of other settings, or if a network found is not one of
            the truth's.
    """
    check_methods(name for name, _, _ in trials)
    _check_runtimes(search_cfg, truth)
    pending: list[PendingTrial] = [
        (
            {"method": method, "target": target, "seed": seed},
            partial(search_network, search_cfg, method, target, seed),
        )
        for method, target, seed in trials
    ]
    facts = {
        **facts,
        "unit": truth.unit,
        "truth": truth_facts(truth),
        "recipe": recipe(search_cfg, "SEARCH"),
    }
    tolerance = search_cfg.SEARCH.TOLERANCE

    def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        judged_rows = [judged(truth, row) for row in rows]
        return [*regret_rows(judged_rows), chance_row(truth, rows, tolerance)]

    return run_trials(pending, output, facts, summary, workers)


def _check_runtimes(cfg: CfgNode, truth: Truth) -> None:
    """Insists that the truth and the search speak of the same runtimes."""
    space = search_space(cfg)
    table = build_latency_table(cfg, space)
    for types, network in all_networks(space).items():
        known, runtime = truth.networks.get(types), predict_runtime(network, table)
        if known and abs(known.runtime - runtime) > 1e-4 + 1e-4 * runtime:
            raise UserError(
                f"'{types}' takes {known.runtime:.4g} {truth.unit} in the truth '{truth.name}', "
                f"and {runtime:.4g} {table.unit} by SEARCH.LATENCY_TABLE '{table.name}': search by "
                "the table that the truth was trained for, or train one anew with "
                "spnas known-answer train"
            )


def judged(truth: Truth, trial: Mapping[str, Any]) -> dict[str, Any]:
    """A search with its regrets: they are of the truth as it is known now."""
    regrets = {
        f"regret_{measure}": truth.regret(trial["layers"], trial["target"], measure)
        for measure in MEASURES
    }
    return {**trial, **regrets}


def search_network(cfg: CfgNode, method: str, target: float, seed: int) -> dict[str, Any]:
    """One search: the layers of the network found, and what it cost.

    ``cpu_seconds`` is the time of the processor, over all threads of this process.
    """
    start = time.process_time()
    with scratch_folder("search") as folder:
        found = find_architecture(cfg, METHODS[method], target, seed, folder)
    space = search_space(cfg)
    return {
        "layers": type_names(space, space.choices_of(found)),
        "cpu_seconds": time.process_time() - start,
    }


def truth_facts(truth: Truth) -> dict[str, Any]:
    """What a study says of the truth that it is judged by."""
    networks = truth.networks.values()
    runtimes = [network.runtime for network in networks]
    return {
        "command": truth.command,
        "networks": len(truth.networks),
        "seeds": len(next(iter(networks)).scores["top1"]),
        "runtimes": [min(runtimes), max(runtimes)],
        "reliability": {
            measure: {key: round(value, 4) for key, value in truth.reliability(measure).items()}
            for measure in MEASURES
        },
    }


def regret_rows(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per method: mean regret by target and over all, and its spread over seeds.

    ``std`` is the sample standard deviation, over the seeds, of the mean over the targets.
    """
    rows = []
    for method in dict.fromkeys(trial["method"] for trial in trials):
        group = [trial for trial in trials if trial["method"] == method]
        row: dict[str, Any] = {"method": method}
        row["seeds"] = len({trial["seed"] for trial in group})
        row["cpu_seconds"] = statistics.fmean(trial["cpu_seconds"] for trial in group)
        row["best_found"] = statistics.fmean(trial["regret_top1"] == 0 for trial in group)
        for measure in MEASURES:
            key = f"regret_{measure}"
            row[key] = _means(group, key, "target")
            by_seed = list(_means(group, key, "seed").values())
            row[f"{key}_mean"] = statistics.fmean(trial[key] for trial in group)
            row[f"{key}_std"] = statistics.stdev(by_seed) if len(by_seed) > 1 else 0.0
        rows.append(row)
    return rows


def chance_row(
    truth: Truth, trials: Sequence[Mapping[str, Any]], tolerance: float
) -> dict[str, Any]:
    """The row of a network drawn at random, computed from the truth without drawing any."""
    targets = sorted({trial["target"] for trial in trials})
    row: dict[str, Any] = {"method": CHANCE}
    row["networks"] = {f"{target:g}": len(truth.band(target, tolerance)) for target in targets}
    for measure in MEASURES:
        values = {f"{t:g}": truth.chance(t, tolerance, measure) for t in targets}
        row[f"regret_{measure}"] = values
        row[f"regret_{measure}_mean"] = statistics.fmean(values.values())
    return row


def _means(trials: Sequence[Mapping[str, Any]], key: str, by: str) -> dict[str, float]:
    groups: dict[Any, list[float]] = {}
    for trial in sorted(trials, key=lambda trial: float(trial[by])):
        groups.setdefault(trial[by], []).append(trial[key])
    return {f"{value:g}": statistics.fmean(values) for value, values in groups.items()}
