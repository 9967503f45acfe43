"""A benchmark with a known answer: every network of a small space trained, searches judged by it.

A study of searches trains what they found and compares it with a few random networks. Here the
whole space is trained first, several times by one recipe, so that every search has a *regret*: how
much better the best network at its runtime truly is than the one that it found.
"""

from __future__ import annotations

import itertools
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import read_json, write_json
from backbones.latency import LatencyTable, predict_runtime
from search.profiling.workload import type_names
from search.space import SearchSpace
from search.study import METHODS, find_architecture, train_architecture
from search.build import build_latency_table
from search.truth import MEASURES, TrueNetwork, Truth
from search.workers import in_processes

logger = logging.getLogger(__name__)

CHANCE = "chance"
MAX_NETWORKS = 1024
SOLVER_KEYS = (
    *("OPTIMIZER", "OPTIMIZER_EPS", "MOMENTUM", "BASE_LR", "DECAY", "WARMUP_EPOCHS"),
    *("WARMUP_FACTOR", "WEIGHT_DECAY", "WEIGHT_DECAY_NORM", "IMS_PER_BATCH"),
)

Trial = tuple[str, float, int]
"""Method, target and seed of one search."""


def all_networks(space: SearchSpace) -> dict[str, Architecture]:
    """Every network of a space by the types of its searchable layers.

    Raises:
        UserError: if there are too many to train them all.
    """
    choices = [space.choices(layer) for layer in space.layers]
    networks = {}
    for taken in itertools.islice(itertools.product(*choices), MAX_NETWORKS + 1):
        types = type_names(space, taken)
        networks[types] = space.architecture(taken, f"{space.name}_{len(networks)}")
    if len(networks) > MAX_NETWORKS:
        raise UserError(
            f"search space '{space.name}' has more than {MAX_NETWORKS} networks; an answer is "
            "known where all are trained: choose a smaller one, such as 'digits_small'"
        )
    return networks


def recipe(cfg: CfgNode, *sections: str) -> dict[str, Any]:
    """What decides how a training or a search ends, as JSON gives it back."""
    keys = {name: dict(cfg[name]) for name in ("CLASSIFICATION", *sections)}
    keys["SOLVER"] = {key: cfg.SOLVER[key] for key in SOLVER_KEYS}
    return dict(json.loads(json.dumps(keys)))


def train_truth(
    search_cfg: CfgNode,
    classifier_cfg: CfgNode,
    seeds: int,
    workers: int,
    output: Path,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Trains every network of ``SEARCH.SPACE``; what ``output`` holds already is kept.

    Args:
        search_cfg: names the space and the latency table.
        classifier_cfg: the one recipe.
        seeds: trainings of every network.
        workers: processes, of one thread each.
        output: JSON file, written after every training.
        facts: command, hardware and versions, written beside the networks.

    Returns:
        What the file then holds.

    Raises:
        UserError: if the file has another space or recipe.
    """
    space = SearchSpace.load(search_cfg.SEARCH.SPACE)
    table = build_latency_table(search_cfg, space)
    settings = {
        "space": space.to_dict(),
        "latency_table": table.name,
        "input_size": table.input_size,
        **recipe(classifier_cfg),
    }
    truth = _opened(output, settings)
    architectures = all_networks(space)
    networks = _networks(architectures, table, truth.get("networks", ()))
    jobs = [
        (types, seed)
        for seed in range(seeds)
        for types in networks
        if seed not in networks[types].scores["top1"]
    ]
    arguments = [(classifier_cfg, architectures[types], seed) for types, seed in jobs]
    for index, scores in in_processes(train_network, arguments, workers):
        types, seed = jobs[index]
        for measure in MEASURES:
            networks[types].scores[measure][seed] = round(scores[measure], 4)
        trained = [network.to_dict() for network in networks.values() if network.scores["top1"]]
        counts = {"unit": table.unit, "size": len(networks)}
        truth = {**facts, **counts, "settings": settings, "networks": trained}
        write_json(output, truth)
    return truth


def _networks(
    architectures: Mapping[str, Architecture],
    table: LatencyTable,
    trained: Sequence[Mapping[str, Any]],
) -> dict[str, TrueNetwork]:
    """All networks by layer types: those trained before with their scores, the others without."""
    known = {row["layers"]: TrueNetwork.from_dict(row) for row in trained}
    return {
        types: known.get(types)
        or TrueNetwork(
            types,
            round(predict_runtime(architecture, table), 4),
            {measure: {} for measure in MEASURES},
        )
        for types, architecture in architectures.items()
    }


def train_network(cfg: CfgNode, architecture: Architecture, seed: int) -> dict[str, float]:
    """One training of one network; its scores."""
    with tempfile.TemporaryDirectory(prefix="spnas-truth-") as folder:
        return train_architecture(cfg, architecture, seed, Path(folder))


def run_searches(
    search_cfg: CfgNode,
    truth: Truth,
    trials: Sequence[Trial],
    workers: int,
    output: Path,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Runs the searches that ``output`` does not hold yet and looks up what they found.

    Args:
        search_cfg: of every search.
        truth: of the space searched.
        trials: method (a key of ``METHODS``), target and seed of each.
        workers: processes, of one thread each.
        output: JSON file of the study, written after every search.
        facts: command, hardware and versions, written beside the searches.

    Returns:
        What the file then holds.

    Raises:
        UserError: if a method is unknown, if the file has searches of other settings, or if a
            network found is not one of the truth's.
    """
    if unknown := [name for name, _, _ in trials if name not in METHODS]:
        raise UserError(f"unknown method '{unknown[0]}'; expected some of {', '.join(METHODS)}")
    settings = {**recipe(search_cfg, "SEARCH"), "truth": truth_facts(truth)}
    study = {"trials": [], **_opened(output, settings)}
    done = [(row["method"], row["target"], row["seed"]) for row in study["trials"]]
    jobs = [trial for trial in trials if trial not in done]
    arguments = [(search_cfg, *job) for job in jobs]
    for index, found in in_processes(search_network, arguments, workers):
        study["trials"].append(judged(truth, *jobs[index], found))
        study["trials"].sort(key=lambda row: (row["method"], row["target"], row["seed"]))
        chance = chance_row(truth, study["trials"], search_cfg.SEARCH.TOLERANCE)
        summary = [*summarize(study["trials"]), chance]
        study.update(facts, unit=truth.unit, settings=settings, summary=summary)
        write_json(output, study)
    return study


def judged(
    truth: Truth, method: str, target: float, seed: int, found: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of one search: the network found, its true scores' distance from the best ones."""
    network = truth.lookup(found["layers"])
    regrets = {
        f"regret_{measure}": round(truth.regret(network.layers, target, measure), 4)
        for measure in MEASURES
    }
    trial = {"method": method, "target": target, "seed": seed}
    return {**trial, **found, "runtime": network.runtime, **regrets}


def search_network(cfg: CfgNode, method: str, target: float, seed: int) -> dict[str, Any]:
    """One search: the layers that it found, and the seconds of a processor that it took."""
    start = time.process_time()
    with tempfile.TemporaryDirectory(prefix="spnas-search-") as folder:
        network = find_architecture(cfg, METHODS[method], target, seed, Path(folder))
    space = SearchSpace.load(cfg.SEARCH.SPACE)
    return {
        "layers": type_names(space, space.choices_of(network)),
        "cpu_seconds": round(time.process_time() - start, 2),
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


def summarize(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a method: mean regret by target and over all, and how it differs between seeds.

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


def _opened(output: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds, if it holds anything.

    Raises:
        UserError: if it was made with other settings.
    """
    if not output.exists():
        return {}
    found: dict[str, Any] = read_json(output, "study")
    before, wanted = found.get("settings", {}), json.loads(json.dumps(settings))
    if before != wanted:
        changed = [key for key in wanted if before.get(key) != wanted[key]]
        raise UserError(
            f"'{output}' was begun with another {', '.join(changed)}; go on with the settings that "
            "it names, or choose another --output"
        )
    return found
