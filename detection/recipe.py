"""What a configuration's recipe has to be: its solver, its evaluations, and the best of them."""

from __future__ import annotations

import math

from detectron2.config import CfgNode

from backbones.errors import UserError
from detection.engine.best import check_best_keys
from detection.engine.precision import Precision
from detection.modeling.meta_arch import evaluated_tasks
from detection.scoring import METRICS
from detection.validation import VALIDATION_LOSS

OPTIMIZERS = ("SGD", "AdamW")


def best_metric(cfg: CfgNode) -> str:
    """``SOLVER.BEST_METRIC`` as evaluations call it: of the first of several test sets."""
    metric, tests = str(cfg.SOLVER.BEST_METRIC), cfg.DATASETS.TEST
    if len(tests) < 2 or metric.startswith(("validation_", *(f"{name}/" for name in tests))):
        return metric
    return metric and f"{tests[0]}/{metric}"


def check_evaluations(cfg: CfgNode) -> None:
    """Insists on evaluations that can find what is asked of them.

    Raises:
        UserError: naming the key.
    """
    period, metric = cfg.TEST.EVAL_PERIOD, cfg.SOLVER.BEST_METRIC
    if period < 0:
        raise UserError(
            f"TEST.EVAL_PERIOD is {period}; expected iterations, or 0 for the end alone"
        )
    for key, wanted in (
        ("TEST.VALIDATION_LOSS", cfg.TEST.VALIDATION_LOSS),
        ("BEST_METRIC", metric),
    ):
        if wanted and not cfg.DATASETS.TEST:
            raise UserError(
                f"{key} is {wanted}, but DATASETS.TEST is empty; name a data set to evaluate on"
            )
    evaluates = 0 < period < cfg.SOLVER.MAX_ITER
    patience = cfg.SOLVER.EARLY_STOPPING.PATIENCE
    check_best_keys(metric, patience, "TEST.EVAL_PERIOD", evaluates)
    if metric.startswith(VALIDATION_LOSS):
        if not cfg.TEST.VALIDATION_LOSS:
            raise UserError(
                f"SOLVER.BEST_METRIC is '{metric}', but TEST.VALIDATION_LOSS is False; set it to "
                "True"
            )
    elif metric:
        _check_score(cfg, metric)


def _check_score(cfg: CfgNode, metric: str) -> None:
    tasks = evaluated_tasks(cfg)
    for name in cfg.DATASETS.TEST:
        metric = metric.removeprefix(f"{name}/")
    task, _, figure = metric.partition("/")
    if tasks is None:  # of a model of one's own nothing is known
        return
    if task not in tasks or not (figure in METRICS or figure.startswith("AP-")):
        examples = ", ".join(f"{known}/AP" for known in tasks)
        raise UserError(
            f"SOLVER.BEST_METRIC is '{cfg.SOLVER.BEST_METRIC}', which this detector is not "
            f"evaluated for; expected one of {examples}, with {', '.join(METRICS)} or AP-<class> "
            "behind the slash, or validation_loss"
        )


def check_solver(cfg: CfgNode) -> None:
    """Insists on values of ``cfg.SOLVER`` that can be trained with.

    Raises:
        UserError: naming the key.
    """
    if cfg.SOLVER.MAX_ITER < 1:
        raise UserError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; expected 1 or more")
    if cfg.SOLVER.OPTIMIZER not in OPTIMIZERS:
        raise UserError(
            f"SOLVER.OPTIMIZER is '{cfg.SOLVER.OPTIMIZER}'; expected one of {', '.join(OPTIMIZERS)}"
        )
    if not 0 < (factor := cfg.SOLVER.BACKBONE_LR_MULT) < math.inf:
        raise UserError(
            f"SOLVER.BACKBONE_LR_MULT is {factor}; expected a factor above 0, such as 0.1; "
            "MODEL.BACKBONE.FREEZE_AT keeps weights as they are"
        )
    Precision.of(cfg)


def check_search(cfg: CfgNode) -> None:
    """Insists on a search that runs to its end: its budget and its decisions depend on it.

    Raises:
        UserError: naming the key.
    """
    node = cfg.SOLVER
    for key, value in (
        ("SOLVER.BEST_METRIC", node.BEST_METRIC),
        ("SOLVER.EARLY_STOPPING.PATIENCE", node.EARLY_STOPPING.PATIENCE),
        ("TEST.VALIDATION_LOSS", cfg.TEST.VALIDATION_LOSS),
    ):
        if value:
            raise UserError(
                f"{key} is {value!r}, which is for the training of one network; a search has the "
                "network found at its end: leave the key at its default"
            )
