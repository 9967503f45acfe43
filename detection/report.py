"""The final table: AP by object scale, beside what the backbone costs (Table III)."""

from __future__ import annotations

import copy
import logging
import math
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from fvcore.nn import FlopCountAnalysis
from tabulate import tabulate
from torch import nn

from backbones.figures import shown
from backbones.inference import make_engine
from backbones.latency import LatencyTable
from detection.data.checks import Record, load_records
from detection.deployment import (
    OWN_TABLE,
    Deployment,
    measured_runtime,
    measured_with,
    predicted_runtime,
    runtime_table,
)
from detection.modeling.backbone import NamedBackbone, SPNASBackbone
from detection.scoring import METRICS

COLUMNS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
TASK_NAMES = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
CLASSIFIER_IMAGE = (3, 224, 224)
NOT_COVERED = "not covered"

UNITS = {
    "scores": "%",
    "params": "parameters",
    "macs": "multiply-accumulates of one image",
    "measured_runtime": "ms",
    "detector_runtime": "ms",
}
"""Of the figures in ``results.json``; a predicted runtime has its own ``runtime_unit``."""

Scores = Mapping[str, Mapping[str, float]]
"""For each task, what `detection.scoring.score` returns."""


@dataclass(frozen=True)
class ModelCost:
    """What a detector's backbone costs.

    Attributes:
        backbone: name of the network, or the class of another backbone.
        params_detector: parameters of the whole detector.
        params_backbone: parameters of the trunk, without pyramid and heads.
        params_classifier: parameters of the classification network with 1000 classes; None for a
            backbone that is neither ours nor timm's.
        macs_backbone: multiply-accumulates of the trunk at ``input_size``.
        macs_classifier: multiply-accumulates of the classification network at 224×224.
        input_size: height and width in pixels of the usual test image, padded.
        latency_table: the table that predicted the runtime.
        runtime: predicted for the network that the table is about (Eq. 11); None without a table,
            or if the table does not cover the network.
        runtime_unit: usually ``ms``.
        runtime_of: what the table is about: the classifier, or the backbone with a pyramid, and
            its image size.
        measured_runtime: of the same network on the machine of the evaluation, in ms; None
            without an engine.
        measured_with: the engine, the device and the image size of that.
        detector_runtime: of the whole detector on one image of ``input_size``, in ms, as PyTorch
            runs it on the device of the evaluation.
        table_warning: why the table is not to be trusted; None where nothing is known against it.
    """

    backbone: str
    params_detector: int
    params_backbone: int
    params_classifier: int | None
    macs_backbone: int
    macs_classifier: int | None
    input_size: tuple[int, int]
    latency_table: str | None
    runtime: float | None
    runtime_unit: str = "ms"
    runtime_of: str | None = None
    measured_runtime: float | None = None
    measured_with: str | None = None
    detector_runtime: float | None = None
    table_warning: str | None = None


def count_macs(module: nn.Module, *shapes: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image.

    Args:
        module: takes maps (N, C, H, W).
        shapes: (C, H, W) of each.
    """
    # The copy keeps fvcore's tracing away from a model in training, and from its device.
    module = copy.deepcopy(module).cpu().eval()
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(module, tuple(torch.zeros(1, *shape) for shape in shapes))
        # The same network must not cost more with one normalisation than with another.
        for name in ("batch_norm", "group_norm", "layer_norm", "instance_norm"):
            analysis.set_op_handle(f"aten::{name}", lambda *_: 0)
        return int(analysis.total())


def count_parameters(module: nn.Module) -> int:
    """Weights and biases; those of frozen batch norms are buffers, and count all the same."""
    frozen = sum(
        buffer.numel()
        for name, buffer in module.named_buffers()
        if name.rpartition(".")[2] in ("weight", "bias")
    )
    return frozen + sum(parameter.numel() for parameter in module.parameters())


def model_cost(
    model: nn.Module,
    input_size: tuple[int, int],
    latency_table: str | None = None,
    engine: str | None = None,
) -> ModelCost:
    """Parameters, multiply-accumulates, predicted and measured runtime of a detector's backbone.

    Args:
        model: a detector; a `NamedBackbone` somewhere in it, or any ``backbone``.
        input_size: height and width in pixels of a test image.
        latency_table: as ``MODEL.SPNAS.LATENCY_TABLE``; None or empty for no prediction.
        engine: measures the backbone, as deployed in the table's setting, on one CPU thread; None
            or empty for no measurement.
    """
    named = next((m for m in model.modules() if isinstance(m, NamedBackbone)), None)
    trunk = named if named is not None else model.get_submodule("backbone")
    architecture = named.architecture if isinstance(named, SPNASBackbone) else None
    classifier = named.classifier() if named is not None else None
    table = runtime_table(latency_table or "", architecture)
    runtime = predicted_runtime(architecture, table) if architecture and table else None
    measured, how = None, None
    if architecture and engine:
        deployment = Deployment.of(table) if table else Deployment()
        measured = measured_runtime(architecture, deployment, engine).runtime
        how = measured_with(make_engine(engine), deployment)
    return ModelCost(
        backbone=named.name if named is not None else type(trunk).__name__,
        params_detector=count_parameters(model),
        params_backbone=count_parameters(trunk),
        params_classifier=count_parameters(classifier) if classifier is not None else None,
        macs_backbone=count_macs(trunk, (3, *input_size)),
        macs_classifier=(
            count_macs(classifier, CLASSIFIER_IMAGE) if classifier is not None else None
        ),
        input_size=input_size,
        latency_table=table.name if table else None,
        runtime=runtime,
        runtime_unit=table.unit if table else "ms",
        runtime_of=Deployment.of(table).description if table else None,
        measured_runtime=measured,
        measured_with=how,
        detector_runtime=detector_runtime(model, input_size),
        table_warning=(table.warning or None) if table else None,
    )


@torch.no_grad()
def detector_runtime(model: nn.Module, input_size: tuple[int, int], repeats: int = 3) -> float:
    """Time of a detector for one image of noise in ms: the median, after one run to warm up.

    Args:
        model: a detector of Detectron2's; in training mode it is so again afterwards.
        input_size: height and width in pixels.
        repeats: timed runs.
    """
    device = next(model.parameters()).device
    image = 255 * torch.rand(3, *input_size)
    training = model.training
    model.eval()
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        model([{"image": image}])
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    model.train(training)
    return 1000 * statistics.median(seconds[1:])


def check_cost_options(cfg: CfgNode) -> None:
    """Insists on a latency table and an engine that the final table can use.

    Raises:
        UserError: naming what is missing.
    """
    options = cfg.MODEL.get("SPNAS", {})
    if options.get("LATENCY_TABLE") not in (None, "", OWN_TABLE):
        LatencyTable.load(options.LATENCY_TABLE)
    if options.get("ENGINE"):
        make_engine(options.ENGINE).check_conversion()


def usual_test_size(cfg: CfgNode, records: Sequence[Record], divisor: int = 32) -> tuple[int, int]:
    """Height and width of the commonest test image after resizing and padding.

    Args:
        cfg: for ``INPUT.MIN_SIZE_TEST`` and ``INPUT.MAX_SIZE_TEST``.
        records: the test set.
        divisor: sides are padded to multiples of it.
    """
    sizes = Counter((record["height"], record["width"]) for record in records)
    height, width = sizes.most_common(1)[0][0]
    if cfg.INPUT.MIN_SIZE_TEST:
        resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        transform = resize.get_transform(torch.empty(height, width, 3).numpy())
        height, width = transform.new_h, transform.new_w
    return math.ceil(height / divisor) * divisor, math.ceil(width / divisor) * divisor


def final_results(
    cfg: CfgNode, model: nn.Module, scores: Scores | Mapping[str, Scores]
) -> dict[str, Any]:
    """Everything that the final table shows, ready for ``results.json``.

    Args:
        cfg: the whole configuration.
        model: the detector.
        scores: what ``DefaultTrainer.test`` returns: by task, or by data set and task.
    """
    names = list(cfg.DATASETS.TEST)
    by_dataset = {names[0]: scores} if len(names) == 1 else dict(scores)
    records = load_records(names[0])
    size = usual_test_size(cfg, records)
    options = cfg.MODEL.get("SPNAS", {})
    cost = model_cost(model, size, options.get("LATENCY_TABLE"), options.get("ENGINE"))
    scored = {name: dict(found) for name, found in by_dataset.items()}
    return {"cost": asdict(cost), "scores": scored, "units": UNITS}


def final_table(results: Mapping[str, Any]) -> str:
    """``final_results`` as a Markdown table: one row for boxes and one for masks per data set.

    A latency table that is not to be trusted has a sentence below.
    """
    headers, rows = final_rows(results)
    cells = [[shown(cell) if isinstance(cell, float) else cell for cell in row] for row in rows]
    text = tabulate(cells, headers, "pipe", missingval="–", stralign="right", disable_numparse=True)
    return "\n\n".join(filter(None, [str(text), table_warning(results["cost"])]))


def table_warning(cost: Mapping[str, Any]) -> str:
    """A sentence on the latency table behind a predicted runtime; empty if it can be trusted.

    Args:
        cost: of a model, as in ``results.json``; without ``table_warning`` in older files.
    """
    table, warning = cost["latency_table"], cost.get("table_warning")
    return f"Predicted by latency table '{table}', which is {warning}." if warning else ""


def final_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows of the final table; None where there is no figure."""
    cost = ModelCost(**results["cost"])
    height, width = cost.input_size
    params, counted = cost.params_classifier, "classifier"
    if params is None:
        params, counted = cost.params_backbone, "trunk"
    headers = [
        *("data set", "AP of", *COLUMNS, f"Params (M), {counted}"),
        *(f"MACs (G), trunk at {height}×{width}", "MACs (G), classifier at 224×224"),
        _header(f"predicted ({cost.runtime_unit})", cost.latency_table, cost.runtime_of),
        _header("measured (ms)", *_engine_and_size(cost.measured_with)),
    ]
    runtime: float | str | None = cost.runtime
    if runtime is None and cost.latency_table:
        runtime = NOT_COVERED
    costs = [params / 1e6, cost.macs_backbone / 1e9, _giga(cost.macs_classifier), runtime]
    costs.append(cost.measured_runtime)
    rows = [
        [dataset, TASK_NAMES.get(task, task), *(_number(found.get(m)) for m in METRICS), *costs]
        for dataset, scores in results["scores"].items()
        for task, found in scores.items()
    ]
    return headers, rows


def _header(figure: str, *what: str | None) -> str:
    """A header that says what its figure is of: ``predicted (ms), pixel1, classifier at 224×224``.

    Args:
        figure: and its unit.
        what: what is known of it; None is left out.
    """
    return ", ".join([figure, *(part for part in what if part)])


def _engine_and_size(measured_with: str | None) -> list[str]:
    """The beginning and the end of what a runtime was measured with; the device is between."""
    return measured_with.split(", ")[:: max(measured_with.count(", "), 1)] if measured_with else []


def _giga(value: int | None) -> float | None:
    return None if value is None else value / 1e9


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
