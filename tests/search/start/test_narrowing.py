"""Networks of fewer channels: equal to the whole at width 1, and which channels are kept."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from backbones import Architecture, HeadSpec, LayerSpec, StemSpec, UserError, load_architecture
from backbones.blocks import MBConv
from backbones.network import Classifier, build_classifier, build_feature_extractor
from search.start.narrowing import narrow, narrow_classifier, narrowed, stream_orders
from search.start.ordering import activation_variance, channel_order
from tests.search.start.conftest import random_network, tiny_network


@torch.no_grad()
def cut(network: Classifier, width: float) -> tuple[Architecture, list[Tensor], Tensor]:
    """The narrowed architecture, its feature maps of an image, and that image."""
    architecture, state = narrow(network.architecture, network.state_dict(), width, "a test")
    small = build_feature_extractor(architecture).eval()
    small.load_state_dict(state)
    image = torch.randn(1, 3, 64, 47, generator=torch.Generator().manual_seed(0))
    return architecture, small(image), image


def skipping() -> Architecture:
    """With a skipped layer in a stage, and layers with squeeze-and-excitation."""
    layers = list(tiny_network().layers)
    layers[5:6] = [LayerSpec(24, op="skip"), LayerSpec(24, expansion=3, se_ratio=0.25)]
    return Architecture("skipping", StemSpec(8), tuple(layers), HeadSpec(48))


NETWORKS = {
    "tiny": tiny_network,
    "skipping": skipping,
    **{
        name: lambda name=name: load_architecture(name)
        for name in ("efficientnet_lite0", "mobilenetv3_large_100", "fbnet_b", "mnasnet_a1")
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_at_width_1_it_is_the_network_in_another_order(name: str) -> None:
    network = random_network(NETWORKS[name]())
    orders = stream_orders(network)
    architecture, found, image = cut(network, 1.0)
    with torch.no_grad():
        expected = network.forward_intermediates(image)
    assert architecture.layers == network.architecture.layers
    assert any((order != torch.arange(len(order))).any() for order in orders)
    for map_, whole, index in zip(found, expected, architecture.feature_layers, strict=True):
        assert whole.std() > 1e-3
        error = (map_ - whole[:, orders[index + 1]]).abs().max() / whole.abs().max()
        assert float(error) < 1e-5


@pytest.mark.parametrize("name", ["tiny", "skipping", "mobilenetv3_large_100"])
def test_a_narrowed_classifier(name: str) -> None:
    """At width 1 its logits are the network's; narrower, its head reads the channels kept."""
    network = random_network(NETWORKS[name](), num_classes=4)
    image = torch.randn(1, 3, 64, 47, generator=torch.Generator().manual_seed(0))
    for width in (1.0, 0.5):
        state = network.state_dict()
        architecture, found = narrow_classifier(network.architecture, state, width, "a test")
        small = build_classifier(architecture, 4).eval()
        small.load_state_dict(found)
        with torch.no_grad():
            logits, expected = small(image), network(image)
        assert ((logits - expected).abs().max() < 1e-5 * expected.abs().max()) == (width == 1)
        kept = stream_orders(network)[-1][: architecture.layers[-1].out_channels]
        assert found["head.conv.weight"].equal(network.head.conv.weight[:, kept])
        _, trunk = narrow(network.architecture, state, width, "a test")
        assert trunk and all(found[name].equal(tensor) for name, tensor in trunk.items())


def brute_force(network: Classifier) -> list[list[float]]:
    """The importance of every channel behind the stem and every layer, one by one."""
    layers = list(network.layers)
    streams: list[int] = [0]
    for block in layers:
        alike = not isinstance(block, MBConv) or block.residual
        streams.append(streams[-1] + (0 if alike else 1))
    found = []
    for stream in range(streams[-1] + 1):
        readers = [b for b, s in zip(layers, streams[:-1], strict=True) if s == stream]
        writers = [b for b, s in zip(layers, streams[1:], strict=True) if s == stream]
        blocks = [block for block in writers if isinstance(block, MBConv)]
        count = blocks[0].project.conv.out_channels if blocks else network.stem.conv.out_channels
        stem = activation_variance(network.stem).tolist() if not stream else None
        row = []
        for channel in range(count):
            variance = stem[channel] if stem else 0.0
            for block in blocks:
                variance += float(cast(Tensor, block.project.norm.weight)[channel]) ** 2
            importance = 0.0
            convs = [b.expand for b in readers if isinstance(b, MBConv) and b.expand is not None]
            convs = [conv for conv in convs if hasattr(conv, "conv")]
            if stream == streams[-1]:
                convs.append(network.head)
            for conv in convs:
                norm = conv.norm
                for output in range(conv.conv.out_channels):
                    scale = norm.weight[output] ** 2 / (norm.running_var[output] + norm.eps)
                    weight = conv.conv.weight[output, channel, 0, 0]
                    importance += variance * float(scale * weight**2)
            for block in readers:  # without expansion, the channels are read one by one
                if isinstance(block, MBConv) and not hasattr(block.expand, "conv"):
                    project, norm = block.project.conv, block.project.norm
                    after = float(activation_variance(block.depthwise)[channel])
                    for output in range(project.out_channels):
                        scale = norm.weight[output] ** 2 / (norm.running_var[output] + norm.eps)  # type: ignore[operator]
                        weight = project.weight[output, channel, 0, 0]
                        importance += after * float(scale * weight**2)
            row.append(importance)
        found.append(row)
    return [found[stream] for stream in streams]


@pytest.mark.parametrize("name", ["tiny", "skipping"])
def test_the_most_important_channels_are_kept(name: str) -> None:
    """Of 8, 12, 16, 24 and 32 channels; and the slice computes what those channels make of it."""
    network = random_network(NETWORKS[name]())
    with torch.no_grad():
        expected = brute_force(network)
    orders = stream_orders(network)
    for order, values in zip(orders, expected, strict=True):
        ranked = sorted(range(len(values)), key=values.__getitem__, reverse=True)
        assert order.tolist() == ranked
    architecture, state = narrow(network.architecture, network.state_dict(), 0.5, "a test")
    for index, layer in enumerate(architecture.layers):
        if layer.op == "skip":
            continue
        block = cast(MBConv, network.layers[index])
        kept = orders[index + 1][: layer.out_channels]
        before = orders[index][: architecture.in_channels[index]]
        channels = (
            channel_order(block)[: layer.expanded_channels(architecture.in_channels[index])]
            if layer.op == "mbconv"
            else before
        )
        weight = state[f"layers.{index}.project.conv.weight"]
        for row, output in enumerate(kept.tolist()):
            for column, channel in enumerate(channels.tolist()):
                assert weight[row, column] == block.project.conv.weight[output, channel]
        variance = state[f"layers.{index}.project.norm.running_var"]
        assert variance.equal(cast(Tensor, block.project.norm.running_var)[kept])


def test_without_a_head_the_last_channels_go_by_what_they_vary() -> None:
    network = random_network(tiny_network())
    headless = {k: v for k, v in network.state_dict().items() if not k.startswith("head.")}
    _, state = narrow(network.architecture, headless, 1.0, "a test")
    weight = state["layers.6.project.norm.weight"].abs()
    assert (weight[1:] <= weight[:-1]).all()
    own = cast(Tensor, cast(MBConv, network.layers[6]).project.norm.weight)
    assert weight.sort().values.equal(own.detach().abs().sort().values)


@pytest.mark.parametrize("name", NETWORKS)
def test_narrow_networks_run(name: str) -> None:
    network = random_network(NETWORKS[name]())
    architecture, maps, _ = cut(network, 0.75)
    channels = [map_.shape[1] for map_ in maps]
    whole = network.feature_info.channels()
    assert all(ours <= theirs for ours, theirs in zip(channels, whole, strict=True))
    assert sum(channels) < sum(whole)
    assert all(map_.isfinite().all() and map_.std() > 0 for map_ in maps)
    assert architecture.provenance["narrowed_from"] == network.architecture.name


def test_widths_that_do_not_work_are_refused() -> None:
    with pytest.raises(UserError, match="the width multiplier is 1.5; expected at most 1"):
        narrowed(tiny_network(), 1.5)
    layers = list(tiny_network().layers)
    layers.insert(6, LayerSpec(28, expansion=3))  # 24 and 28 are both 8 at a fourth
    close = Architecture("close", StemSpec(8), tuple(layers), HeadSpec(48))
    with pytest.raises(UserError, match="layers of 'close' with different channels"):
        narrowed(close, 0.25)
