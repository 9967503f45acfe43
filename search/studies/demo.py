"""The demo: search, classifier training and detection on the embedded digits, as commands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from backbones.figures import shown
from backbones.files import read_json, write_json
from detection.engine.provenance import provenance
from detection.report import final_table
from search.studies.commands import (
    Command,
    backbone_overrides,
    check_folders,
    run_in_order,
)
from search.studies.markdown import beside, table

TITLES = (
    "Search the full-size space for a network at the target runtime",
    "Train the network found as a classifier",
    "Fine-tune Mask R-CNN with FPN on it",
)


def demo_commands(output: Path, seed: int = 0) -> list[Command]:
    """The three commands; a user's own data takes the same three with other configs."""
    search, classifier, detector = (output / name for name in ("search", "classifier", "detection"))
    seeded = ("SEED", str(seed)) if seed else ()  # 0 is the configurations' own
    return [
        Command("search_net.py", "configs/search/digits.yaml", search, seeded, study=output),
        Command(
            "train_classifier.py",
            "configs/classification/digits.yaml",
            classifier,
            (*backbone_overrides(search), *seeded),
            study=output,
        ),
        Command(
            "train_net.py",
            "configs/detection/mask_rcnn_spnas_fpn_digits.yaml",
            detector,
            (*backbone_overrides(classifier), *seeded, "MODEL.SPNAS.ENGINE", "onnxruntime"),
            study=output,
        ),
    ]


def run_demo(output: Path) -> None:
    """Runs the commands in order and prints what came out.

    Raises:
        UserError: if the folder holds runs of other configurations, or a command fails.
    """
    start = time.monotonic()
    commands = demo_commands(output)
    check_folders(commands)
    run_in_order(commands, TITLES)
    minutes = (time.monotonic() - start) / 60
    print(summary(output))
    print(f"\nThe demo took {minutes:.1f} minutes; everything it made is in {output}/")
    write_json(output / "demo.json", demo_study(output, minutes))


def demo_study(output: Path, minutes: float) -> dict[str, object]:
    """What the pages show of a demo."""
    search, classifier, detection = (
        read_json(command.folder / "results.json", "results") for command in demo_commands(output)
    )
    found = ("layers", "predicted_runtime", "target_runtime", "unit")
    (scores,) = detection["detection"]["scores"].values()
    cost = detection["detection"]["cost"]
    return {
        **provenance(),
        "command": "make demo",
        "seed": 0,
        "minutes": minutes,
        **{key: search["search"][key] for key in found},
        "top1": classifier["classification"]["val"]["top1"],
        "scores": scores,
        **{key: cost[key] for key in ("measured_runtime", "measured_with")},
    }


def summary(output: Path) -> str:
    """What the three commands found, from their ``results.json``."""
    search, classifier, detection = (
        read_json(command.folder / "results.json", "results") for command in demo_commands(output)
    )
    found, trained = search["search"], classifier["classification"]
    cost = detection["detection"]["cost"]
    unit, target = found["unit"], found["target_runtime"]
    off = 100 * (found["predicted_runtime"] / target - 1)
    runtime = shown(found["predicted_runtime"])
    facts = [
        ["searched layers", " ".join(found["layers"])],
        ["predicted runtime", f"{runtime} {unit} ({off:+.2f} % of target)"],
        ["target runtime", f"{target:g} {unit} on '{found['latency_table']}'"],
        ["measured runtime", f"{shown(cost['measured_runtime'])} ms ({cost['measured_with']})"],
        ["held-out digits, top-1", f"{trained['val']['top1']:.2f} %"],
    ]
    return f"\n{tabulate(facts, tablefmt='plain')}\n\n{final_table(detection['detection'])}"


def demo_section(study: Mapping[str, Any]) -> str:
    """Layers, runtime and accuracy that the demo ended with, and AP by object scale."""
    facts = table(
        ["searched layers", "predicted runtime", "target", "held-out digits", "time"],
        [
            [
                " ".join(study["layers"]),
                f"{shown(study['predicted_runtime'])} {study['unit']}",
                f"{study['target_runtime']:g} {study['unit']}",
                f"{study['top1']:.2f} %",
                f"{study['minutes']:.1f} min",
            ]
        ],
    )
    names = {"bbox": "box", "segm": "mask"}
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    scores = [
        [names[task], *("–" if figures[key] is None else f"{figures[key]:.2f}" for key in keys)]
        for task, figures in ((task, study["scores"][task]) for task in names)
    ]
    found = table(["AP of", "AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"], scores)
    return f"{facts}\n\n{found}\n\n{beside(study)}"
