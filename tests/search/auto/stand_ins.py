"""A plan on a small data set, and scripts that stand for the tools: they leave what those leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones import load_architecture
from backbones.deployment.contract import Contract, Network, Preprocessing, TensorSpec
from backbones.paths import config_path
from search.auto.baseline import Baseline
from search.auto.data_facts import DataFacts, DataSetFacts
from search.auto.plan import Plan
from search.auto.probe import Costs
from search.auto.recipe import Recipe
from search.auto.request import Request
from search.auto.schedule import Work, schedule
from search.auto.stages import jobs
from tests.search.report.run_files import SCORES
from tests.tiny_coco import write_dataset

LITE0 = "efficientnet_lite0"
TABLE = "epyc_onnxruntime_lite0_fpn64_320"
COSTS = Costs(320, 1.0, 0.1, 0.1, 0.01, 0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 22.0)

SCRIPT = '''
"""Stands for a tool: leaves what it leaves, and kills what started it where it is told to."""
import json, os, shutil, signal, sys, time
from pathlib import Path

words = sys.argv[1:]
home = Path(__file__).parent
at = words.index("OUTPUT_DIR" if "OUTPUT_DIR" in words else "--output")
target = Path(words[at + 1])
with open(home / "calls.jsonl", "a") as log:
    log.write(json.dumps([Path(__file__).name, *words]) + "\\n")
order = home / "kill.json"
if order.exists():
    name, both = json.loads(order.read_text())
    if name == str(target):
        order.unlink()
        os.kill(os.getppid(), signal.SIGKILL)
        if both:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
left = home / "left" / target.name
if left.is_dir():
    shutil.copytree(left, target, dirs_exist_ok=True)
else:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(left, target)
    if left.with_suffix(".contract").exists():
        shutil.copy(left.with_suffix(".contract"), target.with_suffix(".json"))
'''
TOOLS = ("train_net.py", "search_net.py", "profile_latency.py", "export_model.py", "report.py")


def small_data(folder: Path) -> Path:
    """Photos with a training and a validation split."""
    for seed, split in enumerate(("train", "val")):
        file = write_dataset(folder / split, seed)
        file.rename(file.with_name("_annotations.coco.json"))
    return folder


def small_plan(folder: Path, output: Path, *targets: float, profiles: bool = True) -> Plan:
    """For a space around EfficientNet-Lite0, by the table that comes with the package."""
    data = small_data(folder)
    request = Request(str(data), targets or (15.0,), table="" if profiles else TABLE)
    work = Work(
        train_images=6,
        test_images=6,
        batch=2,
        evaluated=6,
        layer_items=48,
        measured=60,
        targets=len(request.targets),
        exports=1,
        profiles=profiles,
        measures=True,
    )
    return Plan(
        request=request,
        recipe=Recipe(request, ("SOLVER.IMS_PER_BATCH", "2")),
        fpn_channels=64,
        table=str(output / "latency_onnxruntime_320.json") if profiles else TABLE,
        work=work,
        costs=COSTS,
        schedule=schedule(work, COSTS, 1.0, None),
    )


def small_facts() -> DataFacts:
    """Of no data in particular."""
    counted = dict.fromkeys(("images", "classes", "objects", "small", "medium", "large"), "6")
    return DataFacts((DataSetFacts("train", counted, {"box": (1, 2, 3)}, ("one is odd",)),))


def the_baseline(*_: Any) -> Baseline:
    """As it is chosen where nothing is near."""
    return Baseline(
        name=LITE0,
        kind="published",
        arch=LITE0,
        width_mult=1.0,
        weights="package://efficientnet_lite0",
        runtime=22.6,
        by="table",
        target=15.0,
        pixel_mean=(127.0, 127.0, 127.0),
        pixel_std=(128.0, 128.0, 128.0),
        note="the published network nearest to 15 ms",
    )


def write_tools(home: Path, plan: Plan, output: Path) -> None:
    """Scripts in ``home/tools``, and beside them what each has to leave, by its target's name."""
    tools = home / "tools"
    (tools / "left").mkdir(parents=True)
    for name in TOOLS:
        (tools / name).write_text(SCRIPT)
    known = replace(plan, baseline=the_baseline())
    for job in jobs(known, output):
        left = tools / "left"
        if job.command:
            write_run(left / job.name, job.command.config().dump(), job.kind)
        elif job.kind == "profile":
            path = config_path("latency", f"{TABLE}.json")
            (left / f"{job.name}.json").write_bytes(path.read_bytes())
        elif job.kind == "export" and job.file:
            (left / job.file.name).write_bytes(b"network")
            contract(job.file.name).save(left / f"{job.file.stem}.contract")
    networks = [{"measured": 10.0 + index} for index in range(len(plan.request.targets) + 2)]
    (tools / "left" / "measured.json").write_text(json.dumps(networks))


def write_run(folder: Path, config: str, kind: str) -> None:
    """What a training leaves, or a search."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "log.txt").write_text("")
    network = load_architecture(LITE0)
    cost: dict[str, Any] = {
        "backbone": f"spnas_around_{LITE0}_15ms" if kind in ("search", "tune") else LITE0,
        "params_detector": 6_000_000,
        "params_backbone": 3_000_000,
        "params_classifier": 4_650_000,
        "macs_backbone": 240_000_000,
        "macs_classifier": 300_000_000,
        "input_size": [320, 320],
        "latency_table": TABLE,
        "runtime": 14.95 if kind in ("search", "tune") else 22.62,
        "runtime_unit": "ms",
        "runtime_of": "backbone with pyramid at 320×320",
        "measured_runtime": None,
        "measured_with": None,
        "detector_runtime": 80.0,
    }
    results: dict[str, Any] = {"detection": {"cost": cost, "scores": {"photos/val": SCORES}}}
    if kind == "search":
        network.save(folder / "architecture.json")
        found = {"architecture": network.name, "layers": [], "predicted_runtime": 14.95}
        results["search"] = {**found, "target_runtime": 15.0, "unit": "ms", "latency_table": TABLE}
    (folder / "results.json").write_text(json.dumps(results))


def contract(file: str) -> Contract:
    """Of an exported network."""
    spec = TensorSpec("image", (1, 3, 320, 320))
    network = Network(file, (spec,), (spec,))
    checks = {"networks": {"image": {"latency": {"milliseconds": 30.0}}}}
    return Contract("detector", "onnx", "fp32", {"image": network}, Preprocessing(), checks=checks)
