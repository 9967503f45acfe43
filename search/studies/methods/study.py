"""Studies: search methods × targets × seeds under one recipe, resumable, as one JSON file."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import read_json
from backbones.latency import predict_runtime
from backbones.scratch import scratch_folder
from search.classification.classifier import ClassifierTrainer
from search.profiling.workload import type_names
from search.runs.build import build_latency_table, build_runtime_model
from search.runs.formulations.base import Formulation
from search.runs.formulations.registry import FORMULATIONS
from search.runs.run import run_search
from search.selection.sampling import sample_at_target
from search.space import SearchSpace
from search.start.seed import search_space
from search.studies.trials import PendingTrial, mean_and_spread, recipe, run_trials, trial_config
from search.studies.workers import HERE, Workers
from search.supernets.single_path import Supernet

KEYS = ("top1", "loss", "runtime")


@dataclass(frozen=True)
class Method:
    """A search method: how a network is found at a target runtime.

    Attributes:
        name: in tables and on the command line.
        overrides: keys of the search configuration that make it.
        searches: False draws a network at random instead.
    """

    name: str
    overrides: tuple[str, ...] = ()
    searches: bool = True


DEFAULT = Method("single-path")
"""The paper's formulation with this project's defaults."""

CHANGES = (
    Method("norm", ("SEARCH.IMPORTANCE", "norm")),
    Method("literal", ("SEARCH.IMPORTANCE", "literal")),
    Method("log-odds", ("SEARCH.SELECTION", "log_odds")),
)
"""The default with one thing changed that is no formulation."""

CHANCE = Method("random", searches=False)

_NAMES = {"random": "random-search"}
"""Of the methods that are not called as their formulations are."""


def methods_of(formulations: Mapping[str, Formulation]) -> dict[str, Method]:
    """A method a formulation, of which the first is the default, its changes, and chance."""
    _, *others = formulations
    methods = [
        DEFAULT,
        *CHANGES,
        *(
            Method(
                _NAMES.get(name, name),
                ("SEARCH.FORMULATION", name, *formulations[name].study_options),
            )
            for name in others
        ),
        CHANCE,
    ]
    return {method.name: method for method in methods}


METHODS = methods_of(FORMULATIONS)


def check_methods(names: Iterable[str]) -> None:
    """Raises a UserError that names the first method that is not one of ``METHODS``."""
    if unknown := [name for name in names if name not in METHODS]:
        raise UserError(f"unknown method '{unknown[0]}'; expected some of {', '.join(METHODS)}")


def run_trial(
    search_cfg: CfgNode, classifier_cfg: CfgNode, method: Method, target: float, seed: int
) -> dict[str, Any]:
    """Finds one network, and trains it from scratch by the recipe that all share.

    Args:
        search_cfg: of the search; method, target and seed are added.
        classifier_cfg: the recipe; architecture and seed are added.
        method: how the network is found.
        target: runtime in the unit of the latency table.
        seed: of both.

    Returns:
        The layers found, the predicted runtime, and the accuracy of the trained network; with
        ``SEARCH.SAMPLES``, under ``samples`` the same of every network drawn from the search's
        decisions (intra-run sampling, Sec. VII-A).
    """
    space = search_space(search_cfg)
    table = build_latency_table(search_cfg, space)

    def trained(architecture: Architecture, folder: Path) -> dict[str, Any]:
        return {
            "runtime": round(predict_runtime(architecture, table), 4),
            "layers": type_names(space, space.choices_of(architecture)),
            **train_architecture(classifier_cfg, architecture, seed, folder),
        }

    with scratch_folder("study") as folder:
        architecture = find_architecture(search_cfg, method, target, seed, folder / "search")
        record = {"method": method.name, "target": target, "seed": seed}
        record.update(trained(architecture, folder / "classifier"))
        drawn = sorted(folder.glob("search/samples/*/architecture.json"))
        samples = [
            trained(Architecture.load(file), folder / "classifiers" / file.parent.name)
            for file in drawn
        ]
    return {**record, "samples": samples} if samples else record


def find_architecture(
    search_cfg: CfgNode, method: Method, target: float, seed: int, folder: Path
) -> Architecture:
    """The network that a method finds at a target runtime.

    Args:
        search_cfg: of the search; method, target and seed are added.
        method: how the network is found.
        target: runtime in the unit of the latency table.
        seed: of the search.
        folder: for what the search leaves.
    """
    searched = (*method.overrides, "SEARCH.TARGET", str(target))
    cfg = trial_config(search_cfg, seed, options=searched)
    return _search(cfg, folder) if method.searches else draw_architecture(cfg)


def train_architecture(
    classifier_cfg: CfgNode, architecture: Architecture, seed: int, folder: Path
) -> dict[str, float]:
    """Held-out accuracy of a network that is trained from scratch.

    Args:
        classifier_cfg: the recipe; architecture and seed are added.
        architecture: the network.
        seed: of the weights and of the order of the images.
        folder: for what the training leaves.

    Returns:
        ``top1`` and ``top5`` in percent, and ``loss``.
    """
    file = folder / "trained.json"
    architecture.save(file)
    seed_all_rng(seed)
    options = ("MODEL.SPNAS.ARCH", str(file))
    ClassifierTrainer(trial_config(classifier_cfg, seed, folder, options)).train()
    results = read_json(folder / "results.json", "results")
    scores: dict[str, float] = results["classification"]["val"]
    return scores


def _search(cfg: CfgNode, folder: Path) -> Architecture:
    seed_all_rng(cfg.SEED)
    run_search(trial_config(cfg, cfg.SEED, folder))
    return Architecture.load(folder / "architecture.json")


def draw_architecture(cfg: CfgNode) -> Architecture:
    """A network drawn by ``SEED`` from ``SEARCH.SPACE`` at ``SEARCH.TARGET`` (Sec. VII-A).

    Raises:
        UserError: if no network of the space is at the target.
    """
    space = search_space(cfg)
    rng = random.Random(cfg.SEED)
    runtime_model = build_runtime_model(cfg, space)
    choices = sample_at_target(space, runtime_model, cfg.SEARCH.TARGET, rng, cfg.SEARCH.TOLERANCE)
    provenance = {"method": "random", "config": dict(cfg.SEARCH), "seed": cfg.SEED}
    return space.architecture(choices, f"random{cfg.SEED}", provenance)


def run_study(
    search_cfg: CfgNode,
    classifier_cfg: CfgNode,
    trials: Sequence[tuple[Method, float, int]],
    output: Path,
    facts: Mapping[str, Any],
    workers: Workers = HERE,
) -> dict[str, Any]:
    """Runs the trials that ``output`` does not hold yet, saving after each one.

    Args:
        search_cfg: of every search.
        classifier_cfg: of every final training.
        trials: method, target and seed of each.
        output: JSON file of the study.
        facts: command, hardware and settings, written beside the trials.
        workers: as for :func:`search.studies.trials.run_trials`.

    Raises:
        UserError: if ``output`` holds trials of another recipe.
    """
    pending: list[PendingTrial] = [
        (
            {"method": method.name, "target": target, "seed": seed},
            partial(run_trial, search_cfg, classifier_cfg, method, target, seed),
        )
        for method, target, seed in trials
    ]
    settings = {"search": recipe(search_cfg, "SEARCH"), "training": recipe(classifier_cfg)}
    return run_trials(pending, output, {**facts, "recipe": settings}, method_rows, workers)


def method_rows(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over the seeds of every method at every target.

    ``furthest`` is the largest distance of a network from its target, as a part of it.
    ``margin_top1`` and ``margin_loss`` are how much better the means are than those of the random
    networks at the same target, in standard deviations of theirs; None where those have none.
    ``intra`` is the standard deviation of accuracy among the samples of one search, pooled over the
    searches; None where there are fewer than two samples.
    """
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for trial in trials:
        groups.setdefault((trial["method"], trial["target"]), []).append(trial)
    rows = []
    for (method, target), group in groups.items():
        row: dict[str, Any] = {"method": method, "target": target, "seeds": len(group)}
        for key in KEYS:
            row[f"{key}_mean"], row[f"{key}_std"] = mean_and_spread(group, key)
        row["furthest"] = max(abs(trial["runtime"] / target - 1) for trial in group)
        row["intra"] = intra_run_spread(group)
        chance = groups.get(("random", target), []) if method != "random" else []
        for key, sign in (("top1", 1), ("loss", -1)):
            mean, spread = mean_and_spread(chance, key) if chance else (0.0, 0.0)
            # two networks may well tie, as long as the study is young
            margin = sign * (row[f"{key}_mean"] - mean) / spread if spread else None
            row[f"margin_{key}"] = margin
        rows.append(row)
    return rows


def intra_run_spread(trials: Sequence[Mapping[str, Any]]) -> float | None:
    """Pooled standard deviation of top-1 among the networks that one search's decisions give."""
    spreads = [
        mean_and_spread(trial["samples"], "top1")[1]
        for trial in trials
        if len(trial.get("samples", ())) > 1
    ]
    return math.sqrt(statistics.fmean(s**2 for s in spreads)) if spreads else None


def live_thresholds(space: SearchSpace, importance: str, seed: int = 0) -> float:
    """Share of the thresholds with a gradient above 1e-6 at step 0, from cross entropy alone."""
    torch.manual_seed(seed)
    supernet = Supernet(space, 10, importance=importance).train()
    F.cross_entropy(supernet(torch.randn(8, 3, 64, 64)), torch.arange(8)).backward()
    values = supernet.thresholds.values
    alive = (values.grad.abs() > 1e-6)[supernet.known] if values.grad is not None else values[:0]
    return float(alive.float().mean())
