"""What Detectron2's own tests ask of a model, asked of ours, and its tools used on them.

After ``tests/modeling/test_model_e2e.py``, ``tests/modeling/test_backbone.py`` and
``tests/export`` in Detectron2's repository.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.modeling import GeneralizedRCNNWithTTA, build_backbone, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.visualizer import Visualizer
from torch import Tensor, nn

from detection import add_spnas_config
from tests.tiny_coco import ROOT, TINY_MODEL

# Tracing fixes the control flow of Detectron2's code, and its deployment has the older exporter.
pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning"),
]

KINDS = ("mask_rcnn", "retinanet")


@pytest.fixture(params=KINDS)
def cfg(request: pytest.FixtureRequest) -> CfgNode:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.merge_from_file(str(ROOT / f"configs/detection/{request.param}_spnas_fpn_1x.yaml"))
    cfg.merge_from_list([*TINY_MODEL, "MODEL.RETINANET.NUM_CLASSES", "3"])
    if request.param == "retinanet":
        cfg.MODEL.MASK_ON = False
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    return cfg


def training_image(boxes: Tensor, height: int = 64, width: int = 72) -> dict[str, object]:
    """An image with objects; ``boxes`` (N, 4)."""
    objects = Instances((height, width))
    objects.gt_boxes = Boxes(boxes)
    objects.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    objects.gt_masks = BitMasks(torch.ones(len(boxes), height, width, dtype=torch.bool))
    return {"image": 255 * torch.rand(3, height, width), "instances": objects}


def losses_of(model: nn.Module, *images: dict[str, object]) -> dict[str, Tensor]:
    with EventStorage():
        losses: dict[str, Tensor] = model(list(images))
    return losses


def test_images_without_objects(cfg: CfgNode) -> None:
    model = build_model(cfg).train()
    none = torch.zeros(0, 4)
    losses = losses_of(model, training_image(none), training_image(none))
    assert len(losses) >= 2
    for name, loss in losses.items():
        assert torch.isfinite(loss), name
        assert loss.requires_grad, name  # or DistributedDataParallel waits for it for ever
    sum(losses.values()).backward()
    some = torch.tensor([[8.0, 8.0, 40.0, 48.0]])
    mixed = losses_of(model, training_image(none), training_image(some))
    assert mixed.keys() == losses.keys()
    assert all(torch.isfinite(loss) for loss in mixed.values())


@pytest.mark.parametrize("size", [(64, 72), (65, 71), (33, 95), (32, 32), (1, 1)])
def test_images_of_any_size(cfg: CfgNode, size: tuple[int, int]) -> None:
    model = build_model(cfg).eval()
    with torch.no_grad():
        (found,) = model([{"image": 255 * torch.rand(3, *size), "height": 50, "width": 60}])
    assert found["instances"].image_size == (50, 60)
    if cfg.MODEL.MASK_ON:
        assert found["instances"].pred_masks.shape[1:] == (50, 60)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_that_are_not_finite_detect_nothing(cfg: CfgNode, value: float) -> None:
    model = build_model(cfg).eval()
    with torch.no_grad():
        (found,) = model([{"image": torch.full((3, 64, 64), value)}])
    assert len(found["instances"]) == 0


def test_training_on_what_is_not_finite_says_so(tiny_cfg: CfgNode) -> None:
    model = build_model(tiny_cfg).train()
    image = training_image(torch.tensor([[8.0, 8.0, 40.0, 48.0]]))
    image["image"] = torch.full((3, 64, 72), float("nan"))
    with pytest.raises(FloatingPointError, match="Training has diverged"):
        losses_of(model, image)


def test_tracing_gives_the_same_boxes(cfg: CfgNode) -> None:
    model = build_model(cfg).eval()
    image = 255 * torch.rand(3, 64, 96)

    def infer(model: nn.Module, inputs: list[dict[str, Tensor]]) -> list[Instances]:
        if cfg.MODEL.MASK_ON:  # as tools/deploy/export_model.py of Detectron2
            found: list[Instances] = model.inference(inputs, do_postprocess=False)
            return found
        return [item["instances"] for item in model(inputs)]

    adapter = TracingAdapter(model, [{"image": image}], infer)
    with torch.no_grad():
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        expected = adapter(image)
        found = traced(image)
    assert len(expected[0]) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_backbones_trace_at_other_sizes_and_script(cfg: CfgNode) -> None:
    backbone = build_backbone(cfg).eval()
    adapter = TracingAdapter(backbone, torch.rand(1, 3, 64, 64))
    with torch.no_grad():
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        scripted = torch.jit.script(backbone.bottom_up)
        for size in ((64, 64), (96, 128)):
            images = torch.rand(1, 3, *size)
            expected = backbone(images)
            for one, other in zip(traced(images), expected.values(), strict=True):
                torch.testing.assert_close(one, other)
            maps = backbone.bottom_up(images)
            found = scripted(images)
            assert found.keys() == maps.keys()
            for name, tensor in maps.items():
                torch.testing.assert_close(found[name], tensor)


def test_scripting_the_whole_detector(cfg: CfgNode) -> None:
    model = build_model(cfg).eval()
    fields = {
        "proposal_boxes": Boxes,
        "objectness_logits": Tensor,
        "pred_boxes": Boxes,
        "scores": Tensor,
        "pred_classes": Tensor,
        "pred_masks": Tensor,
    }
    if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
        fields = {name: fields[name] for name in ("pred_boxes", "scores", "pred_classes")}
    scripted = scripting_with_instances(model, fields)
    image = 255 * torch.rand(3, 64, 96)
    with torch.no_grad():
        expected = model([{"image": image}])[0]["instances"]
        if cfg.MODEL.META_ARCHITECTURE == "RetinaNet":
            found = scripted([{"image": image}])[0]
        else:
            found = scripted.inference([{"image": image}], do_postprocess=False)[0]
            expected = model.inference([{"image": image}], do_postprocess=False)[0]
    assert len(expected) > 0
    boxes = Boxes(found.pred_boxes.tensor)
    boxes.clip((64, 96))  # a script leaves this to its caller
    torch.testing.assert_close(boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, expected.scores)


def test_onnx_export_runs_elsewhere(cfg: CfgNode) -> None:
    """The pyramid through ONNX Runtime: what a detector's deployment starts from."""
    pytest.importorskip("onnx")
    engine = pytest.importorskip("onnxruntime")
    adapter = TracingAdapter(build_backbone(cfg).eval(), torch.rand(1, 3, 64, 64)).eval()
    file = io.BytesIO()
    torch.onnx.export(adapter, adapter.flattened_inputs, file, dynamo=False)
    session = engine.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    images = torch.rand(1, 3, 64, 64)
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = adapter(images)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-3, atol=1e-4)


def test_test_time_augmentation(tiny_cfg: CfgNode) -> None:
    tiny_cfg.TEST.AUG.ENABLED = True
    tiny_cfg.TEST.AUG.MIN_SIZES = (64, 96)
    tiny_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = GeneralizedRCNNWithTTA(tiny_cfg, build_model(tiny_cfg).eval())
    image = (255 * torch.rand(3, 64, 96)).to(torch.uint8)
    with torch.no_grad():
        (found,) = model([{"image": image, "height": 64, "width": 96}])
    assert found["instances"].image_size == (64, 96)
    assert len(found["instances"]) > 0
    assert found["instances"].pred_masks.shape[1:] == (64, 96)


def test_predictions_can_be_drawn(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    model = build_model(tiny_cfg).eval()
    tiny_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    image = (255 * torch.rand(3, 64, 96)).to(torch.uint8)
    with torch.no_grad():
        (found,) = model([{"image": image}])
    metadata = MetadataCatalog.get("tiny_val")
    canvas = Visualizer(image.permute(1, 2, 0).numpy(), metadata)
    drawn = canvas.draw_instance_predictions(found["instances"].to("cpu")).get_image()
    assert drawn.shape == (64, 96, 3)
    assert len(found["instances"]) > 0
    plain = Visualizer(image.permute(1, 2, 0).numpy(), metadata).get_output().get_image()
    assert not np.array_equal(drawn, plain)
