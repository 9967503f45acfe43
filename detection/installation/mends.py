"""What stops Detectron2 v0.6 on today's Python, NumPy, Pillow and PyTorch, and the cure."""

from __future__ import annotations

from pathlib import Path

from detection.installation.patching import Edit, Mend


def _alias(file: str, name: str, count: int) -> Edit:
    """An edit that replaces the removed NumPy alias ``np.<name>`` by the builtin it stood for."""
    return Edit(file, rf"\bnp\.{name}\b", name, count, pattern=True)


def _scheduler_base(file: str, count: int) -> Edit:
    """An edit that names the public base class of PyTorch's schedulers."""
    prefix = "torch.optim.lr_scheduler."
    return Edit(file, f"{prefix}_LRScheduler", f"{prefix}LRScheduler", count)


_VISUALIZER = "detectron2/utils/visualizer.py"
_COLOR_AUGMENTATION = "projects/PointRend/point_rend/color_augmentation.py"
_PANOPTIC_MAPPER = "projects/Panoptic-DeepLab/panoptic_deeplab/dataset_mapper.py"

_CAFFE2_OLD = """from .api import *
from .flatten import TracingAdapter
"""
_CAFFE2_NEW = """try:
    from .api import *
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] not in ("caffe2", "onnx"):
        raise
from .flatten import TracingAdapter
"""
_CAFFE2_ALL_OLD = '__all__ = [k for k in globals().keys() if not k.startswith("_")]'
_CAFFE2_ALL_NEW = (
    _CAFFE2_ALL_OLD
    + """


def __getattr__(name):
    if name in (
        "add_export_config",
        "export_caffe2_model",
        "Caffe2Model",
        "export_onnx_model",
        "Caffe2Tracer",
    ):
        raise ImportError(
            f"detectron2.export.{name} needs Caffe2, which PyTorch no longer contains; "
            "use TracingAdapter or scripting_with_instances, and torch.onnx.export on the result"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
"""
)

_FAST_EVAL_NEW = """from detectron2 import _C

        if use_fast_impl and not hasattr(_C, "COCOevalEvaluateImages"):
            self._logger.info("no compiled COCO evaluator in this build: using pycocotools")
            use_fast_impl = False
        self._use_fast_impl = use_fast_impl
"""

_ZOO_PATH_OLD = """pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )"""

MENDS: tuple[Mend, ...] = (
    Mend(
        "compiled-operators",
        "`from detectron2 import _C` fails at import time although most models never use it",
        new_files=(("detectron2/_C.py", Path(__file__).with_name("compiled_operators.py")),),
    ),
    Mend(
        "rotated-nms",
        "rotated NMS is registered with PyTorch by the compiled module; without it the call fails "
        "with a message about torch.ops that names no way out",
        (
            Edit(
                "detectron2/layers/nms.py",
                "    return torch.ops.detectron2.nms_rotated(",
                "    from detectron2 import _C\n\n    return _C.nms_rotated(",
            ),
        ),
    ),
    Mend(
        "coco-evaluator",
        "COCOEvaluator's default is the compiled evaluator; pycocotools gives the same numbers",
        (
            Edit(
                "detectron2/evaluation/coco_evaluation.py",
                "self._use_fast_impl = use_fast_impl\n",
                _FAST_EVAL_NEW,
            ),
        ),
    ),
    Mend(
        "pillow-linear",
        "Pillow 10 removed Image.LINEAR, the older name of Image.BILINEAR",
        (Edit("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),),
    ),
    Mend(
        "numpy-aliases",
        "NumPy 1.24 removed np.bool, np.float, np.int and np.str, aliases of the builtins",
        (
            _alias("detectron2/evaluation/pascal_voc_evaluation.py", "bool", 2),
            _alias("detectron2/evaluation/sem_seg_evaluation.py", "int", 2),
            _alias("detectron2/evaluation/sem_seg_evaluation.py", "float", 5),
            _alias("detectron2/structures/masks.py", "bool", 3),
            _alias("detectron2/data/datasets/pascal_voc.py", "str", 1),
            _alias("detectron2/data/build.py", "int", 2),
            _alias("detectron2/utils/visualizer.py", "bool", 3),
            _alias("detectron2/utils/video_visualizer.py", "bool", 1),
        ),
    ),
    Mend(
        "model-zoo-path",
        "setuptools 81 removed pkg_resources, which only located the model zoo's configs",
        (
            Edit("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", ""),
            Edit(
                "detectron2/model_zoo/model_zoo.py",
                _ZOO_PATH_OLD,
                'os.path.join(os.path.dirname(__file__), "configs", config_path)',
            ),
        ),
    ),
    Mend(
        "export-without-caffe2",
        "Caffe2 is gone from PyTorch; tracing and scripting never needed it",
        (
            Edit("detectron2/export/__init__.py", _CAFFE2_OLD, _CAFFE2_NEW),
            Edit("detectron2/export/__init__.py", _CAFFE2_ALL_OLD, _CAFFE2_ALL_NEW),
        ),
    ),
    Mend(
        "scheduler-state",
        "the scheduler hook saves and restores only private _LRScheduler objects; today's "
        "schedulers are not, so a resumed run silently starts its schedule again",
        (_scheduler_base("detectron2/engine/hooks.py", 2),),
    ),
    Mend(
        "scheduler-base",
        "PyTorch keeps the private name _LRScheduler only for old code",
        (
            _scheduler_base("detectron2/solver/build.py", 1),
            _scheduler_base("detectron2/solver/lr_scheduler.py", 4),
            _scheduler_base("projects/DeepLab/deeplab/build_solver.py", 1),
            _scheduler_base("projects/DeepLab/deeplab/lr_scheduler.py", 1),
        ),
    ),
    Mend(
        "opencv-on-use",
        "drawing and PointRend import OpenCV although few of their functions need it",
        (
            Edit(_VISUALIZER, "import cv2\n", ""),
            Edit(
                _VISUALIZER,
                "        res = cv2.findContours(",
                "        import cv2\n\n        res = cv2.findContours(",
            ),
            Edit(
                _VISUALIZER,
                "            _num_cc, cc_labels,",
                "            import cv2\n\n            _num_cc, cc_labels,",
            ),
            Edit(_COLOR_AUGMENTATION, "import cv2\n", ""),
            Edit(
                _COLOR_AUGMENTATION,
                "            img = cv2.cvtColor(",
                "            import cv2\n\n            img = cv2.cvtColor(",
                count=2,
            ),
        ),
    ),
    Mend(
        "panopticapi-on-use",
        "panopticapi is not on the package index, and only one data mapper needs it",
        (
            Edit(_PANOPTIC_MAPPER, "from panopticapi.utils import rgb2id\n", ""),
            Edit(
                _PANOPTIC_MAPPER,
                "        targets = self.panoptic_target_generator(",
                "        from panopticapi.utils import rgb2id\n\n"
                "        targets = self.panoptic_target_generator(",
            ),
        ),
    ),
    Mend(
        "group-norm-probe",
        "RetinaNet's and FCOS's heads build a norm over one channel to learn its type; PyTorch "
        "refuses a GroupNorm whose channels its 32 groups do not divide",
        (
            Edit(
                "detectron2/modeling/meta_arch/retinanet.py",
                "get_norm(norm, 1)",
                "get_norm(norm, 32)",
            ),
        ),
    ),
    Mend(
        "fallback-sample",
        "Python 3.11 draws samples of sequences alone; a mapper that skips an image by returning "
        "None has another one drawn, from a set",
        (
            Edit(
                "detectron2/data/common.py",
                "self._rng.sample(self._fallback_candidates, k=1)",
                "self._rng.sample(tuple(self._fallback_candidates), k=1)",
            ),
        ),
    ),
    Mend(
        "log-encoding",
        "log files are written in the encoding of the system, which may not know every letter",
        (
            Edit(
                "detectron2/utils/logger.py",
                'buffering=1024 if "://" in filename else -1)',
                'buffering=1024 if "://" in filename else -1, encoding="utf-8")',
            ),
        ),
    ),
    Mend(
        "meshgrid-indexing",
        "PyTorch warns that torch.meshgrid will demand its indexing argument",
        (
            Edit(
                "detectron2/modeling/anchor_generator.py",
                "torch.meshgrid(shifts_y, shifts_x)",
                'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
            ),
            Edit(
                "projects/Panoptic-DeepLab/panoptic_deeplab/post_processing.py",
                "torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n",
                "torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n"
                '        indexing="ij",\n',
            ),
        ),
    ),
)
