"""Weights of the same network in another library, matched by position and kind.

timm, torchvision and pytorchcv call the modules of a network differently, but all of them register
them in the order in which they compute, as `Classifier` does: convolution, norm, convolution, …,
classifier. So the k-th module with weights is the same in all of them, and shapes tell a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.network import build_classifier
from backbones.weights import StateDict

_FIRST_TENSORS = {
    "conv_stem.weight": "timm",
    "features.0.0.weight": "torchvision",
    "layers.0.weight": "torchvision",  # MNASNet
    "features.init_block.conv.weight": "pytorchcv",
    "features.init_block.conv1.conv.weight": "pytorchcv",  # SPNASNet
}
_COUNTER = "num_batches_tracked"

Modules = dict[str, dict[str, Tensor]]


def library_of(state: Mapping[str, Tensor]) -> str | None:
    """Which library's network the tensors are of, by the name of the first; None if of none."""
    return next((library for name, library in _FIRST_TENSORS.items() if name in state), None)


def convert_weights(
    architecture: Architecture,
    state: Mapping[str, Tensor],
    norm_eps: float | None = None,
    where: str = "the weights",
) -> StateDict:
    """Renames the tensors of another library's network of the same architecture.

    Args:
        architecture: of the network; its own names are the result's.
        state: the tensors in the order in which that network registers its modules, which is the
            order of its ``state_dict()`` and of the files that ``torch.save`` wrote of it.
        norm_eps: epsilon of that network's batch norms, where it is not the architecture's. The
            norms' scales are adapted, so that in eval mode the function stays the same.
        where: named in error messages, e.g. the file.

    Returns:
        The tensors of a ``Classifier`` with as many classes as ``state`` has.

    Raises:
        UserError: naming the first module that does not fit.
    """
    theirs = _modules(state)
    ours = _own_modules(architecture, num_classes=0)
    if len(theirs) > len(ours):
        classifier = list(theirs.values())[-1].get("weight")
        num_classes = classifier.shape[0] if classifier is not None and classifier.dim() else 0
        ours = _own_modules(architecture, num_classes)
    if len(theirs) != len(ours):
        raise UserError(
            f"{where}: {len(theirs)} modules with weights, architecture '{architecture.name}' has "
            f"{len(ours)}; they are not the same network"
        )
    converted: StateDict = {}
    for (name, module), (other_name, other) in zip(ours.items(), theirs.items(), strict=True):
        shapes, others = _shapes(module), _shapes(other)
        if shapes != others:
            raise UserError(
                f"{where}: {others} at '{other_name}', where architecture '{architecture.name}' "
                f"has {shapes} at '{name}'; they are not the same network"
            )
        if norm_eps is not None and "running_var" in other:
            other = _with_eps(other, norm_eps, architecture.norm_eps)
        for parameter, value in other.items():
            converted[f"{name}.{parameter}"] = value.reshape(module[parameter].shape)
    return converted


def _modules(state: Mapping[str, Tensor]) -> Modules:
    """Tensors by the module that holds them, in order."""
    modules: Modules = {}
    for name, value in state.items():
        module, _, parameter = name.rpartition(".")
        modules.setdefault(module, {})[parameter] = value
    return modules


def _own_modules(architecture: Architecture, num_classes: int) -> Modules:
    with torch.device("meta"):
        return _modules(build_classifier(architecture, num_classes).state_dict())


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
