"""A detector in a folder for others: it finds there what it found in its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from detectron2.config import CfgNode
from safetensors import safe_open
from torch import nn

from backbones import UserError
from backbones.sharing.facts import Facts
from backbones.weights import read_checkpoint
from detection.checkpointing import DetectorCheckpointer
from detection.sharing.detector import load_detector, save_detector
from detection.sharing.run import read_run
from detection.trainer import DetectionTrainer
from tests.tiny_coco import BASE, TINY_MODEL, own_config

CLASSES = ["box", "disc", "bar"]
FACTS = Facts("tiny", "detector")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, CfgNode]:
    """A folder as ``tools/train_net.py`` leaves it, of a detector that finds something."""
    folder = tmp_path_factory.mktemp("run")
    opts = ["OUTPUT_DIR", str(folder), "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    cfg = own_config(*TINY_MODEL, *opts, "MODEL.SPNAS.WIDTH_MULT", "0.25", file=str(BASE))
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    model = DetectionTrainer.build_model(cfg).eval()
    checkpointer = DetectorCheckpointer(model, folder)
    checkpointer.classes = CLASSES
    checkpointer.save("model_final")
    return folder, model, cfg


@pytest.fixture
def shared(run: tuple[Path, nn.Module, CfgNode], tmp_path: Path) -> Path:
    weights = run[0] / "model_final.pth"
    return save_detector(tmp_path / "m", read_run(run[0]), weights, FACTS)


@torch.no_grad()
def found(model: nn.Module) -> dict[str, torch.Tensor]:
    image = 255 * torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
    (output,) = model([{"image": image, "height": 64, "width": 96}])
    instances = output["instances"]
    return {
        "boxes": instances.pred_boxes.tensor,
        "scores": instances.scores,
        "masks": instances.pred_masks,
    }


def check(model: nn.Module, other: nn.Module) -> None:
    ours, theirs = found(model), found(other)
    assert len(ours["boxes"]) > 0
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])


def test_files_and_what_is_found(shared: Path, run: tuple[Path, nn.Module, CfgNode]) -> None:
    assert {path.name for path in shared.iterdir()} == {
        *("README.md", "architecture.json", "config.yaml", "model.safetensors"),
    }
    assert str(run[0]) not in (shared / "config.yaml").read_text()
    state = torch.get_rng_state()
    model, cfg = load_detector(shared)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training and str(shared / "architecture.json") == cfg.MODEL.SPNAS.ARCH
    check(model, run[1])


def test_as_weights_of_a_run(shared: Path, run: tuple[Path, nn.Module, CfgNode]) -> None:
    """``MODEL.WEIGHTS`` names the file, which knows its classes as a checkpoint does."""
    _, model, cfg = run
    torch.manual_seed(9)
    other = DetectionTrainer.build_model(cfg).eval()
    rest = DetectorCheckpointer(other, strict=True).load(str(shared / "model.safetensors"))
    check(other, model)
    assert rest["classes"] == CLASSES
    with safe_open(shared / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert {*file.keys()} == {*model.state_dict()}
    assert {*read_checkpoint(shared / "model.safetensors")} == {"model", "classes"}


def test_the_hub(
    shared: Path, run: tuple[Path, nn.Module, CfgNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def download(repository: str, revision: str | None) -> str:
        asked.append((repository, revision))
        return str(shared)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model, _ = load_detector("you/it@v2", ["TEST.DETECTIONS_PER_IMAGE", "5"])
    check(model, run[1])
    assert asked == [("you/it", "v2")]

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"cannot fetch 'you/it' .*: no network\); check the name"):
        load_detector("you/it")


def test_mistakes(shared: Path, run: tuple[Path, nn.Module, CfgNode], tmp_path: Path) -> None:
    weights = run[0] / "model_final.pth"
    with pytest.raises(UserError, match=r"holds a model already .*--replace"):
        save_detector(shared, read_run(run[0]), weights, FACTS)
    content = torch.load(weights)
    name = "backbone.bottom_up.layers.0.project.conv.weight"
    content["model"][name] = torch.zeros(1, 2, 3, 4)
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match="belongs to another architecture"):
        save_detector(tmp_path / "n", read_run(run[0]), tmp_path / "other.pth", FACTS)
    assert not (tmp_path / "n").exists()
    (shared / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"holds no detector: expected config\.yaml"):
        load_detector(shared)
