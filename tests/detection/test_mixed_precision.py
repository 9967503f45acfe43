"""A detector in bfloat16 on the CPU: it learns what it learns in single precision, and resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import Tensor

from detection.engine.precision import MixedPrecisionTrainer, Precision, StepScaler
from detection.trainer import DetectionTrainer


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.MODEL.SPNAS.WIDTH_MULT = 0.25
    tiny_cfg.SOLVER.AMP.ENABLED, tiny_cfg.SOLVER.AMP.DTYPE = True, "bfloat16"
    tiny_cfg.SOLVER.MAX_ITER, tiny_cfg.SOLVER.STEPS = 4, (2,)
    tiny_cfg.SOLVER.WARMUP_ITERS = 2
    tiny_cfg.SOLVER.CHECKPOINT_PERIOD = 2
    tiny_cfg.DATASETS.TEST = ()
    return tiny_cfg


def losses(cfg: CfgNode) -> dict[str, float]:
    """Of a first step, with its types checked."""
    torch.manual_seed(0)
    trainer = DetectionTrainer(cfg)
    types = []
    conv = trainer.model.backbone.bottom_up.layers[1].expand.conv
    conv.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    found: dict[str, float] = {}

    class Note(HookBase):
        def after_step(self) -> None:
            found.update({k: v for k, (v, _) in self.trainer.storage.latest().items()})
            raise KeyboardInterrupt

    trainer.register_hooks([Note()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert types == [Precision.of(cfg).dtype or torch.float32]
    return {name: value for name, value in found.items() if "loss" in name}


def test_losses_are_those_of_single_precision(cfg: CfgNode) -> None:
    mixed = losses(cfg)
    cfg.SOLVER.AMP.ENABLED = False
    single = losses(cfg)
    assert mixed.keys() == single.keys() >= {"loss_mask", "loss_cls", "loss_rpn_cls"}
    assert mixed == pytest.approx(single, rel=0.05, abs=0.02)
    assert mixed != single


def test_layouts_agree(cfg: CfgNode) -> None:
    """Mixed precision takes channels last on a GPU, too; on the CPU every detector does."""
    cfg.SOLVER.AMP.ENABLED = False
    found = []
    for cfg.MODEL.SPNAS.CHANNELS_LAST in (True, False):
        torch.manual_seed(0)
        model = DetectionTrainer.build_model(cfg)
        weight = model.backbone.bottom_up.layers[1].expand.conv.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) is True
        batch = next(iter(DetectionTrainer.build_train_loader(cfg)))
        torch.manual_seed(1)  # of the proposals
        with EventStorage():
            found.append({name: float(loss.detach()) for name, loss in model(batch).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def trained(cfg: CfgNode, infinite: tuple[int, ...], resume: bool = False) -> DetectionTrainer:
    """A training with infinite gradients in these iterations."""
    torch.manual_seed(0)
    trainer = DetectionTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    weight = trainer.model.backbone.bottom_up.stem.conv.weight
    weight.register_hook(lambda grad: grad * torch.inf if trainer.iter in infinite else grad)
    trainer.train()
    return trainer


def weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    return state


@pytest.mark.parametrize("infinite", [(), (0, 3)])
def test_resume(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, infinite: tuple[int, ...]
) -> None:
    """With loss scaling, its scale and the steps that it skipped are in the checkpoint."""
    if infinite:
        monkeypatch.setattr(Precision, "scaler", lambda self: StepScaler("cpu"))
    cfg.OUTPUT_DIR = str(tmp_path / "whole")
    whole = trained(cfg, infinite)
    assert isinstance(whole._trainer, MixedPrecisionTrainer)
    assert whole.scaler.skipped == len(infinite)
    assert whole.scheduler.last_epoch == 4 - len(infinite)
    cfg.OUTPUT_DIR = str(tmp_path / "parts")
    trained(cfg, infinite)
    (tmp_path / "parts" / "model_final.pth").unlink()
    (tmp_path / "parts" / "model_0000003.pth").unlink()
    (tmp_path / "parts" / "last_checkpoint").write_text("model_0000001.pth")
    resumed = trained(cfg, infinite, resume=True)
    assert resumed.start_iter == 2
    assert resumed.scaler.skipped == whole.scaler.skipped
    assert resumed.scheduler.last_epoch == whole.scheduler.last_epoch
    expected = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "parts").items():
        assert torch.equal(value, expected[name]), name


def test_single_precision_is_detectron2s_trainer(cfg: CfgNode) -> None:
    cfg.SOLVER.AMP.ENABLED = False
    trainer = DetectionTrainer(cfg)
    assert type(trainer._trainer) is SimpleTrainer
    assert not trainer.scaler.is_enabled()
    assert trainer.scaler.taken
