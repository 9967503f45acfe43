"""The search: cross entropy + λ·log(runtime) over one supernet, and the network it ends with."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from fvcore.nn.precise_bn import update_bn_stats
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.data import Subset

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.latency import LatencyTable, predict_runtime
from search.accuracy import evaluate
from search.data import build_train_loader, build_val_loader, count_classes
from search.export import export_network, save_backbone
from search.proxies import load_table
from search.random_search import sample_decisions
from search.runtime import RUNTIME_MODELS, RuntimeModel
from search.space import Choice, SearchSpace
from search.stage import ClassificationTrainer
from search.supernet import Supernet
from search.target import check_target, runtime_range, select_at_target
from search.tradeoff import FixedTradeOff, TargetTradeOff

logger = logging.getLogger(__name__)


def build_supernet(cfg: CfgNode, space: SearchSpace, num_classes: int) -> Supernet:
    """The supernet that ``cfg.SEARCH`` describes."""
    node = cfg.SEARCH
    return Supernet(
        space,
        num_classes,
        cfg.CLASSIFICATION.DROP_RATE,
        relaxation=node.RELAXATION,
        importance=node.IMPORTANCE,
        temperature=node.TEMPERATURE,
        initial_logit=node.INITIAL_LOGIT,
        residual_scale=node.RESIDUAL_SCALE,
    )


def build_latency_table(cfg: CfgNode, space: SearchSpace) -> LatencyTable:
    """The table or proxy that ``cfg.SEARCH`` names.

    Raises:
        UserError: if there is none of that name, or it is for another image size.
    """
    height, width = cfg.SEARCH.DEPLOY_SIZE
    table = load_table(cfg.SEARCH.LATENCY_TABLE, space, (height, width))
    if table.input_size != (height, width):
        raise UserError(
            f"SEARCH.DEPLOY_SIZE is {height}×{width}, but latency table '{table.name}' is for "
            f"{table.input_size[0]}×{table.input_size[1]} images; profile the size that you deploy "
            "at, or set SEARCH.DEPLOY_SIZE to the table's"
        )
    return table


def build_runtime_model(cfg: CfgNode, space: SearchSpace) -> RuntimeModel:
    """The runtime model that ``cfg.SEARCH`` describes.

    Raises:
        UserError: if it is unknown, or the table is for another image size or does not cover the
            space.
    """
    name = cfg.SEARCH.RUNTIME_MODEL
    if name not in RUNTIME_MODELS:
        raise UserError(
            f"unknown SEARCH.RUNTIME_MODEL '{name}'; expected one of {', '.join(RUNTIME_MODELS)}"
        )
    return RUNTIME_MODELS[name](space, build_latency_table(cfg, space))


def build_tradeoff(cfg: CfgNode) -> FixedTradeOff | TargetTradeOff:
    """λ as ``cfg.SEARCH`` asks for it."""
    node = cfg.SEARCH
    if not node.TARGET:
        return FixedTradeOff(node.LAMBDA)
    if not 0 <= node.BUDGET_START < node.BUDGET_END <= 1:
        raise UserError(
            f"SEARCH.BUDGET_START is {node.BUDGET_START} and BUDGET_END {node.BUDGET_END}; "
            "expected 0 ≤ BUDGET_START < BUDGET_END ≤ 1"
        )
    return TargetTradeOff(
        node.TARGET,
        node.BUDGET_START,
        node.BUDGET_END,
        node.PROPORTIONAL_GAIN,
        node.INTEGRAL_GAIN,
    )


class SearchTrainer(ClassificationTrainer):
    """Trains weights and thresholds together (Eq. 9-11) and exports the network found.

    With ``SEARCH.BILEVEL`` they are trained in turns, as in multi-path methods (Eq. 8): weights
    in even iterations, thresholds in odd ones, each on images of their own.

    Everything is decided from the live supernet, not from averaged weights: an average crosses
    thresholds at other times than the model that it averages.
    """

    def __init__(self, cfg: CfgNode) -> None:
        if cfg.CLASSIFICATION.EMA_DECAY:
            raise UserError(
                f"CLASSIFICATION.EMA_DECAY is {cfg.CLASSIFICATION.EMA_DECAY:g}; a search decides "
                "from the live supernet, set it to 0"
            )
        self.space = SearchSpace.load(cfg.SEARCH.SPACE)
        self.runtime_model = build_runtime_model(cfg, self.space).to(cfg.MODEL.DEVICE)
        if cfg.SEARCH.TARGET:
            check_target(self.space, self.runtime_model, cfg.SEARCH.TARGET)
        for target in cfg.SEARCH.FAMILY:
            check_target(self.space, self.runtime_model, target, "SEARCH.FAMILY")
        self.tradeoff = build_tradeoff(cfg)
        num_classes = count_classes(cfg)
        self.supernet = build_supernet(cfg, self.space, num_classes)
        super().__init__(cfg, self.supernet, {"tradeoff": self.tradeoff})
        # A supernet that is loaded in part would be searched, and be worth nothing.
        self.checkpointer.strict, self.checkpointer.optional = True, ("classifier.",)

    def run_step(self) -> None:
        """One step over weights and thresholds."""
        node = self.cfg.SEARCH
        dropping = self.progress < node.SUBSET_DROPOUT_UNTIL
        self.supernet.subset_dropout = node.SUBSET_DROPOUT if dropping else 0.0
        super().run_step()

    def train_batches(self, start_iter: int) -> Iterator[Any]:
        """As for every classifier; in a bilevel search from the two parts in turns."""
        if not self.cfg.SEARCH.BILEVEL:
            return super().train_batches(start_iter)
        starts = ((start_iter + 1) // 2, start_iter // 2)
        loaders = [
            iter(build_train_loader(self.cfg, part, start))
            for part, start in zip(self.image_parts(), starts, strict=True)
        ]
        return (next(loaders[iteration % 2]) for iteration in count(start_iter))

    def image_parts(self) -> tuple[Subset[Any], Subset[Any]]:
        """The training images for the weights and those for the thresholds, of a bilevel search.

        Raises:
            UserError: if one of them has less than a batch.
        """
        share, batch = self.cfg.SEARCH.THRESHOLD_IMAGES, self.cfg.SOLVER.IMS_PER_BATCH
        generator = torch.Generator().manual_seed(max(self.cfg.SEED, 0))
        order = torch.randperm(len(self.train_data), generator=generator).tolist()
        split = round(len(order) * (1 - share))
        if not batch <= split <= len(order) - batch:
            raise UserError(
                f"SEARCH.THRESHOLD_IMAGES is {share:g}, which splits the {len(order)} training "
                f"images into {split} and {len(order) - split}; expected at least "
                f"SOLVER.IMS_PER_BATCH, {batch}, in each"
            )
        return Subset(self.train_data, order[:split]), Subset(self.train_data, order[split:])

    def after_backward(self) -> None:
        """In a bilevel search, keeps the gradients of the side whose turn it is."""
        if not self.cfg.SEARCH.BILEVEL:
            return
        thresholds = set(self.supernet.thresholds.parameters())
        for parameter in self.supernet.parameters():
            if (parameter in thresholds) != bool(self.iter % 2):
                parameter.grad = None

    def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Cross entropy and λ·log R (Eq. 10)."""
        losses = super().losses(logits, targets)
        runtime = self.runtime_model(self.supernet.decisions)
        with torch.no_grad():
            relaxed = float(self.runtime_model(self.supernet.confidence))
        weight = self.tradeoff.update(relaxed, self.progress)
        losses["loss_runtime"] = weight * runtime.log()
        get_event_storage().put_scalars(
            **{
                "search/lambda": weight,
                "search/runtime": float(runtime.detach()),
                "search/relaxed_runtime": relaxed,
            },
            smoothing_hint=False,
        )
        return losses

    def after_step(self) -> None:
        """Logs the decisions of every layer together with the other metrics."""
        if (self.iter + 1) % self.log_period == 0:
            self._log_decisions()
        super().after_step()

    def _log_decisions(self) -> None:
        """How sure every option of every layer is, and how strong each threshold's gradient."""
        storage = get_event_storage()
        with torch.no_grad():
            decisions = self.supernet.relaxed_decisions()
        for index, decision in enumerate(decisions, start=1):
            values = {
                "keep": decision.keep,
                "kernel": decision.kernel[-1],
                "expansion": decision.expansion[-1],
                "se": 1 - decision.se[0],
            }
            for name, value in values.items():
                storage.put_scalar(
                    f"decisions/layer{index:02d}_{name}", float(value), smoothing_hint=False
                )
        gradients = [
            parameter.grad.abs().mean()
            for parameter in self.supernet.thresholds.parameters()
            if parameter.grad is not None
        ]
        if gradients:
            mean = float(torch.stack(gradients).mean())
            storage.put_scalar("search/threshold_gradient", mean, smoothing_hint=False)

    @torch.no_grad()
    def choices(self, target: float) -> list[Choice]:
        """The network that the search would end with now.

        Args:
            target: runtime to select at; 0 takes the supernet's own decisions.
        """
        node = self.cfg.SEARCH
        if not target:
            return self.supernet.choices()
        return select_at_target(
            self.space,
            self.runtime_model,
            self.supernet.relaxed_decisions(),
            target,
            node.TOLERANCE,
            node.SELECTION,
        )

    def found(self, target: float) -> Architecture:
        """The architecture of :meth:`choices`, with its provenance."""
        return self._described(self.choices(target))

    def _described(self, choices: Sequence[Choice]) -> Architecture:
        node, table = self.cfg.SEARCH, self.runtime_model.table
        runtime = predict_runtime(self.space.architecture(choices, "found"), table)
        provenance = {
            "method": "single-path",
            "config": dict(node),
            "dataset": self.cfg.CLASSIFICATION.DATASET,
            "seed": self.cfg.SEED,
            "iterations": self.iter + 1 if self.iter else self.start_iter,
            "latency_table": table.name,
            "predicted_runtime": round(runtime, 4),
            "unit": table.unit,
        }
        name = f"spnas_{self.space.name}_{runtime:.0f}{table.unit}"
        return self.space.architecture(choices, name, provenance)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Accuracy of the network found, after estimating its batch-norm statistics."""
        architecture, network, scores = self._judged(self.found(self.cfg.SEARCH.TARGET))
        if self.complete:
            further = {"family": self._family(), "samples": self._samples()}
            self._finish(architecture, network, scores, further)
        return {"val": scores, "found": {"runtime": architecture.provenance["predicted_runtime"]}}

    def evaluate_only(self) -> None:
        """Accuracy of the network that a search ended with, or would end with now.

        The search is the one in ``OUTPUT_DIR``, else the supernet in ``MODEL.WEIGHTS``.

        Raises:
            UserError: if there is neither.
        """
        if not (self.cfg.MODEL.WEIGHTS or self.checkpointer.has_checkpoint()):
            raise UserError(
                f"--eval-only: there is no search in OUTPUT_DIR '{self.output_dir}'; name the "
                "folder of one, or the model_final.pth of one as MODEL.WEIGHTS"
            )
        self.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=True)
        self.evaluate()

    def _family(self) -> list[dict[str, Any]]:
        """The networks of ``SEARCH.FAMILY``, exported."""
        rows = []
        for target in self.cfg.SEARCH.FAMILY:
            found = self._judged(self.found(target))
            rows.append(self._export(*found, Path(self.output_dir, "family", f"{target:g}")))
        return rows

    def _samples(self) -> list[dict[str, Any]]:
        """Networks drawn from the decisions' distribution (intra-run samples of Sec. VII-A)."""
        rng = random.Random(self.cfg.SEED)
        rows = []
        for index in range(self.cfg.SEARCH.SAMPLES):
            with torch.no_grad():
                choices = sample_decisions(self.space, self.supernet.relaxed_decisions(), rng)
            found = self._judged(self._described(choices))
            rows.append(self._export(*found, Path(self.output_dir, "samples", f"{index:02d}")))
        return rows

    def _judged(
        self, architecture: Architecture
    ) -> tuple[Architecture, nn.Module, dict[str, float]]:
        """A network of the supernet with statistics of its own, and its accuracy."""
        network = self._calibrated(architecture)
        scores = evaluate(network, build_val_loader(self.cfg, self.val_data))
        logger.info(
            "network found: top-1 %.2f %% with the supernet's weights, %.2f %s predicted",
            scores["top1"],
            architecture.provenance["predicted_runtime"],
            self.runtime_model.table.unit,
        )
        return architecture, network, scores

    def _export(
        self, architecture: Architecture, network: nn.Module, scores: dict[str, float], folder: Path
    ) -> dict[str, Any]:
        """Writes a network into a folder; its row of ``results.json``."""
        if comm.is_main_process():
            save_backbone(folder, architecture, network.state_dict())
        choices = self.space.choices_of(architecture)
        return {
            "architecture": architecture.name,
            "layers": [self.space.choice_name(choice) for choice in choices],
            "predicted_runtime": architecture.provenance["predicted_runtime"],
            "val": scores,
        }

    def _calibrated(self, architecture: Architecture) -> nn.Module:
        """The exported network with batch-norm statistics of its own.

        The supernet's statistics are a mixture over all decisions that it made on the way.
        """
        network = export_network(
            self.supernet, self.space.choices_of(architecture), architecture
        ).train()
        batches = self.cfg.SEARCH.CALIBRATION_BATCHES
        if batches:
            loader = build_train_loader(self.cfg, self.train_data, self.max_iter)
            images = (images.to(self.device) for images, _ in islice(loader, batches))
            with torch.no_grad():
                update_bn_stats(network, images, batches)
            _average_statistics(network)
        return network.eval()

    def _finish(
        self,
        architecture: Architecture,
        network: nn.Module,
        scores: dict[str, float],
        further: Mapping[str, list[dict[str, Any]]],
    ) -> None:
        """Exports the network, and writes and prints the results; rank 0 only."""
        table, target = self.runtime_model.table, self.cfg.SEARCH.TARGET
        smallest, largest = runtime_range(self.space, self.runtime_model)
        results = {
            **self._export(architecture, network, scores, Path(self.output_dir)),
            "target_runtime": target or None,
            "runtime_range": [smallest, largest],
            "unit": table.unit,
            "latency_table": table.name,
            **{name: rows for name, rows in further.items() if rows},
        }
        self.write_results({"search": results})
        if not comm.is_main_process():
            return
        choices = self.space.choices_of(architecture)
        logger.info("Searched layers:\n%s", layer_table(self.space, self.runtime_model, choices))
        runtime, against = results["predicted_runtime"], ""
        if target:
            against = f"target {target:g} {table.unit} ({100 * (runtime / target - 1):+.2f} %), "
        logger.info(
            "predicted runtime %.2f %s, %sspace %.2f to %.2f %s, latency table '%s'",
            runtime,
            table.unit,
            against,
            smallest,
            largest,
            table.unit,
            table.name,
        )
        logger.info("Wrote architecture.json and backbone.pth to %s", self.output_dir)


def layer_table(space: SearchSpace, runtime_model: RuntimeModel, choices: Sequence[Choice]) -> str:
    """The searched layers as a text table: shape, type, and runtime."""
    rows = []
    for index, (layer, choice) in enumerate(zip(space.layers, choices, strict=True)):
        position = space.choices(layer).index(choice)
        runtime = runtime_model.choice_runtimes(index)[position]
        shape = f"{layer.in_channels} → {layer.out_channels}"
        rows.append([index + 1, shape, layer.stride, space.choice_name(choice), f"{runtime:.2f}"])
    headers = ["layer", "channels", "stride", "MBConv", runtime_model.table.unit]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _average_statistics(network: nn.Module) -> None:
    """In several processes, averages the batch-norm statistics that each one estimated."""
    if comm.get_world_size() == 1:
        return
    for name, buffer in network.named_buffers():
        if "running_" in name:
            torch.distributed.all_reduce(buffer)
            buffer /= comm.get_world_size()
