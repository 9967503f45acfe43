"""In a step, the host asks for no number that a device is still computing.

There is no device here: reading a tensor is refused instead, in our functions and in PyTorch's own,
forward and backward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.classification.classifier import ClassifierTrainer
from search.classification.trainer import ClassificationTrainer
from search.config import load_search_config
from search.runs.classification import SearchTrainer
from search.runs.detector import DetectorSearchTrainer
from search.runs.detector_backbone import SupernetBackbone
from search.runs.run import check_search
from tests.search.conftest import SHORT, interrupt_at, make_cfg
from tests.tiny_coco import TINY_MODEL

READS = ("item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__")
INDEXING = ("index", "index_put", "index_put_")
OPERATIONS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")


class WaitError(Exception):
    """The host asked for a number."""


class _RefuseOperations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # a mask has as many places as it is true in
        masks = [index for index in args[1] if index is not None] if name in INDEXING else []
        if name in OPERATIONS or any(mask.dtype == torch.bool for mask in masks):
            raise WaitError(name)
        return func(*args, **(kwargs or {}))


def refused(name: str) -> Callable[..., Any]:
    def read(*_: Any, **__: Any) -> Any:
        raise WaitError(name)

    return read


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    with _RefuseOperations(), mock.patch.multiple(torch.Tensor, **{n: refused(n) for n in READS}):
        yield


@pytest.mark.parametrize(
    "read",
    [
        float,
        bool,
        torch.Tensor.tolist,
        lambda x: x.item(),
        lambda x: x[x > 0],
        torch.Tensor.nonzero,
    ],
)
def test_reading_is_caught(read: Callable[[torch.Tensor], Any]) -> None:
    read = {torch.Tensor.tolist: lambda x: x.tolist()}.get(read, read)
    with pytest.raises(WaitError), no_waits():
        read(torch.ones(1, requires_grad=True))
    assert float(torch.ones(1)) == 1


FORMULATIONS = ("sigmoid", "ste", "softmax", "multi-path", "multi-path-gumbel", "evolution")


def search(formulation: str) -> Callable[[Path, Path], ClassificationTrainer]:
    def make(images: Path, folder: Path) -> SearchTrainer:
        own = ("SEARCH.FORMULATION", formulation, "SEARCH.HELD_OUT", "0.5", *STEPS)
        return SearchTrainer(make_cfg("search/digits_small.yaml", images, folder, *own))

    return make


def classifier(images: Path, folder: Path) -> ClassifierTrainer:
    own = ("MODEL.SPNAS.ARCH", "mnasnet_b1", "MODEL.SPNAS.WIDTH_MULT", "0.25")
    own += ("CLASSIFICATION.EMA_DECAY", "0.9", *STEPS)
    return ClassifierTrainer(make_cfg("classification/digits.yaml", images, folder, *own))


STEPS = (
    *(*SHORT, "VIS_PERIOD", "100", "CLASSIFICATION.EPOCHS", "2.0", "SOLVER.ACCUMULATE", "2"),
    *("SOLVER.OPTIMIZER", "rmsproptf"),  # Adam counts its steps in a tensor on the host
)
MAKERS = {**{name: search(name) for name in FORMULATIONS}, "classifier": classifier}


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_waits_for_nothing(images: Path, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    trainer = MAKERS[name](images, tmp_path)
    trainer.skipping._on_gpu = True  # where it lets the device decide
    step, watched = trainer.run_step, []

    def run_step() -> None:
        if trainer.iter < 2:  # makes the optimizer's state, of weights and of decisions
            step()
            return
        loader = trainer._batches
        trainer._batches = iter([next(loader), next(loader)])  # which the host makes
        with no_waits():
            step()
        trainer._batches = loader
        watched.append(trainer.iter)

    trainer.run_step = run_step  # type: ignore[method-assign]
    interrupt_at(trainer, 4)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert watched == [2, 3]
    latest = trainer.storage.latest()
    assert latest["total_loss"][1] == 3
    assert latest["total_loss"][0] > 0


def test_our_part_of_a_search_on_a_detector(
    tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backbone and runtime term; Detectron2's heads ask for many numbers."""
    torch.set_num_threads(1)
    opts = [
        *(*TINY_MODEL, "DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)"),
        *("SOLVER.MAX_ITER", "8", "SEARCH.LATENCY_TABLE", "pixel1", "SEARCH.TARGET", "80.0"),
        *("SEARCH.DEPLOY_SIZE", "[224, 224]", "OUTPUT_DIR", str(tmp_path / "run")),
    ]
    cfg = load_search_config("search/mask_rcnn_digits.yaml", opts)
    check_search(cfg)
    watched: list[str] = []

    def watch(kind: type, name: str) -> None:
        method = getattr(kind, name)

        def call(*arguments: Any) -> Any:
            with no_waits():
                found = method(*arguments)
            watched.append(name)
            return found

        monkeypatch.setattr(kind, name, call)

    watch(SupernetBackbone, "forward")
    watch(DetectorSearchTrainer, "_with_runtime")
    trainer = DetectorSearchTrainer(cfg)
    assert isinstance(trainer.detector, nn.Module)
    interrupt_at(trainer, 2)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert watched == ["forward", "_with_runtime"] * 2
