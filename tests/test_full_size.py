"""The README's commands for ImageNet and COCO, run as they are typed on miniatures of both.

Only ``--num-gpus`` is changed, and pairs at the end make the run small.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from backbones import Architecture, LatencyTable, create_model, predict_runtime
from backbones.weights import read_checkpoint
from tests.miniatures import CLASSES, CROWDED, EMPTY, GREY, write_coco, write_imagenet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SEARCH_FOLDER = Path("output/search_imagenet_pixel1_80ms")
METRICS = {"AP", "AP50", "AP75", "APs", "APm", "APl"}

SMALL = ["DATALOADER.NUM_WORKERS", "0", "WANDB.ENABLED", "False"]
# Three steps of 32 images.
SMALL_IMAGENET = [
    *SMALL,
    *("SOLVER.IMS_PER_BATCH", "32", "SOLVER.WARMUP_EPOCHS", "0.05"),
    *("CLASSIFICATION.EPOCHS", "0.096", "CLASSIFICATION.INPUT_SIZE", "32"),
    *("SEARCH.CALIBRATION_BATCHES", "2", "VIS_PERIOD", "1"),
]
# Two steps of two images. Without a threshold on the score there is something to evaluate.
SMALL_COCO = [
    *SMALL,
    *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "TEST.DETECTIONS_PER_IMAGE", "10"),
    *("INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "32", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "50", "MODEL.RETINANET.SCORE_THRESH_TEST", "0.0"),
]


def readme_commands() -> list[list[str]]:
    """The commands of the first block below "The job at full size", as lists of words."""
    section = (ROOT / "README.md").read_text().split("## The job at full size")[1]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert block
    lines = block[1].replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words for words in commands if words]


def make_workplace(folder: Path) -> Path:
    """The top of a checkout, as far as the commands see it, without its other files."""
    for name in ("configs", "tools"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def environment(workplace: Path) -> dict[str, str]:
    """A machine without a GPU, with the data sets where the README expects them."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    datasets = str(workplace / "datasets")
    return {
        **os.environ,
        "PYTHONPATH": path,
        "DETECTRON2_DATASETS": datasets,
        "CUDA_VISIBLE_DEVICES": "",
    }


def run(workplace: Path, words: list[str], *options: str) -> str:
    """Runs a command of the README on the CPU, with pairs appended; returns what it printed."""
    assert words[0] == "python"
    assert words[words.index("--num-gpus") + 1] == "8"
    words = [sys.executable, *words[1:], *options]
    words[words.index("--num-gpus") + 1] = "0"
    done = subprocess.run(
        words, cwd=workplace, env=environment(workplace), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    assert "Warning" not in done.stderr
    return done.stdout


def results(folder: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())[stage]
    return found


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [line["total_loss"] for line in lines if "total_loss" in line]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user types the commands; the data sets are in ``datasets/``."""
    folder = make_workplace(tmp_path_factory.mktemp("full_size"))
    write_imagenet(folder / "datasets")
    write_coco(folder / "datasets")
    return folder


@pytest.fixture(scope="module")
def search_output(workplace: Path) -> str:
    return run(workplace, readme_commands()[0], *SMALL_IMAGENET)


@pytest.fixture(scope="module")
def classifier_output(workplace: Path, search_output: str) -> str:
    return run(workplace, readme_commands()[1], *SMALL_IMAGENET)


@pytest.fixture(scope="module")
def detector_output(workplace: Path, classifier_output: str) -> str:
    """Without a learning rate: the weights at the end are those at the beginning."""
    return run(workplace, readme_commands()[2], *SMALL_COCO, "SOLVER.BASE_LR", "0.0")


def test_the_miniatures_have_what_the_real_ones_have(workplace: Path) -> None:
    files = sorted((workplace / "datasets/imagenet/val").glob("n????????/*.JPEG"))
    assert len(files) == CLASSES
    kinds = [(image.format, image.mode) for image in map(Image.open, files)]
    assert {("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")} == set(kinds)

    coco = COCO(workplace / "datasets/coco/annotations/instances_val2017.json")
    assert len(coco.getCatIds()) == 80
    assert max(coco.getCatIds()) == 90
    records = coco.loadImgs(sorted(coco.getImgIds()))
    folder = workplace / "datasets/coco/val2017"
    assert [Image.open(folder / r["file_name"]).mode == "L" for r in records].index(True) == GREY
    objects = [coco.loadAnns(coco.getAnnIds([record["id"]])) for record in records]
    assert [len(found) for found in objects].index(0) == EMPTY
    (crowd,) = [found for found in objects[CROWDED] if found["iscrowd"]]
    assert isinstance(crowd["segmentation"]["counts"], list)
    assert coco.annToMask(crowd).sum() == crowd["area"]
    singles = [item for found in objects for item in found if not item["iscrowd"]]
    assert any(len(item["segmentation"]) > 1 for item in singles)
    for item in singles:
        assert coco.annToMask(item).sum() == pytest.approx(item["area"], rel=0.1)
    areas = [item["area"] for item in singles]
    assert min(areas) < 32**2
    assert any(32**2 < area < 96**2 for area in areas)
    assert max(areas) > 96**2


def test_search_ends_at_the_target(workplace: Path, search_output: str) -> None:
    folder = workplace / SEARCH_FOLDER
    assert f"Wrote architecture.json and backbone.pth to {SEARCH_FOLDER}" in search_output
    architecture = Architecture.load(folder / "architecture.json")
    runtime = predict_runtime(architecture, LatencyTable.load("pixel1"))
    assert 0.99 * 80 <= runtime <= 80
    found = results(folder, "search")
    assert found["target_runtime"] == 80
    assert found["predicted_runtime"] == pytest.approx(runtime, abs=1e-3)
    assert math.isfinite(found["val"]["loss"])
    assert len(losses(folder)) == 3
    create_model(folder / "architecture.json", checkpoint_path=folder / "backbone.pth")
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert architecture.name in report and "importance" in report


def test_the_classifier_has_the_architecture_found(workplace: Path, classifier_output: str) -> None:
    folder = workplace / "output" / "classifier"
    assert "Wrote architecture.json and backbone.pth to output/classifier" in classifier_output
    assert "on 1000 images" in classifier_output
    found = Architecture.load(workplace / SEARCH_FOLDER / "architecture.json")
    assert Architecture.load(folder / "architecture.json") == found
    state = read_checkpoint(folder / "backbone.pth")["model"]
    assert state["classifier.weight"].shape == (CLASSES, found.head.out_channels)
    scores = results(folder, "classification")
    assert scores["architecture"] == found.name
    assert scores["predicted_runtime"] <= 80
    assert 0 <= scores["val"]["top1"] <= scores["val"]["top5"] <= 100
    assert len(losses(folder)) == 3


@pytest.mark.usefixtures("detector_output")
def test_the_detector_starts_from_the_classifier(workplace: Path) -> None:
    """Every tensor of the backbone is at home; only pyramid and heads are new."""
    lines = (workplace / "output/mask_rcnn/log.txt").read_text().splitlines()
    (place,) = (i for i, line in enumerate(lines) if "of the model are not in the file" in line)
    new = lines[place + 1].split(" of them: ")[-1].split(", ")
    assert {name.split(".")[0] for name in new} == {"backbone", "proposal_generator", "roi_heads"}
    assert not any("bottom_up" in name for name in new)
    start = read_checkpoint(workplace / "output/classifier/backbone.pth")["model"]
    end = read_checkpoint(workplace / "output/mask_rcnn/model_final.pth")["model"]
    trunk = [name for name in start if name.startswith(("stem.", "layers."))]
    of_detector = [name for name in end if name.startswith("backbone.bottom_up.")]
    assert {f"backbone.bottom_up.{name}" for name in trunk} == set(of_detector)
    for name in trunk:
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(end[f"backbone.bottom_up.{name}"], start[name]), name


def check_detection(folder: Path, tasks: set[str]) -> dict[str, Any]:
    """AP of every task, beside what the backbone costs."""
    found = results(folder, "detection")
    assert set(found["scores"]) == {"coco_2017_val"}
    scores = found["scores"]["coco_2017_val"]
    assert set(scores) == tasks
    for task in tasks:
        assert set(scores[task]) >= METRICS
        assert all(0 <= scores[task][metric] <= 100 for metric in METRICS)
        assert len([name for name in scores[task] if name.startswith("AP-")]) == 80
    cost = found["cost"]
    assert cost["params_detector"] > cost["params_classifier"] > cost["params_backbone"] > 1e6
    assert cost["macs_classifier"] > 1e8
    assert cost["macs_backbone"] > 1e7
    assert 0.99 * 80 <= cost["runtime"] <= 80
    metrics = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert all(math.isfinite(m["total_loss"]) for m in metrics if "total_loss" in m)
    predictions = folder / "inference" / "coco_2017_val" / "coco_instances_results.json"
    assert json.loads(predictions.read_text())
    return found


def test_detection_ends_with_the_table(workplace: Path, detector_output: str) -> None:
    check_detection(workplace / "output" / "mask_rcnn", {"bbox", "segm"})
    for word in ("coco_2017_val", "AP_S", "AP_M", "AP_L", "Params (M)", "MACs (G)", "predicted"):
        assert word in detector_output
    rows = [line for line in detector_output.splitlines() if line.startswith("| coco_2017_val |")]
    assert [row.split("|")[2].strip() for row in rows] == ["box", "mask"]


@pytest.mark.parametrize(
    ("config", "tasks"),
    [
        ("mask_rcnn_spnas_fpn_3x", {"bbox", "segm"}),
        ("retinanet_spnas_fpn_1x", {"bbox"}),
    ],
)
def test_the_other_configs_for_coco(
    workplace: Path, classifier_output: str, config: str, tasks: set[str]
) -> None:
    words = [
        word.replace("mask_rcnn_spnas_fpn_1x", config).replace("output/mask_rcnn", config)
        for word in readme_commands()[2]
    ]
    run(workplace, words, *SMALL_COCO)
    check_detection(workplace / config, tasks)


def test_without_eight_gpus_the_commands_say_so_at_once(tmp_path: Path) -> None:
    workplace = make_workplace(tmp_path)
    commands = readme_commands()
    assert len(commands) == 3
    for words in commands:
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=workplace,
            env=environment(workplace),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            "error: --num-gpus is 8, but this machine has 0 usable GPUs; use --num-gpus 0 to run "
            "on the CPU"
        ]
    assert not (workplace / "output").exists()
