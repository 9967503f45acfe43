"""One search, whatever its formulation."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode

from backbones.errors import UserError
from detection.recipe import check_search
from search.runs.classification import SearchTrainer
from search.runs.detector import DetectorSearchTrainer
from search.runs.detector_backbone import searches_detector
from search.runs.formulations.registry import formulation_of


def run_search(
    cfg: CfgNode,
    resume: bool = False,
    eval_only: bool = False,
    ending: Callable[[], object] | None = None,
) -> None:
    """Searches as ``cfg.SEARCH`` says and leaves the network found in ``cfg.OUTPUT_DIR``.

    Args:
        cfg: the configuration, with the keys of ``add_search_config``.
        resume: continue from the last checkpoint in ``cfg.OUTPUT_DIR``.
        eval_only: do not train; judge the supernet of ``MODEL.WEIGHTS``, or of the folder.
        ending: called at the end of the training of a supernet, while W&B's run is open.

    Raises:
        UserError: for a mistake in the configuration.
    """
    check_search(cfg)
    if searches_detector(cfg):
        if eval_only:
            raise UserError(
                "--eval-only judges a supernet on classification; a detector is evaluated by "
                "spnas train --eval-only, with the architecture.json that the search left"
            )
        search = DetectorSearchTrainer(cfg)
        search.ending = ending
        search.resume_or_load(resume=resume)
        search.train()
        return

    def on_supernet(cfg: CfgNode) -> SearchTrainer:
        trainer = SearchTrainer(cfg)
        trainer.ending = ending
        return trainer

    formulation_of(cfg).run(cfg, on_supernet, resume, eval_only)
