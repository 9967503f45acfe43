"""Random search: draws networks at the target, trains each for a few epochs, keeps the best.

Sec. VII-A: drawing networks costs nothing, choosing among them does. Here all candidates together
cost what one single-path search costs, counted in multiply-accumulates of training.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import Subset

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import save_backbone
from backbones.files import write_atomic
from backbones.latency import predict_runtime
from backbones.states import model_state
from backbones.weights import read_checkpoint
from detection.engine.random_state import seeded
from detection.engine.results import results_part, write_results
from detection.engine.reuse import check_same_network, check_same_run
from search.classification.classifier import ClassifierTrainer
from search.classification.data import build_dataset, split_images
from search.profiling.counting import load_table
from search.runs.build import build_runtime_model
from search.runs.formulations.base import Formulation, SupernetRun
from search.runs.found import found_row, search_results
from search.selection.runtime import RuntimeModel
from search.selection.sampling import sample_at_target
from search.space import SearchSpace
from search.start.seed import search_space

logger = logging.getLogger(__name__)

_WAY_OUT = "name another OUTPUT_DIR"


@dataclass(frozen=True)
class RandomSearch(Formulation):
    """Trains no supernet: draws ``SEARCH.CANDIDATES`` networks and trains each for a few epochs."""

    kind = "random"
    schedule = "every network drawn for a few epochs, all at the cost of one search"

    def run(
        self,
        cfg: CfgNode,
        on_supernet: Callable[[CfgNode], SupernetRun],
        resume: bool,
        eval_only: bool,
    ) -> None:
        """Trains the candidates that are not trained yet, with ``resume`` or without."""
        if eval_only:
            raise UserError(
                "--eval-only judges a trained supernet; SEARCH.FORMULATION "
                f"'{cfg.SEARCH.FORMULATION}' has none"
            )
        if cfg.SEARCH.START:
            raise UserError(
                f"SEARCH.START is '{cfg.SEARCH.START}', but SEARCH.FORMULATION "
                f"'{cfg.SEARCH.FORMULATION}' trains its networks from nothing; leave it empty, or "
                "choose another formulation, such as sensitivity"
            )
        run_random_search(cfg)


class CandidateTrainer(ClassifierTrainer):
    """Trains on the training images that are not held out, and is judged on those that are."""

    def datasets(self) -> tuple[Any, Any]:
        """Both are parts of the training images: the choice must not see the validation images."""
        augmented, _ = super().datasets()
        kept, held_out = split_images(self.cfg, len(augmented))
        plain = build_dataset(self.cfg, "train", augment=False, images=self.images)
        return Subset(augmented, kept), Subset(plain, held_out)


def draw_candidates(cfg: CfgNode, space: SearchSpace, model: RuntimeModel) -> list[Architecture]:
    """``SEARCH.CANDIDATES`` networks within the tolerance below ``SEARCH.TARGET``.

    Raises:
        UserError: if there is no target, or no network there.
    """
    node = cfg.SEARCH
    if not node.TARGET or node.CANDIDATES < 1:
        raise UserError(
            f"SEARCH.TARGET is {node.TARGET:g} and SEARCH.CANDIDATES {node.CANDIDATES}; a random "
            "search needs a runtime above 0 and 1 or more candidates"
        )
    rng = random.Random(cfg.SEED)
    drawn = []
    for index in range(node.CANDIDATES):
        choices = sample_at_target(space, model, node.TARGET, rng, node.TOLERANCE)
        runtime = predict_runtime(space.architecture(choices, "drawn"), model.table)
        provenance = {
            "method": "random",
            "config": dict(cfg.SEARCH),
            "seed": cfg.SEED,
            "latency_table": model.table.name,
            "predicted_runtime": round(runtime, 4),
            "unit": model.table.unit,
        }
        drawn.append(space.architecture(choices, f"random{cfg.SEED}_{index}", provenance))
    return drawn


def candidate_epochs(cfg: CfgNode, space: SearchSpace, network: Architecture) -> float:
    """Epochs for one candidate, such that all of them cost one search.

    A search of ``CLASSIFICATION.EPOCHS`` costs what training the largest network costs, and a
    smaller network trains longer at that price, over the images that are not held out.
    """
    macs = load_table("macs", space, (cfg.CLASSIFICATION.INPUT_SIZE,) * 2)
    ratio = predict_runtime(space.largest(), macs) / predict_runtime(network, macs)
    share = cfg.CLASSIFICATION.EPOCHS / cfg.SEARCH.CANDIDATES
    return share * ratio / (1 - cfg.SEARCH.HELD_OUT)


def candidate_config(
    cfg: CfgNode, space: SearchSpace, network: Architecture, folder: Path
) -> CfgNode:
    """The configuration that a candidate is trained by, in ``folder``."""
    epochs = candidate_epochs(cfg, space, network)
    candidate = cfg.clone()
    candidate.defrost()
    candidate.OUTPUT_DIR = str(folder)
    candidate.WANDB.ENABLED = False
    candidate.CLASSIFICATION.EPOCHS = epochs
    candidate.SOLVER.WARMUP_EPOCHS *= epochs / cfg.CLASSIFICATION.EPOCHS
    candidate.MODEL.SPNAS.ARCH = str(folder / "candidate.json")
    return candidate


def run_random_search(cfg: CfgNode) -> None:
    """Trains the candidates and exports the best; what is done already is not done again.

    Raises:
        UserError: if the folder holds candidates of another configuration.
    """
    space = search_space(cfg)
    model = build_runtime_model(cfg, space)
    output = Path(cfg.OUTPUT_DIR)
    rows = []
    for index, network in enumerate(draw_candidates(cfg, space, model)):
        folder = output / "candidates" / f"{index:02d}"
        scores = _candidate_scores(cfg, space, network, folder)
        rows.append({**found_row(space, network), "held_out": scores})
    best = min(range(len(rows)), key=lambda index: rows[index]["held_out"]["loss"])
    if not comm.is_main_process():
        return
    file = output / "candidates" / f"{best:02d}" / "backbone.pth"
    network = Architecture.load(file.with_name("architecture.json"))
    save_backbone(output, network, model_state(read_checkpoint(str(file)), str(file)))
    found = search_results(model, cfg.SEARCH, rows[best], {"candidates": rows})
    write_results(output, {"search": found})
    logger.info("Wrote the best of %d candidates to %s", len(rows), output)


def _candidate_scores(
    cfg: CfgNode, space: SearchSpace, network: Architecture, folder: Path
) -> dict[str, float]:
    candidate = candidate_config(cfg, space, network, folder)
    check_same_run(folder, candidate, _WAY_OUT)
    check_same_network(folder / "candidate.json", network, _WAY_OUT)
    comm.synchronize()
    if results_part(folder, CandidateTrainer.part) is None:
        if comm.is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / "config.yaml", candidate.dump())
            network.save(folder / "candidate.json")
        comm.synchronize()
        # each from the seed: the same whether or not others were trained before in this process
        with seeded(cfg.SEED):
            trainer = CandidateTrainer(candidate)
            trainer.resume_or_load("", resume=True)
            trainer.train()
        comm.synchronize()
    scores: dict[str, float] = results_part(folder, CandidateTrainer.part)["val"]
    return scores
