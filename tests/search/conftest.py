"""Shared pieces of the search tests."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import TrainerBase
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from backbones import HeadSpec, LatencyTable, LayerSpec, StemSpec, create_model
from backbones.architecture import IMAGENET
from backbones.paths import config_path
from backbones.weights import save_checkpoint
from search.config import add_search_config
from search.space import SearchSpace, Stage
from search.supernets.single_path import Supernet


def nested_weights(gates: Tensor) -> Tensor:
    """(n,) indicators "use the next subset too" → (n + 1,) weights of the options (Eq. 3, 4)."""
    weights, used = [], torch.ones((), dtype=gates.dtype)
    for gate in gates:
        weights.append(used * (1 - gate))
        used = used * gate
    return torch.stack([*weights, used])


SHORT = ("SOLVER.WARMUP_EPOCHS", "0.0")
"""For trainings of a few steps."""


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    """The paper's full space."""
    return SearchSpace.load("imagenet")


@pytest.fixture(scope="session")
def wide_space() -> SearchSpace:
    """Three options an axis at two layers, the second droppable: 27 · 28 networks."""
    return SearchSpace(
        "wide",
        StemSpec(8),
        (LayerSpec(8, op="ds"), LayerSpec(12, stride=2), LayerSpec(16, stride=2)),
        (Stage(24, 2, 2),),
        (LayerSpec(32, op="ds", stride=2),),
        HeadSpec(48),
        kernel_sizes=(3, 5, 7),
        expansions=(3, 4, 6),
        se_ratios=(0, 0.25, 0.5),
    )


@pytest.fixture(scope="session")
def table() -> LatencyTable:
    """The Pixel 1 table."""
    return LatencyTable.load("pixel1")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that colour tells apart."""
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for index, name in enumerate(("blue", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = torch.randint(0, 90, (32, 32, 3), generator=generator)
                pixels[..., 2 * (1 - index)] += 150
                image = Image.fromarray(pixels.to(torch.uint8).numpy())
                image.save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def rng() -> random.Random:
    """The same choices in every run."""
    return random.Random(0)


def randomized_supernet(space: SearchSpace, num_classes: int = 10) -> Supernet:
    """A supernet whose norms, biases and statistics are all away from their defaults."""
    torch.manual_seed(0)
    supernet = Supernet(space, num_classes)
    randomize(supernet)
    return supernet.eval()


def as_expected(images: Tensor) -> Tensor:
    """Bytes as networks expect them, by torchvision's own function."""
    found: Tensor = normalize(images / 255, IMAGENET.mean, IMAGENET.std)
    return found


@torch.no_grad()
def randomize(module: nn.Module) -> None:
    """Moves norms, biases and statistics away from their defaults."""
    for name, value in module.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 1.5)
        elif "norm" in name and value.is_floating_point():
            value.add_(torch.randn(value.shape) * 0.3)
        elif name.endswith("bias"):
            value.normal_(0, 0.5)


def overrides(images: Path, output: Path) -> list[str]:
    """Four steps on small images."""
    return [
        *("CLASSIFICATION.DATASET", str(images), "CLASSIFICATION.NUM_CLASSES", "2"),
        *("CLASSIFICATION.INPUT_SIZE", "32", "CLASSIFICATION.EPOCHS", "1.0"),
        *("CLASSIFICATION.CHECKPOINT_EPOCHS", "0.5", "CLASSIFICATION.DROP_RATE", "0.1"),
        *("SOLVER.IMS_PER_BATCH", "4", "SEARCH.CALIBRATION_BATCHES", "2", "VIS_PERIOD", "1"),
        *("OUTPUT_DIR", str(output), "WANDB.ENABLED", "False"),
    ]


def make_cfg(config: str, images: Path, output: Path, *more: str) -> CfgNode:
    cfg = get_cfg()
    add_search_config(cfg)
    cfg.merge_from_file(str(config_path(*config.split("/"))))
    cfg.merge_from_list([*overrides(images, output), *more])
    return cfg


def interrupt_at(trainer: TrainerBase, iteration: int) -> None:
    """Ends the training as a kill would, just before ``iteration``."""
    step = trainer.run_step

    def run_step() -> None:
        if trainer.iter == iteration:
            raise KeyboardInterrupt
        step()

    trainer.run_step = run_step  # type: ignore[method-assign]


def write_classifier(path: Path, num_classes: int) -> None:
    model = create_model("spnas_100", num_classes=num_classes)
    save_checkpoint(path, {"model": model.state_dict(), "matching_heuristics": True})
