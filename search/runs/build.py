"""Tables, runtime models and trade-offs as ``cfg.SEARCH`` describes them."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode

from backbones.errors import UserError
from backbones.latency import LatencyTable
from detection.engine.random_state import seeded
from search.profiling.counting import load_table
from search.selection.runtime import RUNTIME_MODELS, RuntimeModel
from search.selection.target import check_target
from search.selection.tradeoff import FixedTradeOff, TargetTradeOff
from search.space import SearchSpace

logger = logging.getLogger(__name__)


def build_latency_table(cfg: CfgNode, space: SearchSpace) -> LatencyTable:
    """The table that ``cfg.SEARCH`` names, measured or counted.

    Raises:
        UserError: if there is none of that name, or it is for another image size.
    """
    height, width = cfg.SEARCH.DEPLOY_SIZE
    with seeded(cfg.SEED):  # counting builds networks, the first time in a process alone
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
    table = build_latency_table(cfg, space)
    if table.warning:
        logger.warning("%s; what is searched on it is no better", table.caution)
    return RUNTIME_MODELS[name](space, table)


def check_targets(cfg: CfgNode, runtime_model: RuntimeModel) -> None:
    """Insists on networks of the space at ``SEARCH.TARGET`` and at those of ``SEARCH.FAMILY``.

    Raises:
        UserError: naming the key.
    """
    if cfg.SEARCH.TARGET:
        check_target(runtime_model.space, runtime_model, cfg.SEARCH.TARGET)
    for target in cfg.SEARCH.FAMILY:
        check_target(runtime_model.space, runtime_model, target, "SEARCH.FAMILY")


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
