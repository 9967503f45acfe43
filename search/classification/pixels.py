"""Images travel as bytes; on their device they become what a network expects."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from backbones.architecture import IMAGENET, Architecture, InputSpec


def expected_images(model: nn.Module) -> InputSpec:
    """What the architecture of a model says; ImageNet's figures where it has none."""
    architecture = getattr(model, "architecture", None)
    return architecture.input if isinstance(architecture, Architecture) else IMAGENET


def normalised(images: Tensor, expected: InputSpec) -> Tensor:
    """Bytes to normalised numbers, bit for bit as torchvision's transforms of single images.

    Args:
        images: (…, 3, H, W) uint8, RGB, on any device.
        expected: mean and deviation.

    Returns:
        (…, 3, H, W) of PyTorch's default type, on the same device, in the same memory layout.
    """
    assert images.dtype == torch.uint8
    kind = torch.get_default_dtype()
    mean, std = _figures(expected, images.device, kind)
    return images.to(kind).div_(255).sub_(mean).div_(std)


@lru_cache
def _figures(expected: InputSpec, device: torch.device, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) mean and deviation; copied to a device once, since the host waits for that."""
    mean, std = (
        torch.tensor(figures, dtype=kind, device=device)[:, None, None]
        for figures in (expected.mean, expected.std)
    )
    return mean, std
