"""The evaluator, the final table, and the drawings."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.events import EventStorage
from PIL import Image
from pycocotools import mask as mask_util
from torch import nn

from backbones import LatencyTable, UserError, load_architecture, predict_runtime
from detection import evaluation
from detection.data.checks import load_records
from detection.deployment import runtime_table
from detection.evaluation import (
    PREDICTIONS_FILE,
    COCOEvaluator,
    _class_table,
    _table,
    build_evaluator,
    score_file,
)
from detection.report import (
    count_macs,
    final_results,
    final_rows,
    final_table,
    model_cost,
    usual_test_size,
)
from detection.visualization import PredictionImages


def perfect(record: dict[str, Any]) -> dict[str, Any]:
    """The truth of an image as a model would predict it."""
    size = record["height"], record["width"]
    wanted = [a for a in record["annotations"] if not a["iscrowd"]]
    instances = Instances(size)
    boxes = np.array([a["bbox"] for a in wanted], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances.pred_boxes = Boxes(torch.from_numpy(boxes))
    instances.scores = torch.full((len(wanted),), 0.9)
    instances.pred_classes = torch.tensor([a["category_id"] for a in wanted], dtype=torch.long)
    masks = torch.zeros(len(wanted), *size, dtype=torch.bool)
    for mask, annotation in zip(masks, wanted, strict=True):
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, list):
            segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, *size))
        mask |= torch.from_numpy(mask_util.decode(segmentation).astype(bool))
    instances.pred_masks = masks
    return {"instances": instances}


def run(evaluator: Any, change: Any = lambda output: output) -> Any:
    evaluator.reset()
    for record in load_records("tiny_val"):
        evaluator.process([record], [change(perfect(record))])
    return evaluator.evaluate()


def none(output: dict[str, Any]) -> dict[str, Any]:
    return {"instances": output["instances"][torch.zeros(0, dtype=torch.long)]}


@pytest.mark.parametrize("backend", ["faster", "pycocotools"])
def test_perfect_and_empty_predictions(tiny_coco: Path, tmp_path: Path, backend: str) -> None:
    tasks = ("bbox", "segm")
    evaluator = COCOEvaluator("tiny_val", tasks, output_dir=str(tmp_path), backend=backend)
    found = run(evaluator)
    assert list(found) == ["bbox", "segm"]
    for scores in found.values():
        for name in ("AP", "AP50", "AP75", "APs", "AP-box", "AP-disc", "AP-bar"):
            assert scores[name] == pytest.approx(100), name
        assert math.isnan(scores["APl"])
    empty = run(evaluator, none)
    assert empty["bbox"]["AP"] == empty["segm"]["APs"] == 0
    assert math.isnan(empty["bbox"]["APl"])
    assert json.loads((tmp_path / PREDICTIONS_FILE).read_text()) == []


def test_classes_are_listed_three_a_row() -> None:
    lines = evaluation._class_table({f"class{i}": float(i) for i in range(80)}).splitlines()
    assert len(lines) == 2 + 27
    assert lines[-1].replace("|", " ").split() == ["class78", "78.00", "class79", "79.00"]


def test_some_images_only(tiny_coco: Path) -> None:
    evaluator = COCOEvaluator("tiny_val", ("bbox",))
    evaluator.reset()
    for record in load_records("tiny_val")[:2]:
        evaluator.process([record], [perfect(record)])
    assert evaluator.evaluate()["bbox"]["AP"] < 60
    assert evaluator.evaluate(img_ids=[100, 101])["bbox"]["AP"] == pytest.approx(100)


def test_predictions_are_written_before_they_are_scored(
    tiny_coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("scoring failed")

    monkeypatch.setattr(evaluation, "score", fail)
    with pytest.raises(RuntimeError, match="scoring failed"):
        run(COCOEvaluator("tiny_val", ("bbox", "segm"), output_dir=str(tmp_path)))
    monkeypatch.undo()
    path = tmp_path / PREDICTIONS_FILE
    written = json.loads(path.read_text())
    assert {result["category_id"] for result in written} == {3, 5, 11}
    assert all(isinstance(result["segmentation"]["counts"], str) for result in written)
    assert [item.name for item in tmp_path.iterdir()] == [PREDICTIONS_FILE]
    scores = score_file(path, "tiny_val", ("bbox", "segm"))
    assert scores["segm"]["AP"] == pytest.approx(100)
    assert json.loads(path.read_text()) == written


def test_bad_predictions(tiny_coco: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="COCO_BACKEND is 'official'"):
        COCOEvaluator("tiny_val", backend="official")
    with pytest.raises(UserError, match="no predictions file at"):
        score_file(tmp_path / "none.json", "tiny_val", ("bbox",))
    (tmp_path / "p.json").write_text("{}")
    with pytest.raises(UserError, match="holds no list of detections"):
        score_file(tmp_path / "p.json", "tiny_val", ("bbox",))

    def other_class(output: dict[str, Any]) -> dict[str, Any]:
        output["instances"].pred_classes += 3
        return output

    with pytest.raises(UserError, match="has class 3, but data set 'tiny_val' has 3 classes"):
        run(COCOEvaluator("tiny_val", ("bbox",)), other_class)


def test_builder(tiny_cfg: CfgNode) -> None:
    evaluator = build_evaluator(tiny_cfg, "tiny_val")
    assert isinstance(evaluator, DatasetEvaluators)
    with EventStorage() as storage:
        found = run(evaluator)
        images = storage._vis_data
    assert list(found) == ["bbox", "segm"]
    assert [name for name, *_ in images] == [f"predictions/tiny_val/{i}" for i in range(4)]
    assert images[0][1].shape == (3, 96, 2 * 72)
    assert images[1][1].shape == (3, 72, 2 * 96)
    pictures = Path(tiny_cfg.OUTPUT_DIR) / "predictions" / "tiny_val"
    assert sorted(file.name for file in pictures.iterdir()) == [f"{i}_{i}.jpg" for i in range(4)]
    assert Image.open(pictures / "0_0.jpg").size == (2 * 72, 96)
    assert (Path(tiny_cfg.OUTPUT_DIR) / "inference" / "tiny_val" / PREDICTIONS_FILE).is_file()
    tiny_cfg.TEST.NUM_VISUALIZATIONS = 0
    tiny_cfg.MODEL.MASK_ON = False
    assert list(run(build_evaluator(tiny_cfg, "tiny_val"))) == ["bbox"]


@pytest.mark.parametrize("backend", ["faster", "pycocotools"])
@pytest.mark.parametrize(("most", "counted"), [(300, 150), (100, 100), (20, 100)])
def test_as_many_detections_count_as_a_model_gives(
    register: Any, tiny_cfg: CfgNode, tmp_path: Path, most: int, counted: int, backend: str
) -> None:
    """Of 150 objects all are found; COCO's AP looks at 100."""
    boxes = [[12 * n, 0, 8, 8] for n in range(150)]
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": 64}
        for n, box in enumerate(boxes)
    ]
    image = {"id": 1, "width": 2000, "height": 20, "file_name": "a.png"}
    content = {"images": [image], "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "cells.json").write_text(json.dumps({**content, "annotations": annotations}))
    Image.new("RGB", (2000, 20)).save(tmp_path / "a.png")
    name = register(tmp_path / "cells.json")
    load_records(name)
    tiny_cfg.MODEL.MASK_ON = False
    tiny_cfg.TEST.NUM_VISUALIZATIONS = 0
    tiny_cfg.TEST.DETECTIONS_PER_IMAGE, tiny_cfg.TEST.COCO_BACKEND = most, backend
    found = Instances((20, 2000))
    found.pred_boxes = Boxes(torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]))
    found.scores = torch.linspace(1, 0.5, len(boxes))
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.long)
    evaluator = build_evaluator(tiny_cfg, name)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    recalls = 1 + 100 * counted // len(boxes)
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100 * recalls / 101)


def test_what_has_no_objects_is_a_dash() -> None:
    assert _table({"AP": 12.345, "APl": math.nan}).splitlines()[-1].split() == [
        *("|", "12.35", "|", "–", "|")
    ]
    assert "| –" in _class_table({"a": math.nan})


def test_drawings_show_the_objects_above_the_threshold(tiny_coco: Path) -> None:
    def weak(output: dict[str, Any]) -> dict[str, Any]:
        output = copy.deepcopy(output)
        output["instances"].scores[:] = 0.1
        return output

    gallery = PredictionImages("tiny_val", count=2)
    drawn = []
    for change in (copy.copy, weak, none):
        run(gallery, change)
        drawn.append(gallery.images)
    shown, faint, empty = drawn
    assert list(shown) == list(faint) == list(empty)
    assert list(shown) == [f"predictions/tiny_val/{index}" for index in range(2)]
    for name, image in empty.items():
        assert not np.array_equal(shown[name], image)
        assert np.array_equal(faint[name], image)
        truth = image.shape[1] // 2
        assert np.array_equal(shown[name][:, :truth], image[:, :truth])


def test_pictures_are_small_and_say_that_nothing_was_found(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("wide.png", "tall.png")]
    for path, size in zip(paths, ((1500, 600), (300, 1200)), strict=True):
        Image.new("RGB", size, "gray").save(path)
    boxes = {"bbox": [90, 90, 60, 60], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    records = [{"file_name": path, "annotations": [boxes]} for path in paths]
    DatasetCatalog.register("two_sizes", lambda: records)
    MetadataCatalog.get("two_sizes").thing_classes = ["box"]
    gallery = PredictionImages("two_sizes", count=2, output_dir=tmp_path / "drawn")
    for record, size in zip(records, ((600, 1500), (1200, 300)), strict=True):
        nothing = Instances(size, pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0))
        nothing.pred_classes = torch.zeros(0, dtype=torch.long)
        gallery.process([record], [{"instances": nothing}])
    gallery.evaluate()
    for image, (height, width) in zip(
        gallery.images.values(), ((200, 1000), (1000, 500)), strict=True
    ):
        assert image.shape == (height, width, 3)
        truth, found = image[:, : width // 2], image[:, width // 2 :]
        assert (truth != 128).any() and (found[: height // 4] != 128).any()  # box; words
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == 2


def macs_by_hand(model: nn.Module, size: tuple[int, int]) -> int:
    total = 0

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            per_pixel = math.prod(module.kernel_size) * module.in_channels // module.groups
            total += output[0].numel() * per_pixel
        elif isinstance(module, nn.Linear):
            total += module.in_features * module.out_features

    handles = [module.register_forward_hook(count) for module in model.modules()]
    model.eval()(torch.zeros(1, 3, *size))
    for handle in handles:
        handle.remove()
    return total


def test_model_cost(tiny_cfg: CfgNode) -> None:
    model = build_model(tiny_cfg)
    cost = model_cost(model, (64, 96), "pixel1")
    bottom_up = model.backbone.bottom_up
    assert cost.backbone == "spnas_100"
    assert cost.params_classifier == 4_421_616
    assert cost.params_backbone == sum(p.numel() for p in bottom_up.parameters())
    assert cost.params_detector == sum(p.numel() for p in model.parameters())
    assert cost.macs_backbone == macs_by_hand(bottom_up, (64, 96))
    table = LatencyTable.load("pixel1")
    assert cost.runtime == predict_runtime(load_architecture("spnas_100"), table)
    assert (cost.latency_table, cost.runtime_of) == ("pixel1", "classifier at 224×224")
    tiny_cfg.MODEL.SPNAS.NORM = "FrozenBN"
    frozen = model_cost(build_model(tiny_cfg), (64, 96), "")
    assert (frozen.params_backbone, frozen.macs_backbone) == (
        cost.params_backbone,
        cost.macs_backbone,
    )
    assert frozen.runtime is None
    assert frozen.latency_table is None
    assert model.training  # counting left the model as it was
    assert count_macs(nn.Conv2d(3, 8, 3, bias=False), (3, 5, 7)) == 3 * 5 * 8 * 27


@pytest.mark.parametrize(
    ("named", "provenance", "table"),
    [
        ("auto", {}, "pixel1"),
        ("auto", {"latency_table": "xeon_litert_224"}, "xeon_litert_224"),
        ("auto", {"latency_table": "mine", "config": {"LATENCY_TABLE": "my.json"}}, "mine"),
        ("auto", {"latency_table": "gone", "config": {"LATENCY_TABLE": "gone.json"}}, None),
        ("auto", {"latency_table": "macs"}, None),
        ("pixel1", {"latency_table": "xeon_litert_224"}, "pixel1"),
        ("", {"latency_table": "pixel1"}, None),
    ],
)
def test_one_network_has_one_runtime(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    provenance: dict[str, Any],
    table: str | None,
) -> None:
    """That of the table that it was searched on, unless another one is named."""
    monkeypatch.chdir(tmp_path)
    replace(LatencyTable.load("pixel1"), name="mine").save("my.json")
    network = replace(load_architecture("spnas_100"), provenance=provenance)
    found = runtime_table(named, network)
    assert (found.name if found else None) == table


def test_another_backbone_has_costs_too(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    tiny_cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cost = model_cost(build_model(tiny_cfg), (64, 64), "pixel1")
    assert cost.backbone == "FPN"
    assert cost.runtime is None
    assert cost.params_classifier is None


def test_final_table(tiny_cfg: CfgNode) -> None:
    model = build_model(tiny_cfg)
    scores = run(build_evaluator(tiny_cfg, "tiny_val"))
    results = final_results(tiny_cfg, model, scores)
    # Three wide and three tall images; the first of the commonest sizes, 96×72, to 85×64.
    assert results["cost"]["input_size"] == (96, 64)
    headers, rows = final_rows(results)
    assert headers[2:8] == ["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"]
    assert [row[1] for row in rows] == ["box", "mask"]
    assert rows[0][2] == pytest.approx(100)
    assert rows[0][7] is None
    assert rows[0][8] == pytest.approx(4.421616)
    assert rows[0][10] == pytest.approx(0.3335, abs=1e-3)
    text = final_table(results)
    assert "| 100.00 |" in text
    assert headers[8:12] == [
        "Params (M), classifier",
        "MACs (G), trunk at 96×64",
        "MACs (G), classifier at 224×224",
        "predicted (ms), pixel1, classifier at 224×224",
    ]
    assert results["units"]["measured_runtime"] == "ms"
    assert rows[0][12] is None  # no engine was asked for
    assert "–" in text
    assert len(text.splitlines()) == 4
    narrow = copy.deepcopy(results)
    narrow["cost"]["runtime"] = None
    assert "not covered" in final_table(narrow)
    narrow["cost"]["table_warning"] = "rough, as it was measured in 3 rounds"
    sentence = (
        "Predicted by latency table 'pixel1', which is rough, as it was measured in 3 rounds."
    )
    assert final_table(narrow).splitlines()[4:] == ["", sentence]
    tiny_cfg.DATASETS.TEST = ("tiny_val", "tiny_train")
    both = final_results(tiny_cfg, model, {"tiny_val": scores, "tiny_train": scores})
    assert [row[0] for row in final_rows(both)[1]] == ["tiny_val"] * 2 + ["tiny_train"] * 2


def test_usual_test_size(tiny_cfg: CfgNode) -> None:
    tiny_cfg.INPUT.MIN_SIZE_TEST, tiny_cfg.INPUT.MAX_SIZE_TEST = 800, 1333
    coco = [{"height": 480, "width": 640}] * 2 + [{"height": 640, "width": 480}]
    assert usual_test_size(tiny_cfg, coco) == (800, 1088)
    tiny_cfg.INPUT.MIN_SIZE_TEST = 0
    assert usual_test_size(tiny_cfg, coco) == (480, 640)
