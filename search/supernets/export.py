"""From supernet to fixed network: the architecture and the weights cut out for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backbones.architecture import Architecture
from backbones.network import Classifier, build_classifier
from search.space import Choice
from search.supernets.one_shot import DECISION_MODULES, OneShot


def exported_state(supernet: OneShot, choices: Sequence[Choice]) -> dict[str, Tensor]:
    """The weights of one network of the space, named as in ``Classifier``."""
    searched = {
        id(layer): layer.choice_state(choice)
        for layer, choice in zip(supernet.searchable_layers, choices, strict=True)
    }
    state = {}
    for name, module in supernet.named_children():
        if name not in ("layers", *DECISION_MODULES):
            state.update({f"{name}.{k}": v.clone() for k, v in module.state_dict().items()})
    for index, layer in enumerate(supernet.layers):
        part = searched.get(id(layer))
        if part is None:
            part = {key: value.clone() for key, value in layer.state_dict().items()}
        state.update({f"layers.{index}.{key}": value for key, value in part.items()})
    return state


def export_network(
    supernet: OneShot, choices: Sequence[Choice], architecture: Architecture
) -> Classifier:
    """A fixed network with the supernet's weights; in eval mode both compute the same.

    It is built without values of its own, and takes the copies as they are: searches cut out
    thousands, and on a GPU every look at a value waits.
    """
    with torch.device("meta"):
        model = build_classifier(architecture, supernet.num_classes, supernet.dropout.p)
    model.load_state_dict(exported_state(supernet, choices), assign=True)
    return model.train(supernet.training)
