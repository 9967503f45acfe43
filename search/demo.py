"""The demo: search, classifier training and detection on the embedded digits, as commands."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate

from backbones.engines.hardware import hardware
from backbones.errors import UserError
from backbones.files import read_json, write_json
from detection.report import final_table


@dataclass(frozen=True)
class DemoStage:
    """One command of the demo.

    Attributes:
        title: printed before it.
        script: below ``tools/``.
        arguments: of the script.
        folder: its run folder.
    """

    title: str
    script: str
    arguments: tuple[str, ...]
    folder: Path


def demo_stages(output: Path) -> list[DemoStage]:
    """The three commands; a user's own data takes the same three with other configs."""
    search, classifier, detector = (output / name for name in ("search", "classifier", "detection"))
    return [
        DemoStage(
            "Search the full-size space for a network at the target runtime",
            "search_net.py",
            ("--config-file", "configs/search/digits.yaml"),
            search,
        ),
        DemoStage(
            "Train the network found as a classifier",
            "train_classifier.py",
            (
                *("--config-file", "configs/classification/digits.yaml"),
                *("MODEL.SPNAS.ARCH", str(search / "architecture.json")),
                *("MODEL.WEIGHTS", str(search / "backbone.pth")),
            ),
            classifier,
        ),
        DemoStage(
            "Fine-tune Mask R-CNN with FPN on it",
            "train_net.py",
            (
                *("--config-file", "configs/detection/mask_rcnn_spnas_fpn_digits.yaml"),
                *("MODEL.SPNAS.ARCH", str(classifier / "architecture.json")),
                *("MODEL.WEIGHTS", str(classifier / "backbone.pth")),
                *("MODEL.SPNAS.RUNTIME_ENGINE", "onnxruntime"),
            ),
            detector,
        ),
    ]


def command(stage: DemoStage) -> list[str]:
    """The command line of a stage; ``--resume`` makes a second demo go on where the first was."""
    split = stage.arguments.index("--config-file") + 2
    return [
        f"tools/{stage.script}",
        *stage.arguments[:split],
        "--resume",
        *("OUTPUT_DIR", str(stage.folder)),
        *stage.arguments[split:],
    ]


def run_demo(output: Path) -> None:
    """Runs the stages in order and prints what came out.

    Raises:
        UserError: if it is not started at the top of a checkout, or a stage fails.
    """
    if not Path("tools/search_net.py").is_file():
        raise UserError("run the demo at the top of the checkout: python tools/demo.py")
    start = time.monotonic()
    for number, stage in enumerate(demo_stages(output), start=1):
        arguments = command(stage)
        print(f"\n[{number}/3] {stage.title}\n$ python {shlex.join(arguments)}", flush=True)
        environment = {"PYTHONWARNINGS": "ignore", **os.environ}
        code = subprocess.run([sys.executable, *arguments], env=environment).returncode
        if code:
            raise UserError(f"stage {number} of the demo ended with exit code {code}, see above")
    minutes = (time.monotonic() - start) / 60
    print(summary(output))
    print(f"\nThe demo took {minutes:.1f} minutes; everything it made is in {output}/")
    write_json(output / "demo.json", demo_study(output, minutes))


def demo_study(output: Path, minutes: float) -> dict[str, object]:
    """What the README shows of a demo."""
    search, classifier, detection = (
        read_json(stage.folder / "results.json", "results") for stage in demo_stages(output)
    )
    found = ("layers", "predicted_runtime", "target_runtime", "unit")
    (scores,) = detection["detection"]["scores"].values()
    cost = detection["detection"]["cost"]
    return {
        "command": "make demo",
        "hardware": hardware(),
        "torch": torch.__version__,
        "seed": 0,
        "minutes": minutes,
        **{key: search["search"][key] for key in found},
        "top1": classifier["classification"]["val"]["top1"],
        "scores": scores,
        **{key: cost[key] for key in ("measured_runtime", "measured_with")},
    }


def summary(output: Path) -> str:
    """What the three stages found, from their ``results.json``."""
    search, classifier, detection = (
        read_json(stage.folder / "results.json", "results") for stage in demo_stages(output)
    )
    found, trained = search["search"], classifier["classification"]
    cost = detection["detection"]["cost"]
    unit, target = found["unit"], found["target_runtime"]
    off = 100 * (found["predicted_runtime"] / target - 1)
    facts = [
        ["searched layers", " ".join(found["layers"])],
        ["predicted runtime", f"{found['predicted_runtime']:.2f} {unit} ({off:+.2f} % of target)"],
        ["target runtime", f"{target:g} {unit} on '{found['latency_table']}'"],
        ["measured runtime", f"{cost['measured_runtime']:.2f} ms ({cost['measured_with']})"],
        ["held-out digits, top-1", f"{trained['val']['top1']:.2f} %"],
    ]
    return f"\n{tabulate(facts, tablefmt='plain')}\n\n{final_table(detection['detection'])}"
