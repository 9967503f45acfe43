"""Part f: the recipes for ImageNet and COCO, started on made-up data of the real size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from backbones.errors import UserError
from detection.engine.metrics import read_metrics
from search.command_line.registry import tool_words
from search.studies.benchmarks.gpu.checks import STOPPED
from search.studies.benchmarks.gpu.made_up_data import write_coco, write_imagenet
from search.studies.benchmarks.gpu.runs import losses_are_finite, peak_bytes, run_tool
from search.studies.benchmarks.gpu.setting import Figures, Measurement, Setting

GPUS = 8
"""That the README's commands name."""

PERIOD, TINY_PERIOD = 20, 2
"""Iterations between two rows of metrics, a detector's always the first. Those to the first row
warm up, those to the second count."""

LIMIT = 60
"""Seconds that a recipe's start may take on a GPU."""


@dataclass(frozen=True)
class Recipe:
    """A command of the README.

    Attributes:
        script: below ``tools/``.
        config_file: of the run.
        batch: images per step, over all GPUs.
        steps: of the whole training.
        lr: learning rate of the whole batch; that of a GPU's part is as much smaller.
        options: further keys and values.
        tiny: those that make it small.
    """

    script: str
    config_file: str
    batch: int
    steps: int
    lr: float
    options: tuple[str, ...] = ()
    tiny: tuple[str, ...] = ()


_IMAGES = ("CLASSIFICATION.EVAL_EPOCHS", "0.0", "CLASSIFICATION.CHECKPOINT_EPOCHS", "1000.0")
_SMALL = ("CLASSIFICATION.INPUT_SIZE", "32", "DATALOADER.NUM_WORKERS", "0")
_SMALL_SPACE = (
    *("SEARCH.SPACE", "digits_small", "SEARCH.LATENCY_TABLE", "macs", "SEARCH.TARGET", "0.65"),
    *("SEARCH.DEPLOY_SIZE", "[32, 32]"),
)
_SMALL_DETECTOR = (
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "96", "DATALOADER.NUM_WORKERS", "0"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16"),
)
_STEPS_PER_EPOCH = 1_281_167 / 1024

RECIPES = {
    "ImageNet search": Recipe(
        "search_net.py",
        "configs/search/imagenet_pixel1_80ms.yaml",
        *(1024, round(8 * _STEPS_PER_EPOCH), 0.064),
        options=_IMAGES,
        tiny=(*_SMALL, *_SMALL_SPACE),
    ),
    "ImageNet classifier": Recipe(
        "train_classifier.py",
        "configs/classification/spnas_imagenet.yaml",
        *(1024, round(350 * _STEPS_PER_EPOCH), 0.064),
        options=_IMAGES,
        tiny=_SMALL,
    ),
    "COCO Mask R-CNN": Recipe(
        "train_net.py",
        "configs/detection/mask_rcnn_spnas_fpn_1x.yaml",
        *(16, 90_000, 0.02),
        options=("MODEL.WEIGHTS", ""),
        tiny=_SMALL_DETECTOR,
    ),
}


@dataclass
class _Rows:
    """Notes when the rows of metrics appear.

    Attributes:
        folder: of the run.
        times: of the rows' appearance, in seconds of the monotonic clock.
    """

    folder: Path
    times: list[float] = field(default_factory=list)

    def enough(self) -> bool:
        """Whether both rows are there."""
        path = self.folder / "metrics.json"
        count = path.read_bytes().count(b"\n") if path.exists() else 0
        self.times += [time.monotonic()] * (count - len(self.times))
        return count >= 2


def measurements(setting: Setting, names: Sequence[str] = tuple(RECIPES)) -> Iterator[Measurement]:
    """The data, then one recipe after the other."""
    yield "data", partial(_write_data, setting)
    for name in names:
        yield name, partial(_started, setting, name)


def _write_data(setting: Setting) -> Figures:
    start = time.monotonic()
    datasets = setting.fresh("full_size") / "datasets"
    scale, drawn = (0.15, 4) if setting.tiny else (1.0, 64)
    write_imagenet(datasets, 1000, 1 if setting.tiny else 8, drawn, scale)
    write_coco(datasets, 8 if setting.tiny else 512, drawn, scale)
    return {"seconds": time.monotonic() - start}


def _started(setting: Setting, name: str) -> Figures:
    """A recipe's first iterations, on a GPU's part of its batch.

    Returns:
        ``batch`` of one GPU; ``seconds`` per step, over those between two rows of metrics,
        waiting for data included; ``median_seconds`` as the trainer measures its steps, and how
        much of them is ``data_seconds``; ``peak_bytes`` on a GPU; ``hours`` on eight by
        ``seconds``, and ``hours_without_waiting`` for data. What eight exchange is not counted.

    Raises:
        UserError: if it does not come so far.
    """
    recipe = RECIPES[name]
    run = setting.fresh(f"full_size/{Path(recipe.script).stem}")
    batch = 2 if setting.tiny else recipe.batch // GPUS
    detector = recipe.script == "train_net.py"
    period = TINY_PERIOD if setting.tiny and not detector else PERIOD
    words = [
        *(*tool_words(recipe.script), "--config-file", recipe.config_file, *setting.processes),
        *("OUTPUT_DIR", str(run), "MODEL.DEVICE", setting.device, "WANDB.ENABLED", "False"),
        *("SOLVER.IMS_PER_BATCH", str(batch), "SOLVER.BASE_LR", str(recipe.lr / GPUS)),
        *(() if detector else ("VIS_PERIOD", str(period))),
        *recipe.options,
        *(recipe.tiny if setting.tiny else ()),
    ]
    environment = setting.environment()
    environment["DETECTRON2_DATASETS"] = str((setting.folder / "full_size/datasets").resolve())
    rows = _Rows(run)
    limit = LIMIT if setting.device == "cuda" else 10 * LIMIT
    ended = run_tool(words, environment, run.with_suffix(".log"), rows.enough, limit)
    if ended.code != STOPPED or len(rows.times) < 2:
        raise UserError(f"exit code {ended.code}: {ended.last_line}")
    if not losses_are_finite(run):
        raise UserError(f"the losses in '{run}/metrics.json' are not finite")
    row = read_metrics(run)[1]
    seconds = (rows.times[1] - rows.times[0]) / period
    hours = seconds * recipe.steps / 3600
    return {
        "batch": batch,
        "seconds": seconds,
        "median_seconds": row["time"],
        "data_seconds": row["data_time"],
        "peak_bytes": peak_bytes(ended.output),
        "hours": hours,
        "hours_without_waiting": hours * (1 - row["data_time"] / row["time"]),
    }
