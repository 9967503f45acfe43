"""Where in a checkpoint the weights are: containers, averaged weights, prefixes of wrappers."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from backbones.errors import UserError, first_of
from backbones.weights import StateDict

logger = logging.getLogger(__name__)

_CONTAINERS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "module",
               "student", "backbone", "encoder", "params", "weights", "state")  # fmt: skip
"""Keys under which programs keep weights, the first that is there being taken."""

_EMA = re.compile(r"(?:^|[^a-z])(?:ema|averaged|swa)(?:[^a-z]|$)")
_OTHER_STATES = re.compile(r"optim|sched|scaler|amp|callback|hyper|param_groups|criterion|loss|rng")
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Components of names that only wrappers have, wherever they stand."""

_MAX_DEPTH = 4

ROOTS = {
    "stem.conv.weight": "spnas",
    "conv_stem.weight": "timm",
    "features.0.0.weight": "torchvision",
    "layers.0.weight": "torchvision",  # MNASNet
    "_conv_stem.weight": "efficientnet-pytorch",
    "features.init_block.conv.weight": "pytorchcv",
    "features.init_block.conv1.conv.weight": "pytorchcv",  # SPNASNet
}
"""The first tensor of a network, and which library calls it so."""


def library_of(state: Mapping[str, Tensor]) -> str | None:
    """Which library's names the tensors have (``spnas`` for this project's); None if none's."""
    return next((library for name, library in ROOTS.items() if name in state), None)


def model_state(content: Mapping[str, Any], where: str) -> StateDict:
    """The model's tensors of a checkpoint, in whatever container they are.

    Averaged weights (``state_dict_ema``, ``model_ema``, …) are taken where there are some; one
    line of the log says so. The exception is a checkpoint of this project's own trainer, whose
    ``model`` is the one to go on from. Half precision becomes single.

    Args:
        content: of the file, as :func:`backbones.weights.read_checkpoint` returns it.
        where: the file, for messages.

    Raises:
        UserError: if there are no tensors by name, or several containers that could be meant.
    """
    state = _live_state(content, where)
    for key in () if _is_own(content) else filter(_is_averaged, content):
        if not isinstance(content[key], Mapping) or _OTHER_STATES.search(key.lower()):
            continue
        if averaged := _inside(content[key]):
            state = _completed(averaged, state)
            logger.info("'%s': the averaged weights under '%s' are taken", where, key)
            break
        logger.warning("'%s': '%s' holds no tensors by name: it is left out", where, key)
    if not state:
        raise UserError(f"the checkpoint '{where}' holds no model weights (tensors by name)")
    return {name: _single(value) for name, value in state.items()}


def network_state(state: Mapping[str, Tensor], where: str) -> StateDict:
    """The tensors of the one network in ``state``, without the prefix that a wrapper gave them.

    The network is found by the name of its first tensor; averaged weights
    (``ema_model.module.…``) are preferred. What else there is, such as a loss with weights or the
    rest of a detector, is left out, and one line of the log says so.

    Args:
        state: tensors by name.
        where: the file, for messages.

    Returns:
        ``state`` itself where nothing is to be done.

    Raises:
        UserError: if several networks could be meant.
    """
    names = _without_wrappers(state)
    prefixes = {
        name.removesuffix(root)
        for name in names
        for root in ROOTS
        if name == root or name.endswith(f".{root}")
    }
    prefixes = {
        prefix
        for prefix in prefixes
        if not any(prefix != outer and prefix.startswith(outer) for outer in prefixes)
        or _is_averaged(prefix)
    }
    averaged = {prefix for prefix in prefixes if _is_averaged(prefix)}
    chosen = sorted(averaged or prefixes)
    if len(chosen) > 1:
        raise UserError(
            f"the checkpoint '{where}' holds {len(chosen)} networks, under {first_of(chosen)}; "
            "save the one that you mean alone: torch.save(network.state_dict(), 'weights.pth')"
        )
    if averaged and len(prefixes) > 1:
        logger.info("'%s': the averaged weights under '%s' are taken", where, chosen[0])
    return below(state, chosen[0] if chosen else "", where)


def below(state: Mapping[str, Tensor], prefix: str, where: str) -> StateDict:
    """The tensors whose names begin with ``prefix``, without it and without wrappers' marks.

    The first of the others are named in one line of the log.

    Returns:
        ``state`` itself where nothing is to be done.
    """
    names = _without_wrappers(state)
    if not prefix and list(names) == list(state):
        return state if isinstance(state, dict) else dict(state)
    if others := [name for name in names if not name.startswith(prefix)]:
        logger.info(
            "'%s': the network is under '%s'; %d other tensors are left out: %s",
            where,
            prefix,
            len(others),
            first_of(others),
        )
    return {
        name.removeprefix(prefix): state[full]
        for name, full in names.items()
        if name.startswith(prefix)
    }


def prefix_for(names: Iterable[str], expected: Iterable[str]) -> str | None:
    """The prefix under which most of the ``expected`` names are; None if none of them is there.

    It is one of the names without the marks of wrappers, as :func:`below` takes it.
    """
    wanted = [f".{name}" for name in expected if not name.endswith("num_batches_tracked")]
    ends: dict[str, list[str]] = {}
    for end in wanted:
        ends.setdefault(end.rpartition(".")[2], []).append(end)
    counts: dict[str, int] = {}
    for name in _without_wrappers(names):
        full = f".{name}"
        for end in ends.get(full.rpartition(".")[2], ()):
            if full.endswith(end):
                prefix = full.removesuffix(end)[1:]
                counts[prefix] = counts.get(prefix, 0) + 1
    if not counts:
        return None
    best = max(sorted(counts), key=lambda prefix: (_is_averaged(prefix), counts[prefix]))
    return f"{best}." if best else ""


def _tensors(content: Mapping[Any, Any]) -> StateDict:
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def _is_averaged(name: Any) -> bool:
    return isinstance(name, str) and bool(_EMA.search(name.lower()))


def _is_own(content: Mapping[str, Any]) -> bool:
    """Whether a trainer of this project wrote the file."""
    model = content.get("model")
    return "iteration" in content and isinstance(model, Mapping) and "stem.conv.weight" in model


def _live_state(content: Mapping[str, Any], where: str) -> StateDict:
    """The weights that are not averaged: in a container of a usual name, else at top level."""
    inside = {
        key: state
        for key, value in content.items()
        if isinstance(key, str)
        and not (_is_averaged(key) or _OTHER_STATES.search(key.lower()))
        and (state := _inside(value))
    }
    for key in _CONTAINERS:
        if key in inside:
            return inside[key]
    if (state := _tensors(content)) or not inside:
        return state
    if len(inside) > 1:
        raise UserError(
            f"the checkpoint '{where}' holds weights under {first_of(list(inside))}; save those "
            "that you mean alone, under 'state_dict'"
        )
    return next(iter(inside.values()))


def _inside(content: Any, depth: int = 1) -> StateDict:
    """The tensors by name in a container, which may hold another; empty if there are none."""
    if not isinstance(content, Mapping) or depth > _MAX_DEPTH:
        return {}
    found = _tensors(content)
    if any(value.dim() for value in found.values()):
        return found
    inner = [
        value
        for key, value in content.items()
        if isinstance(key, str) and not _OTHER_STATES.search(key.lower())
    ]
    states = [state for value in inner if (state := _inside(value, depth + 1))]
    return states[0] if len(states) == 1 else found


def _completed(averaged: StateDict, state: StateDict) -> StateDict:
    """Averaged parameters with what was not averaged, such as the statistics of batch norms."""
    ours, theirs = _without_wrappers(averaged), _without_wrappers(state)
    ours = {name.removeprefix("module."): full for name, full in ours.items()}
    theirs = {name.removeprefix("module."): full for name, full in theirs.items()}
    if not set(ours) < set(theirs):
        return averaged
    return {
        name: averaged[ours[name]] if name in ours else state[full] for name, full in theirs.items()
    }


def _without_wrappers(state: Iterable[str]) -> dict[str, str]:
    """Names in the file by their names without the components that only wrappers have."""
    names = list(state)
    plain = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names]
    return dict(zip(plain if len(set(plain)) == len(names) else names, names, strict=True))


def _single(value: Tensor) -> Tensor:
    """A tensor in single precision if it is in half or less."""
    if value.is_quantized:
        return value  # named where it is loaded
    return value.float() if value.is_floating_point() and value.element_size() < 4 else value
