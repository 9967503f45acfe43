"""search → classifier → detector with W&B offline and TensorBoard: one picture in both."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from search.studies.commands import backbone_overrides
from tests.search.conftest import SHORT, overrides
from tests.tiny_coco import BASE, ROOT, TINY_MODEL
from tests.wandb_files import files, logged, of_kind, summary, wait_for_end

STAGES = ("search", "classifier", "detector")
ON = ("WANDB.ENABLED", "True")


def tool(patch: pytest.MonkeyPatch, name: str, *words: object) -> None:
    """A command as a user types it, in this process."""
    patch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")


@pytest.fixture(scope="module")
def chain(
    images: Path, tiny_coco: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folders of three runs, each on what the one before has left."""
    base = tmp_path_factory.mktemp("chain")
    folders = {stage: base / stage for stage in STAGES}
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DATA_DIR", str(base / "home"))
        options = [*overrides(images, folders["search"]), *SHORT, *ON, "SEARCH.MEASURE", "False"]
        tool(patch, "search_net.py", "--config-file", "search/digits_small.yaml", *options)
        options = [*overrides(images, folders["classifier"]), *SHORT, *ON]
        found = backbone_overrides(folders["search"])
        file = ("--config-file", "classification/digits_small.yaml")
        tool(patch, "train_classifier.py", *file, *options, *found)
        options = [*TINY_MODEL, *ON, "OUTPUT_DIR", str(folders["detector"])]
        data = ("DATASETS.TRAIN", "('tiny_train',)", "DATASETS.TEST", "('tiny_val',)")
        short = ("SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()")
        trained = backbone_overrides(folders["classifier"])
        tool(patch, "train_net.py", "--config-file", BASE, *options, *data, *short, *trained)
    for folder in folders.values():
        wait_for_end(folder)
    return folders


def run_id(folder: Path) -> str:
    return (folder / "wandb_run_id").read_text()


def artifacts(folder: Path, used: bool) -> dict[str, Any]:
    """By name; W&B makes some of its own, of tables and of the classes of pictures."""
    ours = ("architecture", "model", "report", "latency_table")
    found = [a for a in of_kind(folder, "artifact") if a.type in ours]
    return {a.name: a for a in found if a.use_after_commit == used}


def events(folder: Path) -> EventAccumulator:
    """All of a run's events; by default images are left out at random."""
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


@pytest.mark.slow
def test_three_stages_are_one_group(chain: dict[str, Path]) -> None:
    groups = {of_kind(folder, "run")[0].run_group for folder in chain.values()}
    assert groups == {f"search-{run_id(chain['search'])}"}


@pytest.mark.parametrize(("before", "after"), [STAGES[:2], STAGES[1:]])
def test_every_stage_uses_what_the_one_before_made(
    before: str, after: str, chain: dict[str, Path]
) -> None:
    made, used = artifacts(chain[before], False), artifacts(chain[after], True)
    own = run_id(chain[before])
    assert used.keys() == {f"architecture-{own}", f"backbone-{own}"}
    for name, artifact in used.items():
        assert (artifact.digest, artifact.type) == (made[name].digest, made[name].type)


def test_what_every_stage_made(chain: dict[str, Path]) -> None:
    """With its figures, the report among it as it is in the folder."""
    kinds = {
        stage: sorted(name.rpartition("-")[0] for name in artifacts(folder, False))
        for stage, folder in chain.items()
    }
    assert kinds["search"] == kinds["classifier"] == ["architecture", "backbone", "report"]
    assert kinds["detector"] == ["model_final", "report"]
    for folder in chain.values():
        report = artifacts(folder, False)[f"report-{run_id(folder)}"]
        kept = Path(report.manifest.contents[0].local_path)
        assert kept.read_bytes() == (folder / "report.html").read_bytes()
    results = json.loads((chain["search"] / "results.json").read_text())["search"]
    weights = artifacts(chain["search"], False)[f"backbone-{run_id(chain['search'])}"]
    facts = json.loads(weights.metadata)
    assert facts["predicted_runtime"] == pytest.approx(results["predicted_runtime"])
    assert facts["target_runtime"] == results["target_runtime"] == 0.65
    assert facts["val/top1"] == results["val"]["top1"]
    final = artifacts(chain["detector"], False)[f"model_final-{run_id(chain['detector'])}"]
    assert "tiny_val.bbox.AP" in json.loads(final.metadata)


def test_decisions_over_time_are_a_heat_map_in_both(chain: dict[str, Path]) -> None:
    tags = [t for t in events(chain["search"]).Tags()["images"] if "decisions" in t]
    names = {tag.removesuffix("/image") for tag in tags}
    assert names and all(name.startswith("decisions_over_time/") for name in names)
    for name in names:
        found = logged(chain["search"], name)
        with Image.open(files(chain["search"]) / found["path"]) as image:
            pixels = image.convert("RGB")
        (event,) = events(chain["search"]).Images(name)
        assert (event.width, event.height) == pixels.size == (found["width"], found["height"])
        assert min(pixels.size) > 200 and len(pixels.getcolors(1 << 20) or ()) > 20


def test_ap_by_scale_is_a_table_and_in_the_summary(chain: dict[str, Path]) -> None:
    folder = chain["detector"]
    scores = json.loads((folder / "results.json").read_text())["detection"]["scores"]["tiny_val"]
    table = json.loads((files(folder) / logged(folder, "ap_by_scale")["path"]).read_text())
    assert table["columns"] == ["data set", "AP of", "scale", "AP"]
    metrics = {"all": "AP", "small": "APs", "medium": "APm", "large": "APl"}
    tasks = {"box": "bbox", "mask": "segm"}
    assert len(table["data"]) == len(metrics) * len(tasks)
    for dataset, task, scale, value in table["data"]:
        assert dataset == "tiny_val" and value == scores[tasks[task]][metrics[scale]]
    finals = summary(folder)
    for task, found in scores.items():
        for metric in metrics.values():
            assert finals[f"final/tiny_val/{task}/{metric}"] == found[metric]
    tensorboard = events(folder)
    for task, found in scores.items():
        (scalar,) = tensorboard.Scalars(f"{task}/APs")
        assert scalar.value == pytest.approx(found["APs"])


def test_predictions_stand_beside_the_ground_truth_in_both(chain: dict[str, Path]) -> None:
    folder = chain["detector"]
    native = logged(folder, "samples/tiny_val")
    assert native["count"] == len(native["all_boxes"]) == 5  # of which the sixth has no object
    assert {name for boxes in native["all_boxes"] for name in boxes} == {
        "ground truth",
        "predictions",
    }
    for index in range(4):
        (event,) = events(folder).Images(f"predictions/tiny_val/{index}")
        assert event.width in (2 * 96, 2 * 72)
        assert logged(folder, f"predictions/tiny_val/{index}")["width"] == event.width
