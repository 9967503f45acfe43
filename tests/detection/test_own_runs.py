"""What own data decide of a configuration, and runs on them: trained, evaluated, compared."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from backbones import UserError
from backbones.files import read_json
from detection import add_spnas_config
from detection.data.resolve import resolve_data
from detection.engine.config_file import load_config
from detection.engine.metrics import read_metrics
from detection.trainer import DetectionTrainer
from tests.tiny_coco import BASE, CATEGORIES, ROOT, TINY_MODEL, own_config

MASK_RCNN, RETINANET = "MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.RETINANET.NUM_CLASSES"


@pytest.mark.parametrize(
    ("architecture", "key"), [("GeneralizedRCNN", MASK_RCNN), ("RetinaNet", RETINANET)]
)
def test_classes_of_the_data(architecture: str, key: str, photos: Path) -> None:
    opts = ("MODEL.META_ARCHITECTURE", architecture, key, "0")
    cfg, notes = resolve_data(own_config("DATASETS.TRAIN", str(photos / "train"), *opts))
    assert notes[1:] == [f"{key} is 3, as in 'photos/train': box, disc, bar"]
    node = cfg.MODEL.RETINANET if key == RETINANET else cfg.MODEL.ROI_HEADS
    assert node.NUM_CLASSES == 3
    assert MetadataCatalog.get("photos/train").get("thing_classes") is None  # not loaded for it


def test_classes_of_registered_data(
    photos: Path, tiny_coco: Path, register: Callable[..., str]
) -> None:
    for name, count in [
        ("coco_2017_train", 80),
        ("digits_train", 10),
        ("tiny_train", len(CATEGORIES)),
        (register(photos / "val.json", photos / "val"), 3),
    ]:
        cfg, _ = resolve_data(own_config("DATASETS.TRAIN", name, MASK_RCNN, "0"))
        assert count == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    DatasetCatalog.register("a_function", lambda: [])
    with pytest.raises(UserError, match="data set 'a_function' has no classes"):
        resolve_data(own_config("DATASETS.TRAIN", "a_function", MASK_RCNN, "0"))
    MetadataCatalog.get("a_function").thing_classes = ["one"]
    cfg, _ = resolve_data(own_config("DATASETS.TRAIN", "a_function", MASK_RCNN, "0"))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1


def test_another_number_of_classes_is_refused(photos: Path, tiny_cfg: CfgNode) -> None:
    tiny_cfg.DATASETS.TRAIN = (str(photos / "train"),)
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 4
    with pytest.raises(UserError, match=r"NUM_CLASSES is 4, but .*; set .*NUM_CLASSES 3"):
        DetectionTrainer(tiny_cfg)


def test_a_trainer_in_python(photos: Path, tiny_cfg: CfgNode) -> None:
    """A script of one's own names paths as well, and leaves the number to the data."""
    tiny_cfg.DATASETS.TRAIN = (str(photos / "train"),)
    tiny_cfg.DATASETS.TEST = (str(photos / "val.json"),)
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 0
    trainer = DetectionTrainer(tiny_cfg)
    assert trainer.cfg.DATASETS.TEST == ("photos/val",)
    assert trainer.model.roi_heads.num_classes == 3


def test_no_training_data_at_all() -> None:
    with pytest.raises(UserError, match="DATASETS.TRAIN is empty; .*DATA.ROOT photos"):
        resolve_data(own_config())


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        # five of the six images have an object
        ({"SOLVER.EPOCHS": "6", "SOLVER.IMS_PER_BATCH": "2"}, (15, (11, 14), 1)),
        ({"SOLVER.EPOCHS": "600", "SOLVER.IMS_PER_BATCH": "2"}, (1500, (1125, 1350), 100)),
        ({"SOLVER.EPOCHS": "6", "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "False"}, (2, (), 1)),
        ({"SOLVER.EPOCHS": "0.01"}, (1, (), 1)),
        ({"SOLVER.EPOCHS": "0"}, (2000, (1500, 1800), 100)),
    ],
)
def test_epochs(opts: dict[str, str], expected: tuple[object, ...], photos: Path) -> None:
    schedule = ("SOLVER.MAX_ITER", "2000", "SOLVER.STEPS", "(1500, 1800)")
    pairs = [item for pair in opts.items() for item in pair]
    data = ("DATASETS.TRAIN", str(photos / "train"), "SOLVER.WARMUP_ITERS", "100")
    cfg, _ = resolve_data(own_config(*data, *schedule, *pairs))
    node = cfg.SOLVER
    assert expected == (node.MAX_ITER, node.STEPS, node.WARMUP_ITERS)
    assert node.EPOCHS == 0


def test_epochs_of_other_data(tiny_coco: Path) -> None:
    cfg, notes = resolve_data(
        own_config("DATASETS.TRAIN", "('tiny_train', 'tiny_val')", "SOLVER.EPOCHS", "16")
    )
    assert cfg.SOLVER.MAX_ITER == 10
    assert notes[0].startswith("SOLVER.EPOCHS 16 on 10 images by 16: SOLVER.MAX_ITER 10")
    with pytest.raises(UserError, match="SOLVER.EPOCHS is -1; expected 0"):
        resolve_data(own_config("DATASETS.TRAIN", "tiny_train", "SOLVER.EPOCHS", "-1"))


def test_the_small_detector_of_a_cpu(photos: Path, tmp_path: Path) -> None:
    """Trains as its file says, at the images' own size, and its network slower than the rest."""
    opts = ["DATA.ROOT", str(photos), "INPUT.MIN_SIZE_TRAIN", "(72,)", "SOLVER.EPOCHS", "2"]
    opts += ["MODEL.WEIGHTS", "", "INPUT.MIN_SIZE_TEST", "72", "OUTPUT_DIR", str(tmp_path)]
    file = str(ROOT / "configs/detection/custom_lite.yaml")
    args = argparse.Namespace(config_file=file, opts=opts)
    trainer = DetectionTrainer(load_config(args, add_spnas_config))
    trainer.train()
    assert trainer.iter == 2  # 5 images with an object, by 4
    rates = {group["initial_lr"] for group in trainer.optimizer.param_groups}
    assert sorted(rates) == pytest.approx([0.0002, 0.001])
    results = read_json(tmp_path / "results.json", "results")["detection"]
    assert set(results["scores"]["photos/val"]) == {"bbox", "segm"}
    assert results["cost"]["params_classifier"] == 4_652_008  # EfficientNet-Lite0's 4.7 M


def test_a_run_by_path(
    train_net: Callable[..., tuple[int, str]], photos: Path, tmp_path: Path
) -> None:
    """Trained, evaluated again from its own config.yaml, and resumed."""
    opts = ("DATA.ROOT", str(photos), MASK_RCNN, "0", "TEST.NUM_VISUALIZATIONS", "1")
    code, text = train_net(*opts)
    assert code == 0, text
    assert f"{MASK_RCNN} is 3, as in 'photos/train': box, disc, bar" in text
    assert "Training on photos/train: 5 images" in text
    folder = tmp_path / "run"
    assert list(read_json(folder / "results.json", "results")["detection"]["scores"]) == [
        "photos/val"
    ]
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["DATASETS"]["TRAIN"] == ["photos/train"]
    assert written["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 3
    assert written["DATA"] == {
        "ROOT": "",
        "SETS": [f"photos/{s}={photos}/{s}.json:{photos}/{s}" for s in ("train", "val")],
    }
    assert (folder / "inference/photos/val/coco_instances_results.json").is_file()
    weights = ("MODEL.WEIGHTS", str(folder / "model_final.pth"))
    two = ("DATASETS.TRAIN", "()", "DATASETS.TEST", f"('{photos}/val', '{photos}/train.json')")
    code, text = train_net("--eval-only", *two, MASK_RCNN, "0", *weights)
    assert code == 0, text
    scores = read_json(folder / "evaluation/results.json", "results")["detection"]["scores"]
    assert list(scores) == ["photos/val", "photos/train"]
    code, text = train_net("--resume", *opts, "SOLVER.MAX_ITER", "3", *two[2:])
    assert code == 0, text
    assert "Resuming at iteration 2 of 3" in text
    # the same classes in another order, and no training set to compare with
    content = json.loads((photos / "val.json").read_text())
    names = [item["name"] for item in content["categories"]]
    for item, name in zip(content["categories"], [*names[1:], names[0]], strict=True):
        item["name"] = name
    (photos / "turned.json").write_text(json.dumps(content))
    other = ("DATASETS.TRAIN", "()", "DATASETS.TEST", f"{photos}/turned.json:{photos}/val")
    code, text = train_net("--eval-only", *other, MASK_RCNN, "0", *weights)
    assert code == 2
    assert f"class 0 of data set 'photos/turned' is '{names[1]}', and '{names[0]}' of the" in text


def test_metrics_of_two_test_sets(
    train_net: Callable[..., tuple[int, str]], photos: Path, tmp_path: Path
) -> None:
    two = f"('{photos}/val', '{photos}/train.json:{photos}/train')"
    code, text = train_net("DATASETS.TEST", two, "SOLVER.MAX_ITER", "1")
    assert code == 0, text
    (row,) = [row for row in read_metrics(tmp_path / "run") if "photos/val/bbox/AP" in row]
    assert "photos/train/segm/APs" in row


def test_a_mistake_is_one_line(train_net: Callable[..., tuple[int, str]], photos: Path) -> None:
    (photos / "val.json").unlink()
    code, text = train_net("DATA.ROOT", str(photos))
    assert code == 2
    assert text.rstrip().splitlines()[-1].startswith("error: DATA.ROOT is '")
    assert "Traceback" not in text
    assert "no validation set" in text


@pytest.mark.slow
def test_a_comparison_by_path(photos: Path, tmp_path: Path) -> None:
    """Its runs are processes of their own; a second call finds them finished."""
    content = json.loads((photos / "val.json").read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["area"] = (500, 5_000, 50_000)[number % 3]  # of all scales
    (photos / "val.json").write_text(json.dumps(content))
    command = [
        *(sys.executable, "tools/compare_backbones.py", "--config-file", str(BASE)),
        *("--architectures", "spnas_100", "--num-gpus", "0", "--output", str(tmp_path / "out")),
        *TINY_MODEL,
        *("DATA.ROOT", str(photos), MASK_RCNN, "0", "SOLVER.EPOCHS", "0.4", "SOLVER.STEPS", "()"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert "spnas_100" in done.stdout
    found = read_json(tmp_path / "out/spnas_100/seed0/results.json", "results")
    assert list(found["detection"]["scores"]) == ["photos/val"]
    command += ["SOLVER.EPOCHS", "0.8"]
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.returncode == 2
    assert "SOLVER.MAX_ITER is 1, not 2" in done.stderr
