"""Run folders as the tools leave them, written by hand, with the figures of small runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from backbones import load_architecture

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
