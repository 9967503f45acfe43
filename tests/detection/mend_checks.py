"""Checks of a mended Detectron2, one for each mend; run as a script by ``test_installation.py``.

Usage: ``python mend_checks.py OUTPUT CHECK=TREE [CHECK=TREE ...]``. Every check runs in a forked
child that imports Detectron2 from TREE, so that PyTorch is imported only once. OUTPUT becomes a
JSON object from each argument to the error's text, empty where the check passed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


def _raised(function: Callable[[], Any]) -> str:
    """Returns the name and message of what ``function`` raises."""
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


def compiled_operators() -> None:
    """Everything imports, the report works, and an operator fails when it is used."""
    for name in ("layers", "modeling", "engine", "evaluation", "data", "structures", "checkpoint"):
        importlib.import_module(f"detectron2.{name}")
    from detectron2 import _C
    from detectron2.layers import DeformConv, ROIAlignRotated
    from detectron2.structures import RotatedBoxes, pairwise_iou_rotated
    from detectron2.utils.collect_env import collect_env_info

    assert "pure-Python build" in collect_env_info()
    assert not _C.has_cuda()
    assert not hasattr(_C, "deform_conv_forward")
    boxes = RotatedBoxes(torch.rand(2, 5))
    for operator, function in {
        "box_iou_rotated": lambda: pairwise_iou_rotated(boxes, boxes),
        "roi_align_rotated_forward": lambda: ROIAlignRotated((3, 3), 1.0, 2)(
            torch.rand(1, 3, 8, 8), torch.rand(1, 6)
        ),
        "InstanceAnnotation": lambda: _C.InstanceAnnotation,
    }.items():
        message = _raised(function)
        assert message.startswith("MissingOperatorError") and f"'{operator}'" in message, message
        assert "Build Detectron2 from its source" in message
    # On the CPU it is torchvision's, without any compiled part of Detectron2.
    output = DeformConv(3, 4, 3, padding=1)(torch.rand(1, 3, 8, 8), torch.zeros(1, 18, 8, 8))
    assert output.shape == (1, 4, 8, 8)


def rotated_nms() -> None:
    """Rotated NMS says which operator is missing."""
    from detectron2.layers import nms_rotated

    message = _raised(lambda: nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5))
    assert "'nms_rotated'" in message and "Build Detectron2 from its source" in message, message


def coco_evaluator() -> None:
    """The evaluator with default arguments gives AP 100 for perfect predictions."""
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import COCOEvaluator
    from detectron2.structures import Boxes, BoxMode, Instances

    box = [10.0, 10.0, 60.0, 70.0]
    truth = {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {"file_name": "", "height": 96, "width": 96, "image_id": 1, "annotations": [truth]}
    DatasetCatalog.register("one-box", lambda: [record])
    MetadataCatalog.get("one-box").set(thing_classes=["box"])
    predicted = Instances((96, 96))
    predicted.pred_boxes = Boxes(torch.tensor([box]))
    predicted.scores = torch.tensor([0.9])
    predicted.pred_classes = torch.tensor([0])
    with tempfile.TemporaryDirectory() as folder:
        evaluator = COCOEvaluator("one-box", output_dir=folder)
        evaluator.reset()
        evaluator.process([record], [{"instances": predicted}])
        assert abs(evaluator.evaluate()["bbox"]["AP"] - 100) < 1e-6


def pillow_linear() -> None:
    """The extent transform crops."""
    from detectron2.data.transforms import ExtentTransform

    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    cropped = ExtentTransform((0, 0, 2, 2), (2, 2)).apply_image(image)
    assert np.array_equal(cropped, image[:2, :2])


def numpy_aliases() -> None:
    """Masks, class histograms and semantic evaluation work on arrays."""
    from detectron2.data import MetadataCatalog
    from detectron2.data.build import print_instances_class_histogram
    from detectron2.evaluation import SemSegEvaluator
    from detectron2.structures.masks import polygons_to_bitmask
    from PIL import Image

    assert polygons_to_bitmask([np.array([0.0, 0, 4, 0, 4, 4, 0, 4])], 8, 8).sum() == 16
    print_instances_class_histogram([{"annotations": [{"category_id": 0}]}], ["thing"])
    labels = np.arange(16).reshape(4, 4) % 2
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "labels.png")
        Image.fromarray(labels.astype(np.uint8)).save(file)
        MetadataCatalog.get("stuff").set(stuff_classes=["a", "b"], ignore_label=255)
        from detectron2.data import DatasetCatalog

        record = {"file_name": "image", "sem_seg_file_name": file}
        DatasetCatalog.register("stuff", lambda: [record])
        evaluator = SemSegEvaluator("stuff", distributed=False)
        evaluator.reset()
        scores = torch.nn.functional.one_hot(torch.from_numpy(labels)).permute(2, 0, 1)
        evaluator.process([record], [{"sem_seg": scores}])
        assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100


def model_zoo_path() -> None:
    """A config of the zoo loads although there is no pkg_resources."""
    sys.modules["pkg_resources"] = None  # type: ignore[assignment]
    from detectron2 import model_zoo

    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    assert cfg.MODEL.MASK_ON
    lazy = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
    assert lazy.model.roi_heads.num_classes == 80
    assert "not available" in _raised(lambda: model_zoo.get_config_file("no-such.yaml"))


def export_without_caffe2() -> None:
    """Tracing works, and the Caffe2 names say why they are gone."""
    from detectron2.export import TracingAdapter, dump_torchscript_IR, scripting_with_instances
    from detectron2.structures import Boxes

    assert callable(dump_torchscript_IR) and callable(scripting_with_instances)

    class Shift(torch.nn.Module):
        def forward(self, boxes: Any) -> Any:
            return Boxes(boxes.tensor + 1)

    adapter = TracingAdapter(Shift(), Boxes(torch.zeros(1, 4)))
    traced = torch.jit.trace(adapter, adapter.flattened_inputs)
    assert adapter.outputs_schema(traced(torch.ones(1, 4))).tensor.tolist() == [[2.0] * 4]
    import detectron2.export

    assert "needs Caffe2, which" in _raised(lambda: detectron2.export.Caffe2Tracer)
    assert not hasattr(detectron2.export, "no_such_name")


def scheduler_state() -> None:
    """A scheduler's state goes through a checkpoint and comes back."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.engine import SimpleTrainer
    from detectron2.engine.hooks import LRScheduler

    class Squared(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"loss": super().forward(x).pow(2).mean()}

    def make() -> tuple[Any, Any, Any]:
        model = Squared(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        trainer = SimpleTrainer(model, [torch.rand(1, 2)] * 8, optimizer)
        trainer.register_hooks([LRScheduler(optimizer, scheduler)])
        return trainer, scheduler, DetectionCheckpointer(model, folder, trainer=trainer)

    with tempfile.TemporaryDirectory() as folder:
        trainer, scheduler, checkpointer = make()
        trainer.train(0, 3)
        checkpointer.save("state")
        _, resumed, checkpointer = make()
        checkpointer.resume_or_load("", resume=True)
    assert resumed.last_epoch == scheduler.last_epoch == 3, "the schedule starts again"
    assert resumed.get_last_lr() == scheduler.get_last_lr()


def scheduler_base() -> None:
    """The schedules do without PyTorch's private name."""
    del torch.optim.lr_scheduler._LRScheduler
    from detectron2.projects import deeplab
    from detectron2.solver import LRMultiplier

    assert issubclass(LRMultiplier, torch.optim.lr_scheduler.LRScheduler)
    assert callable(deeplab.build_lr_scheduler)


def opencv_on_use() -> None:
    """Drawing boxes and importing PointRend do without OpenCV."""
    sys.modules["cv2"] = None  # type: ignore[assignment]
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.visualizer import Visualizer

    importlib.import_module("detectron2.projects.point_rend")
    predicted = Instances((32, 32))
    predicted.pred_boxes = Boxes(torch.tensor([[4.0, 4, 20, 20]]))
    # Colours are drawn at random and black is one of them; this grey is none.
    image = np.full((32, 32, 3), 100, np.uint8)
    drawn = Visualizer(image).draw_instance_predictions(predicted)
    assert (drawn.get_image() != image).any()


def panopticapi_on_use() -> None:
    """Panoptic-DeepLab imports without panopticapi."""
    sys.modules["panopticapi"] = None  # type: ignore[assignment]
    importlib.import_module("detectron2.projects.panoptic_deeplab")


def group_norm_probe() -> None:
    """RetinaNet's head takes group normalisation."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

    shape = [ShapeSpec(channels=32)]
    head = RetinaNetHead(input_shape=shape, num_classes=2, num_anchors=1, conv_dims=[32], norm="GN")
    assert any(isinstance(module, torch.nn.GroupNorm) for module in head.modules())


def fallback_sample() -> None:
    """A mapper that returns None for an image gets another one, the same for the same order."""
    from detectron2.data import DatasetFromList, MapDataset

    def drop_odd(number: int) -> int | None:
        return None if number % 2 else number

    numbers = MapDataset(DatasetFromList(list(range(8))), drop_odd)
    found = [numbers[index] for index in range(8)]
    assert found[::2] == [0, 2, 4, 6]
    assert set(found[1::2]) <= {0, 2, 4, 6}


def log_encoding() -> None:
    """A log file takes every letter, whatever the encoding of the system."""
    import builtins
    import logging

    from detectron2.utils.logger import setup_logger

    plain, errors = builtins.open, []

    def ascii_open(*arguments: Any, encoding: str | None = None, **options: Any) -> Any:
        binary = "b" in str(options.get("mode", arguments[1:2]))
        name = None if binary else encoding or "ascii"
        return plain(*arguments, encoding=name, **options)

    builtins.open = ascii_open  # type: ignore[assignment]
    logging.Handler.handleError = lambda *_: errors.append(sys.exc_info()[1])  # type: ignore
    with tempfile.TemporaryDirectory() as folder:
        setup_logger(folder, name="letters").info("1 \u2192 2, \u03bb")
        assert not errors, errors
        assert "1 \u2192 2" in (Path(folder) / "log.txt").read_text(encoding="utf-8")


def meshgrid_indexing() -> None:
    """Anchors come in row-major order, without a warning."""
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
    from detectron2.projects.panoptic_deeplab.post_processing import group_pixels

    warnings.simplefilter("error", UserWarning)
    generator = DefaultAnchorGenerator(sizes=[[2.0]], aspect_ratios=[1.0], strides=[4], offset=0)
    anchors = generator([torch.zeros(1, 1, 2, 3)])[0]
    centres = anchors.get_centers().tolist()
    assert centres == [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]]
    assert group_pixels(torch.tensor([[0, 0], [3, 3]]), torch.zeros(2, 4, 4))[0, 3, 3] == 2


CHECKS: dict[str, Callable[[], None]] = {
    "compiled-operators": compiled_operators,
    "rotated-nms": rotated_nms,
    "coco-evaluator": coco_evaluator,
    "pillow-linear": pillow_linear,
    "numpy-aliases": numpy_aliases,
    "model-zoo-path": model_zoo_path,
    "export-without-caffe2": export_without_caffe2,
    "scheduler-state": scheduler_state,
    "scheduler-base": scheduler_base,
    "opencv-on-use": opencv_on_use,
    "panopticapi-on-use": panopticapi_on_use,
    "group-norm-probe": group_norm_probe,
    "fallback-sample": fallback_sample,
    "log-encoding": log_encoding,
    "meshgrid-indexing": meshgrid_indexing,
}


def _run(check: str, tree: str) -> str:
    """Runs one check against one tree; returns the error's text."""
    sys.path.insert(0, tree)
    try:
        import detectron2

        assert detectron2.__file__.startswith(tree)
        CHECKS[check]()
    except BaseException:
        return traceback.format_exc()
    return ""


def _run_forked(check: str, tree: str) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = _run(check, tree)
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text if status == 0 else f"the child ended with status {status}\n{text}"


def main() -> None:
    """Runs the checks named on the command line."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # The slow imports, once for all children; none of them imports Detectron2.
    for name in (
        "torchvision",
        "fvcore.nn",
        "iopath",
        "matplotlib.figure",
        "PIL.Image",
        "pycocotools.cocoeval",
        "torch.utils.cpp_extension",
        "tensorboard",
        "omegaconf",
    ):
        importlib.import_module(name)
    assert "detectron2" not in sys.modules
    output, *jobs = sys.argv[1:]
    results = {job: _run_forked(*job.split("=", 1)) for job in jobs}
    Path(output).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
