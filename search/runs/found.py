"""Selects, evaluates and exports networks from a trained supernet."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from tabulate import tabulate
from torch import nn

from backbones.architecture import Architecture
from backbones.exported import save_backbone
from backbones.figures import shown
from backbones.latency import predict_runtime
from backbones.network import Classifier
from detection.engine.random_state import seeded
from search.classification.accuracy import evaluate
from search.classification.calibration import calibrated, calibration_inputs
from search.classification.data import ImageSet, build_val_loader
from search.runs.measured import in_precision, measured_row, table_facts
from search.selection.runtime import RuntimeModel
from search.selection.sampling import sample_decisions
from search.selection.target import runtime_range, select_at_target
from search.space import Choice, SearchSpace
from search.start.refitting import refit
from search.supernets.export import export_network
from search.supernets.one_shot import OneShot

logger = logging.getLogger(__name__)


class FoundNetworks:
    """Selection, evaluation and export of networks from one trained supernet.

    Args:
        cfg: the configuration.
        space: the search space.
        runtime_model: of that space.
        supernet: of the space, or of the space with other widths.
        train_data: to estimate batch-norm statistics on.
        held_out: what an evolutionary search judges networks on; never the validation images.
        reference: the network that ``SEARCH.REFIT_BATCHES`` fits others to.
    """

    def __init__(
        self,
        cfg: CfgNode,
        space: SearchSpace,
        runtime_model: RuntimeModel,
        supernet: OneShot,
        train_data: ImageSet,
        held_out: ImageSet,
        reference: Sequence[Choice],
    ) -> None:
        self.cfg = cfg
        self.space = space
        self.runtime_model = runtime_model
        self.supernet = supernet
        self.train_data = train_data
        self.held_out = held_out
        self.reference = reference

    def sampled(self, iterations: int) -> list[Architecture]:
        """Networks drawn from the decisions' distribution (intra-run samples of Sec. VII-A)."""
        rng = random.Random(self.cfg.SEED)
        with torch.no_grad():
            decisions = self.supernet.relaxed_decisions()
        return [
            self.described(sample_decisions(self.space, decisions, rng), iterations)
            for _ in range(self.cfg.SEARCH.SAMPLES)
        ]

    def described(self, choices: Sequence[Choice], iterations: int) -> Architecture:
        """A network found, with its provenance."""
        dataset = self.cfg.CLASSIFICATION.DATASET
        return described(self.cfg, self.runtime_model, choices, iterations, dataset)

    def judged(
        self, architecture: Architecture, val_data: ImageSet
    ) -> tuple[nn.Module, dict[str, float]]:
        """Calibrates and evaluates a network of the supernet; returns both."""
        choices = self.space.choices_of(architecture)
        network = self.calibrated(choices, self.cfg.SEARCH.CALIBRATION_BATCHES)
        scores = evaluate(network, build_val_loader(self.cfg, val_data))
        logger.info(
            "network found: top-1 %.2f %% with the supernet's weights, %s %s predicted",
            scores["top1"],
            shown(architecture.provenance["predicted_runtime"]),
            self.runtime_model.table.unit,
        )
        return network, scores

    def export(
        self, architecture: Architecture, network: nn.Module, scores: dict[str, float], folder: Path
    ) -> dict[str, Any]:
        """Writes a network into a folder; its row of ``results.json``.

        The weights of a supernet of other widths fit no network of the space: then there are none.
        """
        if comm.is_main_process():
            if self.supernet.space.layers == self.space.layers:
                save_backbone(folder, architecture, network.state_dict())
                logger.info("Wrote architecture.json and backbone.pth to %s", folder)
            else:
                architecture.save(folder / "architecture.json")
                logger.info("Wrote architecture.json to %s: the supernet had other widths", folder)
        return {**found_row(self.space, architecture), "val": scores}

    def calibrated(self, choices: Sequence[Choice], batches: int) -> nn.Module:
        """A network of the supernet with batch-norm statistics of its own, in eval mode.

        The supernet's statistics are a mixture over all decisions that it made on the way. With
        ``SEARCH.REFIT_BATCHES`` layers are fitted first (:mod:`search.start.refitting`).

        Args:
            choices: one per searchable layer.
            batches: training batches to estimate the statistics on; 0 keeps the supernet's.
        """
        network = self.cut(choices)
        if count := self.cfg.SEARCH.REFIT_BATCHES:
            with seeded(self.cfg.SEED):
                inputs = list(calibration_inputs(network, self.cfg, self.train_data, count))
            refit(network, self.cut(self.reference), inputs)
        return calibrated(network, self.cfg, self.train_data, batches)

    def cut(self, choices: Sequence[Choice]) -> Classifier:
        """A network with the supernet's weights as they are."""
        architecture = self.supernet.space.architecture(choices, "found")
        return export_network(self.supernet, choices, architecture)

    @torch.no_grad()
    def fitness(self, choices: Sequence[Choice]) -> float:
        """Of a network with statistics of its own: less its cross entropy on images held out."""
        network = self.calibrated(choices, self.cfg.SEARCH.EVOLUTION.CALIBRATION_BATCHES)
        return -evaluate(network, build_val_loader(self.cfg, self.held_out))["loss"]


@torch.no_grad()
def decided(
    cfg: CfgNode, runtime_model: RuntimeModel, supernet: OneShot, target: float
) -> list[Choice]:
    """Selects the network that a supernet's decisions favour.

    Args:
        cfg: of the search.
        runtime_model: of the space.
        supernet: of the space, or of the space with other widths.
        target: runtime to select at; 0 takes the decisions as they are.
    """
    if not target:
        return supernet.choices()
    return select_at_target(
        runtime_model.space,
        runtime_model,
        supernet.relaxed_decisions(),
        target,
        cfg.SEARCH.TOLERANCE,
        cfg.SEARCH.SELECTION,
    )


def found_row(space: SearchSpace, architecture: Architecture) -> dict[str, Any]:
    """What ``results.json`` says of a network with a provenance, but for its scores."""
    return {
        "architecture": architecture.name,
        "layers": [str(space.choice_type(choice)) for choice in space.choices_of(architecture)],
        "predicted_runtime": architecture.provenance["predicted_runtime"],
    }


def described(
    cfg: CfgNode,
    runtime_model: RuntimeModel,
    choices: Sequence[Choice],
    iterations: int,
    dataset: str,
) -> Architecture:
    """A network found, with its provenance.

    Args:
        cfg: of the search.
        runtime_model: of the space that was searched.
        choices: one per searchable layer.
        iterations: of the search so far.
        dataset: that the search saw.
    """
    space, table = runtime_model.space, runtime_model.table
    runtime = predict_runtime(space.architecture(choices, "found"), table)
    provenance = {
        "method": cfg.SEARCH.FORMULATION,
        "config": dict(cfg.SEARCH),
        "dataset": dataset,
        "seed": cfg.SEED,
        "iterations": iterations,
        "latency_table": table.name,
        "predicted_runtime": round(runtime, 4),
        "unit": table.unit,
    }
    rounded = f"{runtime:.0f}" if runtime >= 10 else f"{runtime:.2g}"
    name = f"spnas_{space.name}_{rounded}{table.unit}"
    return space.architecture(choices, name, provenance)


def search_results(
    runtime_model: RuntimeModel,
    node: CfgNode,
    found: Mapping[str, Any],
    further: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """The ``search`` part of ``results.json``, logged as well; rank 0 alone has a logger.

    Args:
        runtime_model: of the space that was searched.
        node: ``cfg.SEARCH``.
        found: the row of the network found.
        further: rows of further networks, by what they are.
    """
    space, table, target = runtime_model.space, runtime_model.table, node.TARGET
    smallest, largest = runtime_range(space, runtime_model)
    logger.info("Searched layers:\n%s", layer_table(runtime_model, found["layers"]))
    runtime, against = found["predicted_runtime"], ""
    if target:
        against = f"target {target:g} {table.unit} ({100 * (runtime / target - 1):+.2f} %), "
    logger.info(
        "predicted runtime %s %s, %sspace %s to %s %s, latency table '%s'%s",
        shown(runtime),
        table.unit,
        against,
        shown(smallest),
        shown(largest),
        table.unit,
        table.name,
        in_precision(table),
    )
    return {
        **found,
        "target_runtime": target or None,
        "runtime_range": [smallest, largest],
        "unit": table.unit,
        "latency_table": table.name,
        **table_facts(table),
        **(measured_row(space, found, table) if node.MEASURE else {}),
        **{name: rows for name, rows in further.items() if rows},
    }


def layer_table(runtime_model: RuntimeModel, names: Sequence[str]) -> str:
    """The searched layers as a text table: shape, type and runtime."""
    space = runtime_model.space
    rows = []
    for index, (layer, name) in enumerate(zip(space.layers, names, strict=True)):
        position = [str(space.choice_type(choice)) for choice in space.choices(layer)].index(name)
        runtime = runtime_model.choice_runtimes(index)[position]
        shape = f"{layer.in_channels} → {layer.out_channels}"
        rows.append([index + 1, shape, layer.stride, name, shown(runtime)])
    headers = ["layer", "channels", "stride", "MBConv", runtime_model.table.unit]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
