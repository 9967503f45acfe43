"""Batch norms vanish into convolutions, and the function stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from backbones import create_model
from backbones.deployment.folding import folded


def operators(module: torch.fx.GraphModule) -> Counter[str]:
    return Counter(str(node.target) for node in module.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize("name", ["mnasnet_a1"])
def test_a_network_keeps_its_maps(name: str, randomize: Callable[[nn.Module], None]) -> None:
    network = create_model(name, features_only=True).eval()
    randomize(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    image = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    module = folded(network, [image])
    found = operators(module)
    assert found["aten.batch_norm.default"] == 0
    assert found["aten.conv2d.default"] == sum(
        isinstance(part, nn.Conv2d) for part in network.modules()
    )
    with torch.no_grad():
        for one, other in zip(module(image), network(image), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class Shared(nn.Module):
    """One convolution under two norms, with and without weights; a norm after no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4)]
        )
        for norm in self.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            torch.nn.init.uniform_(norm.running_mean, -1, 1)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, image: Tensor) -> list[Tensor]:
        one = self.norms[0](self.convolution(image))
        other = self.norms[1](self.convolution(image.neg()))
        return [one, self.norms[2](other.relu())]


def test_a_shared_convolution_is_copied() -> None:
    torch.manual_seed(0)
    network, image = Shared().eval(), torch.randn(2, 3, 8, 8)
    module = folded(network, [image])
    assert operators(module)["aten.batch_norm.default"] == 1
    with torch.no_grad():
        torch.testing.assert_close(module(image), network(image), rtol=1e-5, atol=1e-6)
