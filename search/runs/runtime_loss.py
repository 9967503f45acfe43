"""The second term of every search's loss, λ·log(runtime) (Eq. 10), and what is logged of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor

from detection.engine.precision import StepScaler
from detection.engine.random_state import seed_of_key
from detection.engine.replicas import check_same
from search.selection.runtime import RuntimeModel
from search.selection.tradeoff import FixedTradeOff, TargetTradeOff
from search.space import SearchLayer, SearchSpace
from search.supernets.decisions import Decisions, LayerDecision, PathWeights
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
        relaxed = runtime_model(supernet.confidence)
        weight = tradeoff.update(relaxed, progress)
    budget = {}
    if isinstance(tradeoff, TargetTradeOff):
        budget["search/budget"] = tradeoff.budget(progress)
    get_event_storage().put_scalars(
        **{
            **budget,
            "search/lambda": weight,
            "search/runtime": runtime,
            "search/relaxed_runtime": relaxed,
        },
        smoothing_hint=False,
    )
    # λ is in double precision
    return (weight * runtime.log()).to(runtime.dtype)


@contextlib.contextmanager
def unmoved_if_skipped(
    tradeoff: FixedTradeOff | TargetTradeOff, scaler: StepScaler
) -> Iterator[None]:
    """Puts λ's controller back behind a step that loss scaling skips: it saw what nothing learned.

    Args:
        tradeoff: the controller.
        scaler: which takes the step, or not.
    """
    before = dict(vars(tradeoff))  # whose tensors are never changed in place
    yield
    if not scaler.taken:
        vars(tradeoff).update(before)


def seed_draws(supernet: OneShot, seed: int, iteration: int) -> None:
    """Makes what the next step draws to decide depend on seed and iteration alone."""
    supernet.draw_seed = seed_of_key(f"{seed} {iteration} decisions")


def search_note(tradeoff: FixedTradeOff | TargetTradeOff, unit: str) -> str:
    """Runtime of the relaxed decisions, budget, target and λ, for a line of progress.

    Empty where the formulation has no runtime in its loss.

    Args:
        tradeoff: of the search.
        unit: of the latency table.
    """
    latest = get_event_storage().latest()
    if "search/lambda" not in latest:
        return ""
    note = f"runtime: {latest['search/relaxed_runtime'][0]:.4g} {unit}"
    if isinstance(tradeoff, TargetTradeOff):
        note += f" (budget {latest['search/budget'][0]:.4g}, target {tradeoff.target:g})"
    return f"{note}  lambda: {latest['search/lambda'][0]:.3g}"


def check_decisions(supernet: OneShot) -> None:
    """Insists on the same decisions in all processes: their parameters, and those of this step.

    Raises:
        UserError: if they differ.
    """
    drawn = [weights for decision in supernet.drawn for weights in vars(decision).values()]
    check_same("the decisions", [*supernet.decision_parameters(), *drawn])


@torch.no_grad()
def log_decisions(supernet: OneShot, space: SearchSpace) -> None:
    """How sure every option of every layer is, and how strong the thresholds' gradients."""
    storage = get_event_storage()
    decisions = supernet.relaxed_decisions()
    if isinstance(decisions, Decisions):
        decisions = decisions.cpu()  # at once
    for index, decision in enumerate(decisions, start=1):
        for name, value in _weights(decision, space, space.layers[index - 1]).items():
            storage.put_scalar(f"decisions/layer{index:02d}_{name}", value, smoothing_hint=False)
    gradient = supernet.decision_gradient()
    if gradient is not None:
        storage.put_scalar("search/threshold_gradient", gradient, smoothing_hint=False)


def _weights(decision: LayerDecision, space: SearchSpace, layer: SearchLayer) -> dict[str, float]:
    """The weight of every option (``kernel_3``, ``expansion_6``, ``se_0.25``, ``keep``) or path."""
    if isinstance(decision, PathWeights):
        names = [str(space.choice_type(choice)) for choice in space.choices(layer)]
        return dict(zip(names, decision.paths.tolist(), strict=True))
    weights = {"keep": float(decision.keep)}
    for group, options, values in (
        ("kernel", space.kernel_sizes, decision.kernel),
        ("expansion", space.expansions, decision.expansion),
        ("se", space.se_ratios, decision.se),
    ):
        names = [f"{group}_{option:g}" for option in options]
        weights.update(zip(names, values.tolist(), strict=True))
    return weights
