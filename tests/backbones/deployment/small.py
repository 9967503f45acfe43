"""A network of a few layers, with every operator that backbones have, to be exported in seconds."""

from __future__ import annotations

import torch
from torch import nn

from backbones import Architecture, HeadSpec, LayerSpec, StemSpec, build_classifier
from backbones.deployment.contract import Preprocessing, TensorSpec
from backbones.deployment.exporting import Exportable

CLASSES = 5
SIDE = 32


def small_architecture(plain: bool = False) -> Architecture:
    """Strides 2 to 32 in five layers; ``plain`` has neither SE nor hard-swish."""
    special = {} if plain else {"activation": "hard_swish", "se_ratio": 0.5}
    return Architecture(
        "small",
        StemSpec(8),
        (
            LayerSpec(8, op="ds"),
            LayerSpec(8, stride=2, expansion=3),
            LayerSpec(12, stride=2, kernel_size=5, expansion=3),
            LayerSpec(16, stride=2, expansion=3, **special),
            LayerSpec(24, stride=2, expansion=3),
        ),
        HeadSpec(32),
    )


def small_classifier(plain: bool = False, classes: int = CLASSES) -> nn.Module:
    """Freshly initialised, with batch norms that have seen something."""
    torch.manual_seed(0)
    network = build_classifier(small_architecture(plain), classes, residual_scale=1.0)
    for _ in range(20):  # running means and variances
        network(torch.randn(8, 3, SIDE, SIDE))
    return network.eval()


def small_exportable(plain: bool = False) -> Exportable:
    """The classifier, as it is exported."""
    return Exportable(
        "classifier",
        small_classifier(plain),
        (TensorSpec("logits", ()),),
        Preprocessing(mean=(120.0, 115.0, 100.0), std=(60.0, 55.0, 50.0)),
        (SIDE, SIDE),
        labels=tuple("abcde"),
    )
