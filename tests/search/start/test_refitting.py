"""Changed layers, fitted to the start's: against NumPy's least squares, and where it is exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backbones import LayerSpec
from backbones.blocks import MBConv, init_weights
from backbones.network import build_classifier
from search.start import refitting
from search.start.refitting import (
    changed_layers,
    fit_projection,
    layer_rows,
    layers_to_fit,
    refit,
    rows_of,
)
from tests.search.conftest import randomize
from tests.search.start.conftest import random_network, tiny_network


def block(expansion: int, se_ratio: float = 0.0, seed: int = 0) -> MBConv:
    """8 channels in and out, in training mode."""
    torch.manual_seed(seed)
    made = MBConv(8, LayerSpec(8, expansion=expansion, se_ratio=se_ratio), nn.BatchNorm2d)
    init_weights(made, 1.0)
    randomize(made)
    return made.train()


def batches(count: int, seed: int = 1, size: int = 5) -> list[Tensor]:
    """Of 25 positions, fewer than a fit sees at most."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 8, size, size, generator=generator) for _ in range(count)]


@torch.no_grad()
def channels_of(made: MBConv, maps: Tensor) -> np.ndarray:
    found: Tensor = made.se(made.depthwise(made.expand(maps)))
    return found.permute(0, 2, 3, 1).reshape(-1, found.shape[1]).double().numpy()


@pytest.mark.parametrize("se_ratio", [0.0, 0.5])
def test_against_least_squares(monkeypatch: pytest.MonkeyPatch, se_ratio: float) -> None:
    """NumPy solves the whole system, ridge and means as rows and a column of it."""
    ridge = 0.03
    monkeypatch.setattr(refitting, "_RIDGES", (ridge,))
    made, other = block(3, se_ratio), block(6, seed=5)
    (maps,) = batches(1)
    with torch.no_grad():
        wanted, before = other(maps), made(maps)
    channels, rows = channels_of(made, maps), (wanted - maps).permute(0, 2, 3, 1).reshape(-1, 8)
    now = (before - maps).permute(0, 2, 3, 1).reshape(-1, 8).double().numpy()
    slopes = np.linalg.lstsq(channels - channels.mean(0), now - now.mean(0), rcond=None)[0]
    count, width = channels.shape
    held = np.sqrt(ridge * channels.var(0).mean() * count) * np.eye(width)
    left = np.block([[channels, np.ones((count, 1))], [held, np.zeros((width, 1))]])
    right = np.concatenate([rows.double().numpy(), held @ slopes])
    solution = np.linalg.lstsq(left, right, rcond=None)[0]
    expected = np.c_[channels, np.ones(count)] @ solution

    fit_projection(made, [maps, maps], [rows_of(wanted)] * 2)
    column = torch.as_tensor(channels).float().T.reshape(1, width, count, 1)
    with torch.no_grad():
        by_statistics = made.project.eval()(column)[0, :, :, 0].T
        found = (made.train()(maps) - maps).permute(0, 2, 3, 1).reshape(-1, 8)
    np.testing.assert_allclose(by_statistics.numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_what_the_rest_can_stand_in_for_is_made_up_for() -> None:
    """Half of a block's channels repeat the other half: without them it can compute the same."""
    whole, half = block(6), block(3)
    with torch.no_grad():
        for part in ("expand", "depthwise"):
            for name, value in whole.get_submodule(part).state_dict().items():
                own = half.get_submodule(part).state_dict()[name]
                own.copy_(value[:24] if value.dim() else value)
                if value.dim():
                    value[24:] = value[:24]
        half.project.load_state_dict(
            {
                name: value[:, :24] if name == "conv.weight" else value
                for name, value in whole.project.state_dict().items()
            }
        )
    train, fresh = batches(4), batches(2, seed=8)

    def miss() -> float:
        with torch.no_grad():
            pairs = [(half(maps) - whole(maps), whole(maps)) for maps in fresh]
        return float(
            sum(d.square().sum() for d, _ in pairs) / sum(w.var() * w.numel() for _, w in pairs)
        )

    before, lengths = miss(), half.project.conv.weight.norm(dim=1).clone()
    with torch.no_grad():
        fit_projection(half, train, [rows_of(whole(maps)) for maps in train])
    assert before > 0.05
    assert miss() < 1e-4
    torch.testing.assert_close(half.project.conv.weight.norm(dim=1), lengths)


def test_a_fit_that_would_only_learn_noise_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows than channels, and maps that inputs say nothing of."""
    few = [maps[:1, :, :3, :3] for maps in batches(4)]
    fresh = batches(1, seed=8)[0]

    @torch.no_grad()
    def moved() -> float:
        made = block(6)
        torch.manual_seed(3)
        wanted = [rows_of(made(maps)) + 3 * torch.randn(9, 8) for maps in few]
        before = made(fresh)
        fit_projection(made, few, wanted)
        return float((made(fresh) - before).var((0, 2, 3)).sum() / before.var((0, 2, 3)).sum())

    assert moved() < 0.05
    monkeypatch.setattr(refitting, "_RIDGES", refitting._RIDGES[-1:])
    assert moved() > 1


def test_dead_channels_leave_finite_weights() -> None:
    made = block(3)
    nn.init.zeros_(made.depthwise.norm.weight)
    nn.init.zeros_(made.depthwise.norm.bias)
    nn.init.zeros_(made.project.conv.weight[:2].detach())
    train = batches(2)
    fit_projection(made, train, [rows_of(maps) for maps in train])
    assert all(value.isfinite().all() for value in made.state_dict().values())


def test_rows_are_of_the_same_places_in_every_map() -> None:
    places = torch.arange(20.0 * 20).reshape(1, 1, 20, 20)
    rows = rows_of(torch.cat([places, places + 1000]).repeat(1, 3, 1, 1))
    assert rows.shape == (2 * 32, 3)
    assert torch.equal(rows[:32] + 1000, rows[32:])
    assert torch.equal(rows[:, 0], rows[:, 2])
    assert len(rows[:32, 0].unique()) == 32
    assert torch.equal(rows[:32, :1], rows_of(places))


def test_which_layers_are_fitted() -> None:
    """Those that are blocks in both networks: from the first that differs on, or those alone."""
    start = tiny_network()
    halved = dataclasses.replace(start.layers[3], expansion=3)
    smaller = dataclasses.replace(start.layers[4], kernel_size=3)
    skipped = LayerSpec(24, op="skip")
    for index, layer, behind in ((3, halved, [4, 5, 6]), (4, smaller, [5, 6]), (5, skipped, [6])):
        layers = [*start.layers[:index], layer, *start.layers[index + 1 :]]
        network = dataclasses.replace(start, layers=tuple(layers))
        own = [] if layer is skipped else [index]
        for pair in ((network, start), (start, network)):
            assert layers_to_fit(*pair) == [*own, *behind]
            assert changed_layers(*pair) == own
    assert layers_to_fit(start, start) == changed_layers(start, start) == []


@pytest.fixture
def narrower() -> Callable[..., nn.Module]:
    """The tiny network with halved layers, sliced from it."""

    def make(*halved: int) -> nn.Module:
        start = tiny_network()
        layers = tuple(
            dataclasses.replace(layer, expansion=3) if index in halved else layer
            for index, layer in enumerate(start.layers)
        )
        network = build_classifier(dataclasses.replace(start, layers=layers), 7)
        whole = random_network(start).state_dict()
        with torch.no_grad():
            for name, own in network.state_dict().items():
                own.copy_(whole[name][tuple(slice(size) for size in own.shape)])
        return network

    return make


def maps_after(network: nn.Module, layer: int, images: Tensor) -> Tensor:
    with torch.no_grad():
        modules = [network.stem, *network.layers[: layer + 1]]  # type: ignore[misc, list-item]
        found: Tensor = nn.Sequential(*modules).train()(images)
    return found


def test_from_the_first_change_on_maps_come_nearer(narrower: Callable[..., nn.Module]) -> None:
    torch.manual_seed(7)
    images = [torch.randn(8, 3, 64, 64) for _ in range(4)]
    fresh = torch.randn(16, 3, 64, 64)
    start, network = random_network(tiny_network()), narrower(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    behind = range(3, 7)

    def missed() -> list[float]:
        pairs = [[maps_after(n, layer, fresh) for n in (network, start)] for layer in behind]
        return [float((ours - theirs).var() / theirs.var()) for ours, theirs in pairs]

    sliced = missed()
    refit(network, start, images)
    parts = ("conv.weight", "norm.weight", "norm.bias")
    moved = {
        key
        for key, value in network.state_dict().items()
        if key.endswith(parts) and not torch.equal(value, before[key])
    }
    assert moved == {f"layers.{layer}.project.{part}" for layer in behind for part in parts}
    assert all(now < 0.95 * then for now, then in zip(missed(), sliced, strict=True))

    same = random_network(tiny_network())
    state = {key: value.clone() for key, value in same.state_dict().items()}
    refit(same, start, images)
    assert all(torch.equal(value, state[key]) for key, value in same.state_dict().items())


def test_rows_of_every_layer_are_what_a_refit_wants(narrower: Callable[..., nn.Module]) -> None:
    torch.manual_seed(7)
    images = [torch.randn(4, 3, 64, 64) for _ in range(2)]
    start, network, other = random_network(tiny_network()), narrower(3), narrower(3)
    rows = layer_rows(start, images)
    inputs = [maps_after(other, 2, batch) for batch in images]
    layer = other.layers[3]  # type: ignore[index]
    fit_projection(layer, inputs, rows[3])
    refit(network, start, images)
    for name in ("conv.weight", "norm.weight", "norm.bias"):
        key = f"layers.3.project.{name}"
        assert torch.equal(network.state_dict()[key], other.state_dict()[key])
