"""The kinds of runs that are killed, each as a command of seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from backbones.factory import load_architecture
from backbones.files import write_atomic, write_json
from backbones.paths import config_path
from detection.data.digits import DigitsSize, prepare_digits
from search.command_line.registry import tool_words
from search.space import SearchSpace


@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
        name: in the table.
        words: (folder of the study, folder of the run) → what follows ``python``; repeated, it
            goes on.
        late: files, as patterns below the run's folder, that appear after the last step or a
            part of the run: moments to kill at.
        goes_on: whether what is in the run's folder is to be continued; by default always.
    """

    name: str
    words: Callable[[Path, Path], list[str]]
    late: tuple[str, ...]
    goes_on: Callable[[Path], bool] = lambda _: True


_QUIET = ("WANDB.ENABLED", "False", "VIS_PERIOD", "1")
_IMAGES = (
    *("SOLVER.IMS_PER_BATCH", "8", "CLASSIFICATION.EPOCHS", "3.0"),
    *("CLASSIFICATION.CHECKPOINT_EPOCHS", "0.5", "CLASSIFICATION.EVAL_EPOCHS", "1.0"),
)
_SCENES = (
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "96"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1"),
    *("MODEL.RPN.POST_NMS_TOPK_TEST", "10", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "20"),
    *("TEST.DETECTIONS_PER_IMAGE", "5", "SOLVER.IMS_PER_BATCH", "2"),
    *("SOLVER.MAX_ITER", "12", "SOLVER.WARMUP_ITERS", "4"),
    *("SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "6", "SEED", "1", *_QUIET),
)


def prepare(folder: Path) -> None:
    """Writes the data set, the networks and the configuration that the commands name."""
    prepare_digits(folder / "datasets", DigitsSize(8, 6, 64, 64))
    load_architecture("mnasnet_b1").scaled(0.25).save(folder / "network.json")
    write_json(folder / "space.json", SearchSpace.load("imagenet").scaled(0.5).to_dict())
    small = SearchSpace.load("digits_small")
    first, last = small.stages
    stages = (first, replace(last, num_layers=1))
    tiny = replace(small, name="tiny", stages=stages, expansions=(1,))
    write_json(folder / "tiny_space.json", tiny.to_dict())
    base = config_path("classification", "digits_small.yaml")
    write_atomic(
        folder / "classifier.yaml",
        f"_BASE_: {base}\nCLASSIFICATION:\n  EPOCHS: 2.0\n  CHECKPOINT_EPOCHS: 0.5\n"
        "SOLVER:\n  IMS_PER_BATCH: 8\nWANDB:\n  ENABLED: False\n",
    )


def _tool(name: str, config: str, *arguments: str) -> list[str]:
    return [*tool_words(f"{name}.py"), "--config-file", config, *arguments]


def _search(_: Path, run: Path) -> list[str]:
    return [
        *_tool("search_net", "configs/search/digits_small.yaml", "--resume"),
        *("OUTPUT_DIR", str(run), "SEARCH.FAMILY", "[0.5]", "SEARCH.SAMPLES", "1"),
        *("SEARCH.CALIBRATION_BATCHES", "4", *_IMAGES, *_QUIET),
    ]


def _classifier(folder: Path, run: Path) -> list[str]:
    return [
        *_tool("train_classifier", "configs/classification/digits_small.yaml", "--resume"),
        *("OUTPUT_DIR", str(run), "MODEL.SPNAS.ARCH", str(folder / "network.json")),
        *("CLASSIFICATION.EMA_DECAY", "0.9", "CLASSIFICATION.DROP_RATE", "0.2", *_IMAGES, *_QUIET),
    ]


def _detector(folder: Path, run: Path) -> list[str]:
    return [
        *_tool("train_net", "configs/detection/mask_rcnn_spnas_fpn_digits.yaml", "--resume"),
        *("OUTPUT_DIR", str(run), "MODEL.SPNAS.ARCH", str(folder / "network.json"), *_SCENES),
    ]


def _detector_search(folder: Path, run: Path) -> list[str]:
    return [
        *_tool("search_net", "configs/search/mask_rcnn_digits.yaml", "--resume"),
        *("OUTPUT_DIR", str(run), "SEARCH.SPACE", str(folder / "space.json")),
        *("SEARCH.LATENCY_TABLE", "macs", "SEARCH.DEPLOY_SIZE", "[64, 64]"),
        *("SEARCH.TARGET", "9.0", "SEARCH.CALIBRATION_BATCHES", "2", *_SCENES),
    ]


def _comparison(folder: Path, run: Path) -> list[str]:
    return [
        *_tool("compare_backbones", "configs/detection/mask_rcnn_spnas_fpn_digits.yaml"),
        *("--architectures", f"tiny={folder / 'network.json'}"),
        *("--classifier-config-file", str(folder / "classifier.yaml"), "--output", str(run)),
        *_SCENES,
    ]


def _profile(folder: Path, run: Path) -> list[str]:
    return [
        *_tool("profile_latency", "configs/search/digits_small.yaml", "--engine", "onnxruntime"),
        *("--input-size", "32x32", "--rounds", "4", "--networks", "0"),
        *("--output", str(run / "table.json"), "SEARCH.SPACE", str(folder / "tiny_space.json")),
    ]


def _tuning(_: Path, run: Path) -> list[str]:
    return [
        *_tool("tune_lambda", "configs/search/digits_small.yaml", "--solvers", "random"),
        *("--target", "0.65", "--budget", "3", "--epochs-range", "1", "1", "--heartbeat", "1"),
        *("--storage", f"sqlite:///{run}/tune.db", "--output", str(run / "tuning.json")),
        *("SOLVER.IMS_PER_BATCH", "8", "SEARCH.CALIBRATION_BATCHES", "4", "VIS_PERIOD", "1"),
    ]


def _unfinished_profile(run: Path) -> bool:
    return (run / "table.partial").exists() or not (run / "table.json").exists()


KINDS = (
    Kind("search", _search, (".model_final.pth.*", "architecture.json", "family/0.5/backbone.pth",
                             "samples/00/backbone.pth", ".results.json.*")),
    Kind("classifier", _classifier, (".model_final.pth.*", "model_final.pth", ".backbone.pth.*",
                                     "backbone.pth", ".results.json.*")),
    Kind("detector", _detector, (".model_final.pth.*", "last_checkpoint", "model_final.pth",
                                 "inference/coco_instances_results.json", ".results.json.*")),
    Kind("detector search", _detector_search, (".model_final.pth.*", "architecture.json",
                                               ".backbone.pth.*", "backbone.pth", "results.json")),
    Kind("comparison", _comparison, ("tiny/classifier0/results.json", "tiny/seed0/model_final.pth",
                                     "tiny/seed0/results.json", "comparison.json",
                                     "comparison.csv")),
    Kind("profile", _profile, ("table.partial/*.model", "table.partial/visits.jsonl",
                               "table.partial/.visits.jsonl.*", ".table.json.*", "table.json"),
         _unfinished_profile),
    Kind("tuning", _tuning, ("tune.db", ".tuning.json.*", "tuning.json", ".tuning.png.*",
                             "tuning.png")),
)  # fmt: skip
