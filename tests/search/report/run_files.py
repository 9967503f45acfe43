"""Run folders as the tools leave them, written by hand, with the figures of small runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from backbones import load_architecture
from search.auto.data_facts import DataFacts, DataSetFacts, Proposal
from search.auto.outcome import ExportedFile, Outcome, Role, Row, Stage

NETWORK = "mnasnet_b1"
"""Covered by the Pixel 1 table, and with layers of several kernels and expansions."""

SCORES = {
    "bbox": {"AP": 40.0, "AP50": 60.0, "AP75": 45.0, "APs": 20.0, "APm": 41.0, "APl": None,
             "AP-cat": 30.0, "AP-dog": 50.0},
    "segm": {"AP": 35.0, "AP50": 55.0, "AP75": 40.0, "APs": 15.0, "APm": 36.0, "APl": None,
             "AP-cat": 25.0, "AP-dog": 45.0},
}  # fmt: skip
LOG = """\
[11/27 01:55:43] detection.engine.run_folder INFO: {command}
[11/27 01:55:43] detection.engine.run_folder INFO: Run in 'run' on cpu; more in 'run/log.txt'
[11/27 01:55:43] detection.engine.run_folder INFO: On a processor, 2 threads; commit 0123456789ab
[11/27 01:55:43] detection.engine.run_folder INFO: Environment:
---------------------  ----------
Python                 3.11.7 (main, May  9 2026, 07:35:25) [GCC 12.2.0]
PyTorch                2.14.1+cu130 @/somewhere/torch
---------------------  ----------
[11/27 01:56:00] detection.data.findings WARNING: data set 'train': 3 × boxes outside
[11/27 01:56:00] detection.data.loader INFO: Training on train: 12 images, 34 objects
"""


def write_run(folder: Path, command: str, config: dict[str, Any]) -> Path:
    """A folder of a run that has begun."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"SEED": 3, **config}))
    (folder / "log.txt").write_text(LOG.format(command=command))
    return folder


def write_metrics(folder: Path, rows: list[dict[str, float]]) -> None:
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_search(folder: Path) -> Path:
    """Of two layers logged three times: layer 2 is skipped from the third time on."""
    write_run(folder, "search_net.py --config-file s.yaml", {"SEARCH": {"TARGET": 75.0}})
    rows = [
        {
            "iteration": iteration,
            "total_loss": 3.0 - 0.5 * index,
            "search/runtime": 90.0 - index,
            "search/relaxed_runtime": 85.0 - index,
            **{f"decisions/layer01_{key}": value for key, value in
               (("kernel_3", 0.2), ("kernel_5", 0.8), ("keep", 1.0))},
            **{f"decisions/layer02_{key}": value for key, value in
               (("kernel_3", 0.6), ("kernel_5", 0.4), ("keep", (0.9, 0.8, 0.3)[index]))},
        }
        for index, iteration in enumerate((19, 39, 59))
    ]  # fmt: skip
    write_metrics(folder, rows)
    load_architecture(NETWORK).save(folder / "architecture.json")
    found = {
        "architecture": NETWORK,
        "layers": ["3x3-3", "skip"],
        "predicted_runtime": 74.25,
        "val": {"top1": 50.0, "top5": 90.0, "loss": 1.0},
        "target_runtime": 75.0,
        "unit": "ms",
        "latency_table": "pixel1",
    }
    (folder / "results.json").write_text(json.dumps({"search": found}))
    return folder


def write_detector(folder: Path, scores: dict[str, Any] | None = None, name: str = NETWORK) -> Path:
    """A finished detector on ``photos``, with two pictures."""
    model = {"BACKBONE": {"NAME": "build_spnas_fpn_backbone"}, "SPNAS": {"ARCH": NETWORK}}
    write_run(folder, "train_net.py --config-file d.yaml", {"MODEL": model})
    write_metrics(folder, [{"iteration": i, "total_loss": 1 / i} for i in (20, 40)])
    cost = {
        "backbone": name,
        "macs_backbone": 3e8,
        "input_size": [320, 480],
        "latency_table": "pixel1",
        "runtime": 77.5,
        "runtime_unit": "ms",
        "runtime_of": "classifier at 224×224",
        "measured_runtime": None,
        "measured_with": None,
        "detector_runtime": 210.0,
    }
    content = {"detection": {"cost": cost, "scores": {"photos": scores or SCORES}}}
    (folder / "results.json").write_text(json.dumps(content))
    pictures = folder / "predictions" / "photos"
    pictures.mkdir(parents=True)
    images = []
    for kind, colour in (("best", "green"), ("worst", "red")):
        Image.new("RGB", (200, 80), colour).save(pictures / f"{kind}_1_a.jpg")
        row = {"picture": f"{kind}_1_a.jpg", "image": f"{kind}.png", "kind": kind, "f1": 0.5}
        images.append({**row, "found": 1, "missed": 2, "wrong": 0})
    samples = {"dataset": "photos", "score": 0.5, "facts": {"images": "12"}, "images": images}
    (pictures / "samples.json").write_text(json.dumps(samples))
    return folder


WHOLE: dict[str, tuple[Role, float | None, float, float, float]] = {
    "found_15ms": ("found", 15.0, 40.0, 14.9, 15.6),
    "found_10ms": ("found", 10.0, 34.0, 9.95, 10.4),
    "found_20ms": ("found", 20.0, 43.0, 19.8, 20.9),
    "start": ("start", None, 44.5, 22.6, 23.9),
    "baseline": ("baseline", None, 38.8, 14.2, 15.0),
}
"""Role, target, box AP, predicted and measured runtime, by run folder."""


def whole_row(folder: str) -> Row:
    """A row of :data:`WHOLE`; what was found has files."""
    role, target, ap, predicted, measured = WHOLE[folder]
    exports = tuple(
        ExportedFile(f"export/onnx/{folder}{suffix}.onnx", size, "onnx", part, runtime)
        for suffix, part, size, runtime in (
            ("", "image", 5_300_000, 16.1), (".boxes", "boxes", 900_000, None),
        )
    )  # fmt: skip
    shift = ap - SCORES["bbox"]["AP"]
    scores = {
        task: {name: None if value is None else value + shift for name, value in found.items()}
        for task, found in SCORES.items()
    }
    note = "efficientnet_lite0 narrowed to 74 % of its channels" if role == "baseline" else ""
    own = f"spnas_around_efficientnet_lite0_{target:.0f}ms" if target else f"{role}_network"
    return Row(
        own, role, folder, scores, 4_100_000, target, predicted, measured, note,
        exports if role == "found" else (),
    )  # fmt: skip


def write_whole(folder: Path) -> Path:
    """The folder of a ``spnas auto`` for three targets."""
    write_search(folder / "search")
    rows = [whole_row(name) for name in WHOLE]
    for row in rows:
        write_detector(folder / row.folder, dict(row.scores), row.name)
    stages = (
        Stage("Look at the data", "spnas check-data DATA.ROOT photos", "", 12.0),
        Stage("Profile onnxruntime", "spnas profile --output t.json", "", 700.0, 660.0),
        Stage("Search on its losses", "spnas search OUTPUT_DIR search", "search", 1500.0, 1450.0),
        Stage("Train a published backbone", "spnas train", "baseline", None, 900.0),
    )
    Outcome(
        command="spnas auto --data photos --targets 15ms 10ms 20ms --budget 90m",
        dataset="photos",
        table="my_cpu",
        device="a processor",
        engine="onnxruntime",
        input_size=(320, 320),
        rows=tuple(rows),
        stages=stages,
        measured_with="onnxruntime, a processor, 1 thread, 320×320",
        budget=5400.0,
        hardware="a processor, 2 threads",
        commit="0123456789ab",
        versions={"onnxruntime": "1.23.0"},
    ).save(folder)
    counts = {"images": "12", "objects": "34", "small": "10 (29.4 %)"}
    classes = {"cat": (4, 10, 6), "dog": (6, 1, 7)}
    DataFacts(
        (
            DataSetFacts("photos/train", counts, classes, ("3 × boxes outside, first 'a.jpg'",)),
            DataSetFacts("photos/val", {**counts, "images": "3"}, {"cat": (1, 2, 3)}),
        ),
        (Proposal("INPUT.MIN_SIZE_TEST", "320", "a tenth of the objects are below 19 px"),),
    ).save(folder)
    return folder
