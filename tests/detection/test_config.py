"""Every configuration of the project builds, in Detectron2's habits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.modeling import build_model

from backbones import load_architecture
from backbones.files import leaves
from backbones.published import find_published
from backbones.zoo import list_models, published_weights
from detection import SPNASBackbone, add_spnas_config
from detection.engine.checkpoint import Checkpointer
from detection.modeling.backbone import build_trunk
from detection.modeling.meta_arch import num_classes

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "detection").glob("*.yaml"))


def load(path: Path, *options: str) -> CfgNode:
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
    return cfg


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_build_and_predict(path: Path) -> None:
    torch.manual_seed(0)
    cfg = load(path, "MODEL.TIMM.PRETRAINED", "False")
    own = num_classes(cfg) == 0  # the data say how many, which a run settles
    if own:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    model = build_model(cfg).eval()
    # Random weights; all that counts here is that the parts fit together.
    with torch.no_grad():
        output = model([{"image": torch.rand(3, 64, 96) * 255, "height": 128, "width": 192}])
    instances = output[0]["instances"]
    assert instances.image_size == (128, 192)
    assert instances.has("pred_masks") == cfg.MODEL.MASK_ON
    assert own == path.stem.startswith("custom")
    assert num_classes(cfg) == (3 if own else 10 if "digits" in path.stem else 80)
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.BACKBONE.FREEZE_AT == 0
    anchors = model.get_submodule(
        "anchor_generator" if "retinanet" in path.stem else "proposal_generator.anchor_generator"
    )
    levels = cfg.MODEL.RPN.IN_FEATURES
    expected = 5 if "retinanet" in path.stem else len(levels)
    assert len(list(anchors.cell_anchors)) == expected


def test_coco_configs_have_detectron2s_schedule() -> None:
    one = load(ROOT / "configs/detection/mask_rcnn_spnas_fpn_1x.yaml").SOLVER
    three = load(ROOT / "configs/detection/mask_rcnn_spnas_fpn_3x.yaml").SOLVER
    assert (one.IMS_PER_BATCH, one.BASE_LR, one.MAX_ITER) == (16, 0.02, 90000)
    assert (three.IMS_PER_BATCH, three.BASE_LR, three.MAX_ITER) == (16, 0.02, 270000)
    assert one.STEPS == (60000, 80000)
    assert three.STEPS == (210000, 250000)


@pytest.mark.parametrize("schedule", ["1x", "3x"])
@pytest.mark.parametrize("network", sorted(set(list_models()) - {"spnas_100"}))
def test_every_network_of_the_zoo_has_the_one_recipe(network: str, schedule: str) -> None:
    cfg = load(ROOT / f"configs/detection/mask_rcnn_{network}_fpn_{schedule}.yaml")
    spnas = load(ROOT / f"configs/detection/mask_rcnn_spnas_fpn_{schedule}.yaml")
    assert network == cfg.MODEL.SPNAS.ARCH
    if cfg.MODEL.WEIGHTS:
        assert find_published(cfg.MODEL.WEIGHTS).architecture == load_architecture(network)
    else:
        assert not [w for w in published_weights(load_architecture(network)) if w.library == "timm"]
    mine, other = leaves(dict(cfg)), leaves(dict(spnas))
    changed = {key for key in mine if mine[key] != other[key]}
    pixels = {"MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"}
    assert changed - pixels <= {"MODEL.SPNAS.ARCH", "MODEL.WEIGHTS", "OUTPUT_DIR"}
    images = load_architecture(network).input
    assert (images.pixel_mean, images.pixel_std) == (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)


@pytest.mark.parametrize("name", ["custom", "custom_lite"])
def test_own_photos_start_from_weights_of_the_network(name: str) -> None:
    model = load(ROOT / f"configs/detection/{name}.yaml").MODEL
    architecture = load_architecture(model.SPNAS.ARCH)
    assert find_published(model.WEIGHTS).architecture == architecture
    assert architecture.input.pixel_mean == model.PIXEL_MEAN
    assert architecture.input.pixel_std == model.PIXEL_STD


def test_the_papers_recipe() -> None:
    solver = load(ROOT / "configs/detection/mask_rcnn_spnas_fpn_paper.yaml").SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (64, 0.08, 1e-4)
    assert pytest.approx(0.0067) == solver.BASE_LR * solver.WARMUP_FACTOR
    assert (solver.STEPS, solver.MAX_ITER) == ((15000, 20000), 22500)


def test_lazy_config_builds() -> None:
    path = ROOT / "configs" / "detection" / "mask_rcnn_spnas_fpn_lazy.py"
    model = instantiate(LazyConfig.load(str(path)).model).eval()
    assert isinstance(model.backbone.bottom_up, SPNASBackbone)
    with torch.no_grad():
        output = model([{"image": torch.zeros(3, 64, 64)}])
    assert output[0]["instances"].image_size == (64, 64)
    yaml = build_model(load(ROOT / "configs/detection/mask_rcnn_spnas_fpn_1x.yaml"))
    shapes = {name: value.shape for name, value in yaml.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes


@pytest.mark.slow
def test_a_new_users_script(tmp_path: Path) -> None:
    """Outside of the project's folder, with ``import detection`` and Detectron2 alone."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import detection\n"
        "from detectron2.config import get_cfg\n"
        "from detectron2.modeling import build_model\n"
        "from detectron2.data import DatasetCatalog\n"
        "cfg = get_cfg()\n"
        "detection.add_spnas_config(cfg)\n"
        f"cfg.merge_from_file({str(ROOT / 'configs/detection/mask_rcnn_spnas_fpn_1x.yaml')!r})\n"
        "cfg.MODEL.DEVICE = 'cpu'\n"
        "print(type(build_model(cfg).backbone.bottom_up).__name__)\n"
        "print({'digits_train', 'digits_val'} <= set(DatasetCatalog.list()))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["SPNASBackbone", "True"]


def test_without_the_keys_the_message_says_how(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_spnas_backbone"
    cfg.MODEL.DEVICE = "cpu"
    with pytest.raises(ValueError, match=r"call detection\.add_spnas_config"):
        build_model(cfg)


def test_default_predictor(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    model = build_model(tiny_cfg)
    Checkpointer(model, tmp_path).save("model")
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    predictor = DefaultPredictor(tiny_cfg)
    output = predictor(torch.zeros(48, 64, 3, dtype=torch.uint8).numpy())
    assert output["instances"].image_size == (48, 64)
    for name, value in model.state_dict().items():
        assert torch.equal(predictor.model.state_dict()[name], value), name


def test_stock_default_trainer(tiny_cfg: CfgNode) -> None:
    tiny_cfg.DATASETS.TEST = ()
    tiny_cfg.SOLVER.MAX_ITER = 2
    tiny_cfg.SOLVER.STEPS = ()
    trainer = DefaultTrainer(tiny_cfg)
    stem = trainer.model.backbone.bottom_up.stem.conv.weight.detach().clone()
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert (Path(tiny_cfg.OUTPUT_DIR) / "model_final.pth").is_file()
    assert not torch.equal(trainer.model.backbone.bottom_up.stem.conv.weight, stem)


def test_an_architecture_file_and_a_width(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    from backbones import load_architecture

    architecture = load_architecture("spnas_100")
    architecture.save(tmp_path / "architecture.json")
    tiny_cfg.MODEL.SPNAS.ARCH = str(tmp_path / "architecture.json")
    tiny_cfg.MODEL.SPNAS.WIDTH_MULT = 0.5
    bottom_up = build_model(tiny_cfg).backbone.bottom_up
    expected = build_trunk(architecture.scaled(0.5), "BN").state_dict()
    assert {k: v.shape for k, v in bottom_up.state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }
