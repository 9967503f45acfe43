"""Proposals of a training step whose scores or boxes are not finite, which ends Detectron2's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from detectron2.modeling.proposal_generator import RPN
from torch import Tensor, nn


def propose_in_any_case(model: nn.Module) -> None:
    """Lets a training step go on to its losses, which are not finite either, in all processes.

    Detectron2 raises an error in the middle of the forward pass of one process, for which the
    others would wait; :class:`~detection.engine.nonfinite.SkipNonFinite` skips the step in all.

    Args:
        model: a detector; it is changed. Without a region proposal network nothing happens.
    """
    for module in model.modules():
        if isinstance(module, RPN):
            module.predict_proposals = partial(_propose, module.predict_proposals)


def _propose(
    predict: Any, anchors: Any, logits: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Any
) -> Any:
    """With 0 for what is not finite."""
    finite = [[x.detach().nan_to_num(0, 0, 0) for x in values] for values in (logits, deltas)]
    return predict(anchors, *finite, sizes)
