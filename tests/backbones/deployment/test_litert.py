"""A network of many maps in LiteRT: every output at its place, in its layout, with its values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from backbones.deployment.formats.litert import to_litert
from backbones.deployment.runtimes import open_model

CHANNELS = 4


class _Pyramid(nn.Module):
    """Normalisation, three maps from coarse to fine, a pooled one, and one head on all of them."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([120.0, 115.0, 100.0])[None, :, None, None])
        self.down = nn.ModuleList(
            nn.Conv2d(3 if index == 0 else CHANNELS, CHANNELS, 3, 2, 1) for index in range(3)
        )
        self.smooth = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.hidden = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.scores, self.deltas = nn.Conv2d(CHANNELS, 3, 1), nn.Conv2d(CHANNELS, 12, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Scores of four levels, their deltas, and their maps: twelve outputs."""
        x = (image - self.mean) / 60
        maps = [x := functional.relu(layer(x)) for layer in self.down]
        merged = [maps[-1]]
        for finer in maps[-2::-1]:
            merged.insert(0, finer + functional.interpolate(merged[0], scale_factor=2.0))
        levels = [self.smooth(level) for level in merged]
        levels.append(functional.max_pool2d(levels[-1], 1, 2))
        hidden = [functional.relu(self.hidden(level)) for level in levels]
        return [*map(self.scores, hidden), *map(self.deltas, hidden), *levels]


@pytest.mark.slow
def test_a_pyramid_with_heads_keeps_outputs_and_weights_apart() -> None:
    """More than ten outputs, and weights of one shape in channels-last order, as in training."""
    pytest.importorskip("litert_torch")
    torch.manual_seed(0)
    module = _Pyramid().eval().to(memory_format=torch.channels_last)
    image = 255 * torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        expected = module(image)
    runtime = open_model(to_litert(module, [image]), "litert")
    assert not module.smooth.weight.is_contiguous()  # the module stays as it was
    assert runtime.inputs[0].shape == (1, 24, 40, 3)
    found = list(runtime.run({runtime.inputs[0].name: image.numpy()}).values())
    assert len(found) == len(expected) == 12
    for array, tensor in zip(found, expected, strict=True):
        limit = 1e-4 * float(tensor.abs().max())
        torch.testing.assert_close(torch.from_numpy(array), tensor, rtol=0, atol=limit)
