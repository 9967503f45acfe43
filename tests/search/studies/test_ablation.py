"""Kernels as subsets of larger ones: gradients, the networks judged, and resuming."""

from __future__ import annotations

import contextlib
import runpy
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from backbones import UserError
from backbones.files import read_json
from backbones.network import build_classifier
from backbones.paths import config_path
from search.config import add_search_config
from search.space import SearchSpace
from search.studies import ablation as module
from search.studies.ablation import (
    KernelTrainer,
    ablation_rows,
    ablation_table,
    kernel_space,
    run_ablation,
)
from search.supernets.single_path import Supernet
from tests.search.conftest import as_expected

ROOT = Path(__file__).resolve().parents[3]


def options(images: Path, *more: str) -> list[str]:
    """All 16 images, as they are, in every step."""
    return [
        *("CLASSIFICATION.DATASET", str(images), "CLASSIFICATION.NUM_CLASSES", "2"),
        *("CLASSIFICATION.INPUT_SIZE", "32", "SOLVER.IMS_PER_BATCH", "16"),
        *("CLASSIFICATION.AUGMENTATION.CROP_SCALE", "[1.0, 1.0]"),
        *("CLASSIFICATION.AUGMENTATION.CROP_RATIO", "[1.0, 1.0]"),
        *("SOLVER.WARMUP_EPOCHS", "0.0", "SEARCH.CALIBRATION_BATCHES", "1", *more),
    ]


def make_cfg(images: Path, output: Path, *more: str) -> CfgNode:
    cfg = get_cfg()
    add_search_config(cfg)
    cfg.merge_from_file(str(config_path("classification", "digits.yaml")))
    own = ("CLASSIFICATION.EPOCHS", "3.0", "OUTPUT_DIR", str(output), "WANDB.ENABLED", "False")
    cfg.merge_from_list(options(images, *own, *more))
    return cfg


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """New tensors in double precision, in which sums in another order agree to many digits."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def network_by_hand(supernet: Supernet, kernel: int) -> nn.Module:
    """A fixed network of one kernel size with a copy of the supernet's weights.

    The names are the same; where the kernel is smaller, it is the centre.
    """
    space = kernel_space(SearchSpace.load("imagenet"), (kernel,))
    network = build_classifier(space.largest(), supernet.num_classes)
    state = supernet.state_dict()
    for name, value in network.state_dict().items():
        value.copy_(centre(state[name], value.shape))
    return network.to(supernet.stem.conv.weight.dtype).train()


def centre(value: Tensor, shape: Sequence[int]) -> Tensor:
    return value[:, :, 1:4, 1:4] if value.shape[-1:] == (5,) and shape[-1] == 3 else value


def randomize_norms(supernet: Supernet) -> None:
    """Residual branches start at 0, where no kernel has a gradient."""
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if ".norm." in name:
                parameter.add_(torch.randn(parameter.shape) * 0.3)


@pytest.mark.parametrize("kernels", [(3,), (5,), (3, 5)])
def test_a_step_sums_the_gradients_of_fixed_networks(
    space: SearchSpace, images: Path, tmp_path: Path, kernels: tuple[int, ...]
) -> None:
    """Each network by itself, from copies of the same weights; one update with the sum."""
    torch.manual_seed(0)
    sgd = ("SOLVER.OPTIMIZER", "sgd", "SOLVER.MOMENTUM", "0.9", "SOLVER.WEIGHT_DECAY", "0.0")
    cfg = make_cfg(images, tmp_path, *sgd, "SOLVER.BASE_LR", "0.1")
    trainer = KernelTrainer(cfg, kernel_space(space, kernels))
    supernet = trainer.supernet.double()
    with double_precision():
        randomize_norms(supernet)
        pixels, targets = torch.randint(256, (8, 3, 64, 64)).byte(), torch.arange(8) % 2
        batch = as_expected(pixels)
        expected = {name: torch.zeros_like(p) for name, p in supernet.named_parameters()}
        for kernel in kernels:
            network = network_by_hand(supernet, kernel)
            F.cross_entropy(network(batch), targets, label_smoothing=0.1).backward()
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                centre(expected[name], parameter.shape).add_(parameter.grad)
        before = {name: p.detach().clone() for name, p in supernet.named_parameters()}
        trainer.iter = 0
        trainer._batches = iter([(pixels, targets)])
        with EventStorage(0):
            trainer.run_step()
    for name, parameter in supernet.named_parameters():
        if name.startswith("thresholds."):
            assert parameter.grad is None
            continue
        assert parameter.grad is not None
        scale = float(expected[name].abs().max())
        assert scale > 1e-9 or not name.endswith("conv.weight"), name
        tolerance = 1e-5 * scale + 1e-12  # a shift before another norm has no gradient
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=tolerance)
        # a first step with Nesterov's momentum of 0.9
        torch.testing.assert_close(parameter.detach(), before[name] - 0.19 * parameter.grad)


def test_each_kernel_is_judged_as_a_network_of_its_own(
    space: SearchSpace, images: Path, tmp_path: Path
) -> None:
    """With the statistics of all 16 images in one batch, which a network in training also has."""
    torch.manual_seed(0)
    trainer = KernelTrainer(make_cfg(images, tmp_path), kernel_space(space, (3, 5)))
    randomize_norms(trainer.supernet)
    trainer.train()
    results = read_json(tmp_path / "results.json", "results")["kernels"]
    trainer.val_data = trainer.train_data
    scores = trainer.evaluate()
    assert list(results) == list(scores) == ["3x3", "5x5"]
    data = [trainer.train_data[index] for index in range(16)]
    batch = as_expected(torch.stack([image for image, _ in data]))
    targets = torch.tensor([target for _, target in data])
    seen = []
    for name, kernel in (("3x3", 3), ("5x5", 5)):
        with torch.no_grad():
            logits = network_by_hand(trainer.supernet, kernel)(batch)
            torch.testing.assert_close(trainer.network(name)(batch), logits, rtol=1e-3, atol=1e-3)
        loss = float(F.cross_entropy(logits, targets))
        assert scores[name]["loss"] == pytest.approx(loss, rel=1e-3)
        assert scores[name]["top1"] == 100 * float((logits.argmax(1) == targets).double().mean())
        seen.append(logits)
    assert float((seen[0] - seen[1]).abs().max()) > 0.01


def test_kernels_without_statistics_are_refused(
    space: SearchSpace, images: Path, tmp_path: Path
) -> None:
    cfg = make_cfg(images, tmp_path, "SEARCH.CALIBRATION_BATCHES", "0")
    with pytest.raises(UserError, match="CALIBRATION_BATCHES is 0; expected 1 or more"):
        KernelTrainer(cfg, kernel_space(space, (3, 5)))


def fake_training(cfg: Any, name: str, seed: int) -> dict[str, Any]:
    base = {"3x3 alone": 80.0, "5x5 alone": 90.0, "3x3 in 5x5": 78.0}[name] + seed**2
    kernels = ("3x3", "5x5") if name == "3x3 in 5x5" else (name[:3],)
    return {
        "scores": {
            kernel: {"top1": base + 3 * seed * (len(kernels) - 1), "top5": 99.0, "loss": 0.5}
            for kernel in kernels
        }
    }


def test_an_interrupted_ablation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int]] = []

    def training(cfg: Any, name: str, seed: int) -> dict[str, Any]:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append((name, seed))
        return fake_training(cfg, name, seed)

    monkeypatch.setattr(module, "run_training", training)
    output, none = tmp_path / "ablation.json", CfgNode()
    with pytest.raises(KeyboardInterrupt):
        run_ablation(none, 2, output, {"recipe": "short"})
    assert len(read_json(output, "study")["trials"]) == 4
    with pytest.raises(UserError, match="holds trials of the recipe short, and this is long"):
        run_ablation(none, 2, output, {"recipe": "long"})
    again: list[tuple[str, int]] = []
    monkeypatch.setattr(module, "run_training", lambda *a: again.append(a[1:]) or fake_training(*a))
    whole = run_ablation(none, 2, output, {"recipe": "short"})
    assert again == [("5x5 alone", 1), ("3x3 in 5x5", 1)]
    assert [(trial["training"], trial["seed"]) for trial in whole["trials"]] == done + again
    assert read_json(output, "study") == whole


def test_summary_pairs_the_seeds() -> None:
    trials = [
        {"training": name, "seed": seed, **fake_training(None, name, seed)}
        for seed in range(3)
        for name in ("3x3 in 5x5", "5x5 alone", "3x3 alone")
        if (name, seed) != ("5x5 alone", 2)
    ]
    rows = ablation_rows(trials)
    assert [(row["training"], row["kernel"], row["seeds"]) for row in rows] == [
        ("3x3 alone", "3x3", 3),
        ("5x5 alone", "5x5", 2),
        ("3x3 in 5x5", "3x3", 3),
        ("3x3 in 5x5", "5x5", 3),
    ]
    assert rows[0]["top1_mean"] == statistics.mean([80, 81, 84])
    assert rows[0]["top1_std"] == pytest.approx(statistics.stdev([80, 81, 84]))
    assert rows[0]["gap"] is rows[1]["gap"] is None
    assert rows[2]["gap"] == [pytest.approx(1.0), pytest.approx(3.0)]  # of -2, 1 and 4
    assert rows[3]["gap"] == [pytest.approx(-10.5), pytest.approx(statistics.stdev([0, 3]))]
    lines = ablation_table({"summary": rows}).splitlines()
    assert "| 3×3 alone " in lines[2] and "81.67 ± 2.08" in lines[2]
    assert "| 3×3 in 5×5 " in lines[4] and "| +1.00 ± 3.00" in lines[4]


def test_the_tool_and_its_file(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "ablation.json"
    arguments = ["--seeds", "1", "--epochs", "1", "--output", str(output), *options(images)]
    monkeypatch.setattr(sys, "argv", ["ablate_subsets.py", *arguments])
    tool = str(ROOT / "tools" / "ablate_subsets.py")
    runpy.run_path(tool, run_name="__main__")
    study = read_json(output, "study")
    assert [(trial["training"], trial["seed"]) for trial in study["trials"]] == [
        ("3x3 alone", 0),
        ("5x5 alone", 0),
        ("3x3 in 5x5", 0),
    ]
    assert [list(trial["scores"]) for trial in study["trials"]] == [
        ["3x3"],
        ["5x5"],
        ["3x3", "5x5"],
    ]
    assert study["command"].startswith("python tools/ablate_subsets.py --seeds 1 --epochs 1 ")
    assert ablation_table(study) in capsys.readouterr().out
    runpy.run_path(tool, run_name="__main__")
    assert read_json(output, "study") == study
    monkeypatch.setattr(sys, "argv", ["ablate_subsets.py", "--seeds", "0", "--output", "x.json"])
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(tool, run_name="__main__")
    assert exit_info.value.code == 2
    assert "--seeds is 0; expected 1 or more" in capsys.readouterr().err
