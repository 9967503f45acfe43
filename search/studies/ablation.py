"""Table II: does a kernel trained as a subset of another match one trained alone?

Three trainings of MBConv-6 networks without SE: 3×3 kernels alone, 5×5 kernels alone, and 5×5
kernels of which every step trains the inner 3×3 weights as well ("switchable" training, as Yu et
al., 2019, train across channels). The last one gives two networks.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn

from backbones.errors import UserError
from backbones.files import read_json
from backbones.scratch import scratch_folder
from search.classification.accuracy import evaluate
from search.classification.calibration import calibrated
from search.classification.data import build_val_loader, count_classes
from search.classification.trainer import ClassificationTrainer
from search.space import Candidate, Choice, SearchSpace
from search.start.seed import search_space
from search.studies.markdown import beside, table
from search.studies.trials import PendingTrial, Record, mean_and_spread, run_trials, trial_config
from search.studies.workers import HERE, Workers
from search.supernets.export import export_network
from search.supernets.single_path import Supernet

logger = logging.getLogger(__name__)

KEYS = ("top1", "top5", "loss")

TRAININGS = {"3x3 alone": (3,), "5x5 alone": (5,), "3x3 in 5x5": (3, 5)}
"""Kernel sizes that share one set of weights, by the name that tables use."""


def kernel_name(size: int) -> str:
    """``3x3``."""
    return f"{size}x{size}"


def kernel_space(space: SearchSpace, kernel_sizes: Sequence[int]) -> SearchSpace:
    """The space with expansion 6 and no SE, in which the kernel is the only choice."""
    return dataclasses.replace(
        space, kernel_sizes=tuple(kernel_sizes), expansions=(6,), se_ratios=(0,)
    )


class KernelTrainer(ClassificationTrainer):
    """Trains, in one set of weights, every network that has one kernel size throughout.

    Every step computes the loss of each of them on the same images, adds the gradients, and
    updates once. A space of one kernel size is an ordinary network in ordinary training, so that
    nothing but the number of losses differs between the trainings that are compared.

    Batch norm normalises by the batch while it trains, so every network trains under statistics
    of its own, but the running ones mix them; they are estimated after the training for each,
    as a search does for the network that it ends with. Slimmable networks instead keep a norm
    layer for every switch. That would also double its scale and shift, which the superkernels
    of a search share, and they are what is asked about.

    Args:
        cfg: of a classifier's training.
        space: from :func:`kernel_space`.

    Raises:
        UserError: if no batch is left to estimate statistics from.
    """

    part = "kernels"

    def __init__(self, cfg: CfgNode, space: SearchSpace) -> None:
        if cfg.SEARCH.CALIBRATION_BATCHES < 1:
            raise UserError(
                f"SEARCH.CALIBRATION_BATCHES is {cfg.SEARCH.CALIBRATION_BATCHES}; expected 1 or "
                "more: shared kernels have no batch-norm statistics of their own before that"
            )
        self.space = space
        self.choices: dict[str, list[Choice]] = {
            kernel_name(size): [Candidate(index, 0, 0)] * len(space.layers)
            for index, size in enumerate(space.kernel_sizes)
        }
        # residual branches start as those of a fixed network: here no threshold needs a gradient
        self.supernet = Supernet(
            space, count_classes(cfg), cfg.CLASSIFICATION.DROP_RATE, residual_scale=0.0
        )
        self.supernet.thresholds.requires_grad_(False)
        super().__init__(cfg, self.supernet)

    def backward(self, images: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Adds the gradients of every network's loss; returns the last one's logits."""
        losses: dict[str, Tensor] = {}
        for name, choices in self.choices.items():
            with self.supernet.using(choices):
                terms, logits = super().backward(images, targets)
            losses.update({f"{term}_{name}": value for term, value in terms.items()})
        return losses, logits

    def network(self, name: str) -> nn.Module:
        """The fixed network of a kernel size, with batch-norm statistics of its own.

        Args:
            name: of the kernel, e.g. ``3x3``.
        """
        choices = self.choices[name]
        trained = cast(Supernet, self.averaged_model)
        network = export_network(trained, choices, self.space.architecture(choices, name))
        return calibrated(network, self.cfg, self.train_data, self.cfg.SEARCH.CALIBRATION_BATCHES)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Accuracy of every kernel size."""
        scores = {}
        for name in self.choices:
            loader = build_val_loader(self.cfg, self.val_data)
            scores[name] = evaluate(self.network(name), loader)
            logger.info("%s kernels: top-1 %.2f %%", name, scores[name]["top1"])
        self.write_results({self.part: scores})
        return scores


def run_training(cfg: CfgNode, name: str, seed: int) -> dict[str, Any]:
    """One training, and the accuracy of its network or networks.

    Args:
        cfg: the recipe; the seed is added.
        name: of the training, a key of ``TRAININGS``.
        seed: of initial weights, order and augmentation.
    """
    space = kernel_space(search_space(cfg), TRAININGS[name])
    with scratch_folder("ablation") as folder:
        seed_all_rng(seed)
        KernelTrainer(trial_config(cfg, seed, folder), space).train()
        scores = read_json(folder / "results.json", "results")["kernels"]
    return {"scores": scores}


def run_ablation(
    cfg: CfgNode, seeds: int, output: Path, facts: Record, workers: Workers = HERE
) -> dict[str, Any]:
    """Runs the trainings that ``output`` does not hold yet, saving after each one.

    Args:
        cfg: the recipe of all trainings.
        seeds: of each.
        output: JSON file of the study.
        facts: as for :func:`search.studies.trials.run_trials`.
        workers: the same.
    """
    pending: list[PendingTrial] = [
        ({"training": name, "seed": seed}, partial(run_training, cfg, name, seed))
        for seed in range(seeds)
        for name in TRAININGS
    ]
    return run_trials(pending, output, facts, ablation_rows, workers)


def ablation_rows(trials: Sequence[Record]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over the seeds of every training and kernel.

    ``gap`` is how far the shared kernel's top-1 accuracy is above that of the same kernel trained
    alone from the same seed, mean and spread over the seeds of both; None where there are none.
    """
    groups: dict[tuple[str, str], dict[int, Record]] = {}
    for trial in trials:
        for kernel, scores in trial["scores"].items():
            groups.setdefault((trial["training"], kernel), {})[trial["seed"]] = scores
    rows = []
    for training, sizes in TRAININGS.items():
        for kernel in map(kernel_name, sizes):
            if group := groups.get((training, kernel)):
                alone = groups.get((f"{kernel} alone", kernel), {})
                rows.append(_row(training, kernel, group, alone))
    return rows


def _row(
    training: str, kernel: str, group: dict[int, Record], alone: dict[int, Record]
) -> dict[str, Any]:
    row: dict[str, Any] = {"training": training, "kernel": kernel, "seeds": len(group), "gap": None}
    for key in KEYS:
        row[f"{key}_mean"], row[f"{key}_std"] = mean_and_spread(list(group.values()), key)
    gaps = [{"gap": group[seed]["top1"] - alone[seed]["top1"]} for seed in group if seed in alone]
    if group is not alone and gaps:
        row["gap"] = list(mean_and_spread(gaps, "gap"))
    return row


def ablation_table(study: Mapping[str, Any]) -> str:
    """Table II: kernels trained alone and as subsets of larger ones."""
    rows = []
    for row in study["summary"]:
        trained = row["training"].replace("x", "×")
        gap = "–" if row["gap"] is None else f"{row['gap'][0]:+.2f} ± {row['gap'][1]:.2f}"
        spreads = [
            f"{row[f'{key}_mean']:.{digits}f} ± {row[f'{key}_std']:.{digits}f}"
            for key, digits in (("top1", 2), ("top5", 2), ("loss", 3))
        ]
        kernel = row["kernel"].replace("x", "×")
        rows.append([trained, kernel, f"{row['seeds']}", *spreads, gap])
    headers = [
        *("kernels trained", "evaluated with", "seeds", "held-out top-1 (%)"),
        *("held-out top-5 (%)", "held-out loss", "top-1 against alone"),
    ]
    return table(headers, rows)


def ablation_section(study: Mapping[str, Any]) -> str:
    """The ablation of kernel subsets."""
    return f"{ablation_table(study)}\n\n{beside(study)}"
