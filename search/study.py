"""Studies: search variants × seeds under one recipe, resumable, as one JSON file."""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from backbones.files import read_json, write_json
from search.classifier import ClassifierTrainer
from search.space import SearchSpace
from search.supernet import Supernet
from search.trainer import SearchTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """A way to search: keys of the configuration that differ from the others."""

    name: str
    overrides: tuple[str, ...]


IMPORTANCE_VARIANTS = tuple(
    Variant(name, ("SEARCH.IMPORTANCE", name)) for name in ("relative", "norm", "literal")
)


def run_trial(
    search_cfg: CfgNode, classifier_cfg: CfgNode, variant: Variant, seed: int
) -> dict[str, Any]:
    """One search, and its network trained from scratch by the recipe that all share.

    Args:
        search_cfg: of the search; the variant and the seed are added.
        classifier_cfg: the recipe; the architecture and the seed are added.
        variant: what differs.
        seed: of both.

    Returns:
        The layers found, the predicted runtime, and the accuracy of the trained network.
    """
    with tempfile.TemporaryDirectory(prefix="spnas-study-") as folder:
        found = Path(folder) / "search"
        _train(SearchTrainer, search_cfg, seed, found, variant.overrides)
        results = read_json(found / "results.json", "results")["search"]
        trained = Path(folder) / "classifier"
        architecture = ("MODEL.SPNAS.ARCH", str(found / "architecture.json"))
        _train(ClassifierTrainer, classifier_cfg, seed, trained, architecture)
        scores = read_json(trained / "results.json", "results")["classification"]["val"]
    return {
        "variant": variant.name,
        "seed": seed,
        "runtime": results["predicted_runtime"],
        "layers": results["layers"],
        **scores,
    }


def _train(
    trainer: type[SearchTrainer] | type[ClassifierTrainer],
    cfg: CfgNode,
    seed: int,
    output: Path,
    overrides: Sequence[str],
) -> None:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([*overrides, "OUTPUT_DIR", str(output), "WANDB.ENABLED", "False"])
    cfg.SEED = seed
    seed_all_rng(seed)
    trainer(cfg).train()


def run_study(
    search_cfg: CfgNode,
    classifier_cfg: CfgNode,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    output: Path,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Runs the trials that ``output`` does not hold yet, saving after each one.

    Args:
        search_cfg: of every search.
        classifier_cfg: of every final training.
        variants: what is compared.
        seeds: of every variant.
        output: JSON file of the study.
        facts: command, hardware and settings, written beside the trials.
    """
    study: dict[str, Any] = {"trials": []}
    if output.exists():
        study = read_json(output, "study")
    done = {(trial["variant"], trial["seed"]) for trial in study["trials"]}
    for seed in seeds:
        for variant in variants:
            if (variant.name, seed) in done:
                continue
            logger.info("Trial: %s, seed %d", variant.name, seed)
            study["trials"].append(run_trial(search_cfg, classifier_cfg, variant, seed))
            study.update(facts, summary=summarize(study["trials"]))
            write_json(output, study)
    return study


def summarize(trials: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation over the seeds of every variant."""
    summary = {}
    for name in dict.fromkeys(trial["variant"] for trial in trials):
        mine = [trial for trial in trials if trial["variant"] == name]
        summary[name] = {"seeds": float(len(mine))}
        for key in ("top1", "loss", "runtime"):
            values = [float(trial[key]) for trial in mine]
            summary[name][f"{key}_mean"] = statistics.fmean(values)
            summary[name][f"{key}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return summary


def live_thresholds(space: SearchSpace, importance: str, seed: int = 0) -> float:
    """Share of the thresholds with a gradient above 1e-6 at step 0, from cross entropy alone."""
    torch.manual_seed(seed)
    supernet = Supernet(space, 10, importance=importance).train()
    F.cross_entropy(supernet(torch.randn(8, 3, 64, 64)), torch.arange(8)).backward()
    gradients = [p.grad for p in supernet.thresholds.parameters() if p.grad is not None]
    return float((torch.cat(gradients).abs() > 1e-6).float().mean())
