"""Compiled and eager networks compute the same, and leave the same files."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from backbones.network import build_classifier
from detection.engine import compiled
from detection.engine.compiled import compile_network, eagerly
from detection.engine.diagnosis import first_nonfinite
from detection.trainer import DetectionTrainer
from search.classification.classifier import ClassifierTrainer
from search.runs.classification import SearchTrainer
from search.runs.detector_backbone import SupernetBackbone
from search.space import SearchSpace
from search.supernets.multi_path import MultiPathSupernet
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet
from tests.search.conftest import SHORT, make_cfg
from tests.tiny_coco import TINY_MODEL, own_config

CLASSES = 3


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounterWithBackend:
    """Counts what is compiled; the kernels are PyTorch's own, since a compiler's take minutes."""
    torch.compiler.reset()
    counter = CompileCounterWithBackend("eager")
    monkeypatch.setattr(compiled, "BACKEND", counter)
    return counter


def pooled(maps: dict[str, Tensor]) -> Tensor:
    """(N, C) of a backbone's maps."""
    return torch.cat([value.mean((2, 3)) for value in maps.values()], 1)


def fixed(space: SearchSpace) -> nn.Module:
    return build_classifier(space.largest(), CLASSES, residual_scale=0.2)


def small(space: SearchSpace, **options: tuple[float, ...]) -> SearchSpace:
    """With two options an axis, or as many as are given."""
    two: dict[str, Any] = {"kernel_sizes": (3, 5), "expansions": (1, 2), "se_ratios": (0, 0.5)}
    return dataclasses.replace(space, **{**two, **options})


NETWORKS: dict[str, Callable[[SearchSpace], nn.Module]] = {
    "classifier": fixed,
    "single path": lambda space: Supernet(small(space), CLASSES),
    "multi-path": lambda space: MultiPathSupernet(
        small(space, expansions=(2,), se_ratios=(0,)), CLASSES, path_weights="gumbel"
    ),
    "backbone of a search": lambda space: SupernetBackbone(Supernet(small(space), 0)),
}


def decides(network: nn.Module) -> OneShot | None:
    found = getattr(network, "supernet", network)
    return found if isinstance(found, OneShot) else None


def step(network: nn.Module, number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step, and its gradients; masks and noise are those of its number."""
    if (supernet := decides(network)) is not None:
        supernet.draw_seed = number
        supernet.subset_dropout = 0.4 if isinstance(supernet, Supernet) and number < 3 else 0.0
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    network.zero_grad()
    found = network(images.to(memory_format=torch.channels_last))
    logits = pooled(found) if isinstance(found, dict) else found
    loss = F.cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_step_is_the_same_and_compiled_once(
    graphs: CompileCounterWithBackend, wide_space: SearchSpace, kind: str
) -> None:
    """Whatever is decided, dropped or drawn in it: those are inputs of the compiled code."""
    if kind == "single path":  # with the backward pass, as for a compiler
        graphs.backend = "aot_eager"
    torch.manual_seed(0)
    eager = NETWORKS[kind](wide_space).to(memory_format=torch.channels_last).train()
    network = copy.deepcopy(eager)
    names = list(network.state_dict())
    compile_network(network)
    assert graphs.frame_count == 1  # the check of the compiler
    counts, losses = [], []
    for number in range(5):
        (expected, gradients), (loss, found) = step(eager, number), step(network, number)
        losses.append(float(loss))
        assert torch.allclose(loss, expected, rtol=1e-5)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-6), name
        counts.append(graphs.frame_count)
        with torch.no_grad():  # decisions change from step to step
            for model in (eager, network):
                if (supernet := decides(model)) is not None:
                    for parameter in supernet.decision_parameters():
                        ramp = torch.linspace(0, 4, parameter.numel()).view_as(parameter)
                        parameter.add_((-1) ** number * ramp)
    assert 1 < counts[0] == counts[-1]
    assert len(set(losses)) == 5
    assert list(network.state_dict()) == names


def test_networks_drawn_uniformly_are_one_code(
    graphs: CompileCounterWithBackend, wide_space: SearchSpace
) -> None:
    space = small(wide_space)
    supernet = Supernet(space, CLASSES).train()
    compile_network(supernet)
    counts = []
    for number in range(4):
        with supernet.using(space.sample(random.Random(number))):
            step(supernet, number)
        counts.append(graphs.frame_count)
    assert counts[0] == counts[-1]


def test_copies_and_evaluations_run_eagerly(
    graphs: CompileCounterWithBackend, wide_space: SearchSpace
) -> None:
    network = fixed(wide_space).train()
    compile_network(network)
    step(network, 0)
    before = graphs.frame_count
    network.eval()
    images = torch.randn(2, 3, 64, 64)
    found = eagerly(lambda: network(images))()
    assert torch.equal(found, copy.deepcopy(network)(images))
    assert graphs.frame_count == before
    network(images)
    assert graphs.frame_count > before


def test_the_layer_of_a_number_that_is_not_finite(
    graphs: CompileCounterWithBackend, wide_space: SearchSpace
) -> None:
    """Compiled code does not call the hooks that look for it."""
    network = fixed(wide_space).train()
    compile_network(network)
    step(network, 0)
    before = graphs.frame_count
    head = network.get_submodule("head.conv")
    assert isinstance(head, nn.Conv2d)
    nn.init.constant_(head.weight, 3e38)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    found = first_nonfinite(network, lambda: network(images))
    assert found.startswith("first in the output of 'head.conv' (Conv2d)")
    assert graphs.frame_count == before


def states(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["model"]
    return state


@pytest.fixture
def network(wide_space: SearchSpace, tmp_path: Path) -> tuple[str, str]:
    """The options that ask for a network of a few layers."""
    small(wide_space).largest().save(tmp_path / "architecture.json")
    return "MODEL.SPNAS.ARCH", str(tmp_path / "architecture.json")


def search(images: Path, folder: Path, *options: str) -> SearchTrainer:
    cfg = make_cfg("search/digits_small.yaml", images, folder, *SHORT, *options)
    return SearchTrainer(cfg)


def classifier(images: Path, folder: Path, *options: str) -> ClassifierTrainer:
    own = ("CLASSIFICATION.EMA_DECAY", "0.9", "CLASSIFICATION.DROP_RATE", "0.0")
    cfg = make_cfg("classification/digits.yaml", images, folder, *SHORT, *own, *options)
    return ClassifierTrainer(cfg)


@pytest.mark.parametrize("build", [search, classifier])
def test_runs_leave_the_same_files(
    graphs: CompileCounterWithBackend,
    images: Path,
    tmp_path: Path,
    network: tuple[str, str],
    build: Callable[..., SearchTrainer | ClassifierTrainer],
) -> None:
    for name in ("False", "True"):
        torch.manual_seed(0)
        trainer = build(images, tmp_path / name, "SOLVER.COMPILE", name, *network)
        trainer.resume_or_load()
        trainer.train()
    assert graphs.frame_count > 1
    for file in ("model_final.pth", "backbone.pth"):
        expected, found = (states(tmp_path / name / file) for name in ("False", "True"))
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-4), name


def test_a_detectors_backbone(
    graphs: CompileCounterWithBackend, tiny_coco: Path, tmp_path: Path, network: tuple[str, str]
) -> None:
    torch.set_num_threads(1)

    def trained(compiles: bool) -> dict[str, Tensor]:
        cfg: CfgNode = own_config(
            *(*TINY_MODEL, "DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "()"),
            *network,
            *("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()", "SOLVER.COMPILE", str(compiles)),
            *("OUTPUT_DIR", str(tmp_path / str(compiles)), "WANDB.ENABLED", "False"),
            file="detection/mask_rcnn_spnas_fpn_digits.yaml",
        )
        torch.manual_seed(0)
        trainer = DetectionTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        return states(tmp_path / str(compiles) / "model_final.pth")

    expected = trained(False)
    assert graphs.frame_count == 0
    found = trained(True)
    assert graphs.frame_count > 1
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-3, atol=1e-4), name
