"""Weights of the same network in another library, matched by names and shapes.

timm, torchvision, pytorchcv and others call the modules of a network differently. Two modules are
the same one if they have the same shapes and, among those of these shapes, the same place in the
order of computing. That order is read from the names; where it takes more than they tell, the
weights are refused rather than guessed, in whatever order the file has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cmp_to_key
from itertools import pairwise

import torch
from torch import Tensor

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.naming import ModuleOrder
from backbones.network import build_classifier
from backbones.weights import StateDict

_COUNTER = "num_batches_tracked"

Modules = dict[str, dict[str, Tensor]]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def convert_weights(
    architecture: Architecture,
    state: Mapping[str, Tensor],
    norm_eps: float | None = None,
    where: str = "the weights",
) -> StateDict:
    """Renames the tensors of another library's network of the same architecture.

    Args:
        architecture: of the network; its own names are the result's.
        state: the tensors by their names there, in any order.
        norm_eps: epsilon of that network's batch norms, where it is not the architecture's. The
            norms' scales are adapted, so that in eval mode the function stays the same.
        where: named in error messages, e.g. the file.

    Returns:
        The tensors of a ``Classifier`` with as many classes as ``state`` has; without the head
        where ``state`` ends with the last layer.

    Raises:
        UserError: naming the first module that does not fit, or two whose order is unknown.
    """
    theirs = _modules(state)
    ours, pairs = _matched(architecture, theirs, where)
    converted: StateDict = {}
    for name, module in ours.items():
        other = theirs[pairs[name]]
        if norm_eps is not None and "running_var" in other:
            other = _with_eps(other, norm_eps, architecture.norm_eps)
        for parameter, value in other.items():
            converted[f"{name}.{parameter}"] = value.reshape(module[parameter].shape)
    return converted


def convert_back(
    architecture: Architecture,
    state: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    norm_eps: float | None = None,
) -> StateDict:
    """The reverse of :func:`convert_weights`: our tensors by another library's names.

    Args:
        architecture: of the network.
        state: its tensors by our names.
        theirs: the tensors of that library's network, for their names and shapes.
        norm_eps: as of :func:`convert_weights`.

    Raises:
        UserError: as of :func:`convert_weights`.
    """
    own, others = _modules(state), _modules(theirs)
    _, pairs = _matched(architecture, others, "the other network")
    converted: StateDict = {}
    for name, other in pairs.items():
        module = own[name]
        if norm_eps is not None and "running_var" in module:
            module = _with_eps(module, architecture.norm_eps, norm_eps)
        for parameter, like in others[other].items():
            converted[f"{other}.{parameter}"] = module[parameter].reshape(like.shape)
    return converted


def _matched(
    architecture: Architecture, theirs: Modules, where: str
) -> tuple[Modules, dict[str, str]]:
    """The network's modules, and by the name of each that of the same module there."""
    order = ModuleOrder(theirs)
    ours = _own_modules(architecture, theirs)
    if Counter(map(_key, ours.values())) != Counter(map(_key, theirs.values())):
        raise _mismatch(architecture, ours, _in_order(theirs, order), where)
    pairs = _pairs(ours, theirs, order, where)
    _check_order(architecture, ours, pairs, order, where)
    return ours, pairs


def _modules(state: Mapping[str, Tensor]) -> Modules:
    """Tensors by the module that holds them, in order."""
    modules: Modules = {}
    for name, value in state.items():
        module, _, parameter = name.rpartition(".")
        modules.setdefault(module, {})[parameter] = value
    return modules


def _own_modules(architecture: Architecture, theirs: Modules) -> Modules:
    """The network's modules by our names, with as much of its end as the other one has."""
    with torch.device("meta"):
        network = build_classifier(architecture, 0)
        ours = _modules(network.state_dict())
        counts = Counter(map(_key, theirs.values()))
        left = [dict(key) for key in counts - Counter(map(_key, ours.values()))]
        for shapes in left:
            weight = shapes.get("weight", ())
            if set(shapes) == {"weight", "bias"} and weight[1:] == (network.head_hidden_size,):
                return _modules(build_classifier(architecture, weight[0]).state_dict())
    trunk = {name: module for name, module in ours.items() if name.startswith(("stem.", "layers."))}
    return trunk if len(theirs) == len(trunk) else ours


def _pairs(ours: Modules, theirs: Modules, order: ModuleOrder, where: str) -> dict[str, str]:
    """Their name by ours: the k-th of all modules with the same shapes."""
    pairs: dict[str, str] = {}
    alike: dict[Shapes, list[str]] = {}
    for name, module in theirs.items():
        alike.setdefault(_key(module), []).append(name)
    for shapes, names in alike.items():
        for index, name in enumerate(names):
            for other in names[:index]:
                if order.before(name, other) is None:
                    raise UserError(
                        f"{where}: '{other}' and '{name}' both have the shapes {dict(shapes)}, and "
                        "their names do not tell which comes first; expected the names of timm, "
                        "torchvision or this project, or numbers in the order of computing"
                    )
        mine = [name for name, module in ours.items() if _key(module) == shapes]
        pairs.update(zip(mine, _sorted(names, order), strict=True))
    return pairs


def _check_order(
    architecture: Architecture,
    ours: Modules,
    pairs: Mapping[str, str],
    order: ModuleOrder,
    where: str,
) -> None:
    """Checks that neighbours here are not the other way round there.

    Raises:
        UserError: naming them, where they are.
    """
    names = list(ours)
    for name, after in pairwise(names):
        if order.before(pairs[name], pairs[after]) is False:
            raise UserError(
                f"{where}: '{pairs[after]}' comes before '{pairs[name]}', but by its shapes it is "
                f"'{after}', which comes after '{name}' in architecture '{architecture.name}'; "
                "they are not the same network"
            )


def _sorted(names: list[str], order: ModuleOrder) -> list[str]:
    """By order, and as they are where it is unknown."""

    def compare(first: str, second: str) -> int:
        before = order.before(first, second)
        return 0 if before is None else -1 if before else 1

    return sorted(names, key=cmp_to_key(compare))


def _in_order(modules: Modules, order: ModuleOrder) -> Modules:
    return {name: modules[name] for name in _sorted(list(modules), order)}


def _mismatch(architecture: Architecture, ours: Modules, theirs: Modules, where: str) -> UserError:
    """What to say of two networks that differ: how many modules, and the first tensors that do."""
    counts = f"{len(theirs)} modules with weights, architecture '{architecture.name}' has "
    differing = [
        f"{other_name}.{parameter} is {_text(other, parameter)}, {name}.{parameter} in "
        f"architecture '{architecture.name}' {_text(module, parameter)}"
        for (name, module), (other_name, other) in zip(ours.items(), theirs.items(), strict=False)
        for parameter in {**_shapes(module), **_shapes(other)}
        if _text(module, parameter) != _text(other, parameter)
    ]
    found = [f"{counts}{len(ours)}"] if len(theirs) != len(ours) else []
    found += [f"first that differ: {'; '.join(differing[:2])}"] if differing else []
    return UserError(f"{where}: {'; '.join(found)}; they are not the same network")


def _text(module: Mapping[str, Tensor], parameter: str) -> str:
    return "×".join(map(str, _shapes(module).get(parameter, ("absent",))))


def _key(module: Mapping[str, Tensor]) -> Shapes:
    return tuple(sorted(_shapes(module).items()))


def _shapes(module: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by parameter; a 1×1 convolution has the shape of the linear layer that it is."""
    return {
        name: tuple(value.shape[:2] if value.shape[2:] == (1, 1) else value.shape)
        for name, value in module.items()
        if name != _COUNTER
    }


def _with_eps(norm: Mapping[str, Tensor], eps: float, wanted: float) -> dict[str, Tensor]:
    """A batch norm's tensors for another epsilon: w/√(v + ε) stays what it was."""
    variance = norm["running_var"]
    scale = ((variance + wanted) / (variance + eps)).sqrt()
    return {**norm, "weight": norm["weight"] * scale}
