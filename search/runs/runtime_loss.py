"""The second term of every search's loss, λ·log(runtime) (Eq. 10), and what is logged of it."""

from __future__ import annotations

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from search.selection.runtime import RuntimeModel
from search.selection.tradeoff import FixedTradeOff, TargetTradeOff
from search.space import SearchSpace
from search.supernets.decisions import Decision
from search.supernets.one_shot import OneShot


def runtime_loss(
    supernet: OneShot,
    runtime_model: RuntimeModel,
    tradeoff: FixedTradeOff | TargetTradeOff,
    progress: float,
) -> Tensor:
    """λ times the logarithm of the runtime of what the supernet has decided in this step.

    Args:
        supernet: after its forward pass.
        runtime_model: of its space.
        tradeoff: sets λ.
        progress: of the search, from 0 to 1.

    Returns:
        A scalar.
    """
    runtime = runtime_model(supernet.decisions)
    with torch.no_grad():
        relaxed = float(runtime_model(supernet.confidence))
    weight = tradeoff.update(relaxed, progress)
    get_event_storage().put_scalars(
        **{
            "search/lambda": weight,
            "search/runtime": float(runtime.detach()),
            "search/relaxed_runtime": relaxed,
        },
        smoothing_hint=False,
    )
    return weight * runtime.log()


@torch.no_grad()
def log_decisions(supernet: OneShot, space: SearchSpace) -> None:
    """How sure every option of every layer is, and how strong the thresholds' gradients."""
    storage = get_event_storage()
    for index, decision in enumerate(supernet.relaxed_decisions(), start=1):
        if isinstance(decision, Decision):
            values = {
                "keep": decision.keep,
                "kernel": decision.kernel[-1],
                "expansion": decision.expansion[-1],
                "se": 1 - decision.se[0],
            }
        else:
            names = [str(space.choice_type(c)) for c in space.choices(space.layers[index - 1])]
            values = dict(zip(names, decision.paths, strict=True))
        for name, value in values.items():
            storage.put_scalar(
                f"decisions/layer{index:02d}_{name}", float(value), smoothing_hint=False
            )
    gradients = [
        parameter.grad.abs().mean()
        for parameter in supernet.decision_parameters()
        if parameter.grad is not None
    ]
    if gradients:
        mean = float(torch.stack(gradients).mean())
        storage.put_scalar("search/threshold_gradient", mean, smoothing_hint=False)
