"""Wrong starts are answered before anything is tried out, and right ones become a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones import UserError
from search.auto import planning as module
from search.auto.planning import look, make_plan
from search.auto.request import Request
from search.auto.run import run_auto
from tests.search.auto.stand_ins import COSTS, LITE0, TABLE, small_data, the_baseline

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return small_data(tmp_path / "photos")


def asked(photos: Path, **changed: Any) -> Request:
    return Request(**{"data": str(photos), "targets": (15.0,), "table": TABLE, **changed})


def rewrite(photos: Path, split: str, change: Change) -> None:
    file = photos / split / "_annotations.coco.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def boxes_only(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        del annotation["segmentation"]


def no_files(photos: Path) -> None:
    for split in ("train", "val"):
        (photos / split / "_annotations.coco.json").unlink()


def several(photos: Path) -> None:
    """Two annotation files for each split, as of other classes of the same photos."""
    (photos / "annotations").mkdir()
    for split in ("train", "val"):
        content = (photos / split / "_annotations.coco.json").read_bytes()
        for name in (f"instances_{split}.json", f"instances_{split}_13.json"):
            (photos / "annotations" / name).write_bytes(content)
        (photos / split / "_annotations.coco.json").unlink()


WRONG: dict[str, tuple[Callable[[Path], Any], dict[str, Any], str]] = {
    "no folder": (
        lambda photos: None,
        {"data": "nowhere"},
        "--data is 'nowhere': .*no such",
    ),
    "no annotation file": (no_files, {}, "annotation"),
    "several": (
        several,
        {},
        r"where train may be '.*'; choose, such as: --data \S+train \S+val$",
    ),
    "no annotations": (
        lambda photos: rewrite(photos, "train", lambda c: c.update(annotations=[])),
        {},
        "no image of 'photos/train' has an annotated object; annotate some",
    ),
    "other classes": (
        lambda photos: rewrite(photos, "val", lambda c: c["categories"][0].update(name="cup")),
        {},
        "cup",
    ),
    "boxes alone": (
        lambda photos: [rewrite(photos, split, boxes_only) for split in ("train", "val")],
        {},
        "--detector is mask_rcnn, .*boxes without masks; take --detector faster_rcnn or retinanet",
    ),
    "unknown network": (
        lambda photos: None,
        {"seed_network": "efficientnet_b99"},
        "--seed-network.*efficientnet_b99",
    ),
    "no weights": (
        lambda photos: None,
        {"seed_network": "fbnet_b"},
        "--seed-network is 'fbnet_b': there are no pretrained weights",
    ),
    "a table of another size": (lambda photos: None, {"size": 256}, "is for 320×320 images"),
    "a target out of reach": (lambda photos: None, {"targets": (2.0,)}, "smallest network around"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_starts(
    name: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is tried out, and nothing written."""
    monkeypatch.setattr(module, "measure_costs", lambda *_: pytest.fail("tried out"))
    change, arguments, message = WRONG[name]
    change(photos)
    output = tmp_path / "output"
    with pytest.raises(UserError, match=message) as caught:
        run_auto(asked(photos, **arguments), output)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_a_training_and_a_validation_set(photos: Path, tmp_path: Path) -> None:
    several(photos)
    files = photos / "annotations"
    sets = [f"{files}/instances_{split}_13.json:{photos / split}" for split in ("train", "val")]
    ground = look(asked(photos, data=sets[0], data_val=sets[1]), tmp_path / "auto")
    counts = [len(list((photos / split).iterdir())) for split in ("train", "val")]
    assert [len(file.images) for file in ground.data.files.values()] == counts


def test_weights_that_are_not_installed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.packaged.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed: pip install .* \(spnas\[pretrained\] has"):
        look(asked(photos), Path("output"))


def test_a_budget_of_a_minute(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "measure_costs", lambda *_: replace(COSTS, startup=30.0))
    output = tmp_path / "output"
    with pytest.raises(UserError, match="does not hold this plan: it needs at least"):
        run_auto(asked(photos, budget=60.0), output)
    assert not output.exists()


def test_a_plan_is_printed_and_nothing_more(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "measure_costs", lambda *_: COSTS)
    output = tmp_path / "output"
    run_auto(asked(photos, targets=(12.0, 15.0)), output, plan_only=True)
    said = capsys.readouterr().out
    assert "Search on its losses for 12 and 15 ms" in said
    assert f"Runtimes are by the latency table '{TABLE}'" in said
    assert not output.exists()


def test_boxes_alone_make_a_detector_without_masks(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        rewrite(photos, split, boxes_only)
    ground = look(asked(photos, detector="faster_rcnn"), tmp_path)
    plan, _ = make_plan(ground, tmp_path, COSTS)
    cfg = plan.recipe.training(tmp_path / "start", tmp_path, 1.0).config()
    assert not cfg.MODEL.MASK_ON


def test_retinanet_has_its_own_builders(photos: Path, tmp_path: Path) -> None:
    ground = look(asked(photos, detector="retinanet"), tmp_path)
    plan, _ = make_plan(ground, tmp_path, COSTS)
    training = plan.recipe.training(tmp_path / "start", tmp_path, 1.0).config()
    search = plan.recipe.searching(tmp_path / "search", tmp_path, ()).config()
    assert training.MODEL.META_ARCHITECTURE == search.MODEL.META_ARCHITECTURE == "RetinaNet"
    assert training.MODEL.BACKBONE.NAME == "build_retinanet_spnas_fpn_backbone"
    assert search.MODEL.BACKBONE.NAME == "build_retinanet_supernet_fpn_backbone"
    assert training.MODEL.RETINANET.NUM_CLASSES == 3


def test_without_a_table_the_device_is_profiled(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "shipped_table", lambda *_: "")
    ground = look(asked(photos, table="", size=320), tmp_path)
    plan, facts = make_plan(ground, tmp_path / "output", COSTS)
    assert plan.work.profiles
    assert plan.table == str(tmp_path / "output" / "latency_onnxruntime_320.json")
    assert plan.recipe.deploy_size == (320, 320)
    assert {item.key for item in facts.proposals} >= {"SOLVER.EPOCHS", "INPUT.MIN_SIZE_TEST"}
    assert plan.request.seed_network == LITE0


def test_a_plan_reads_itself(photos: Path, tmp_path: Path) -> None:
    plan, _ = make_plan(look(asked(photos), tmp_path), tmp_path, COSTS)
    narrowed = replace(the_baseline(), arch=str(tmp_path / "baseline_network/architecture.json"))
    plan = replace(plan, baseline=narrowed)
    plan.save(tmp_path)
    assert type(plan).load(tmp_path) == plan


def test_a_folder_that_was_moved(photos: Path, tmp_path: Path) -> None:
    """What is in it is found where it is now."""
    here, there = tmp_path / "here", tmp_path / "there"
    plan, _ = make_plan(look(asked(photos), here), here, COSTS)
    plan = replace(plan, table=str(here / "table.json"), baseline=the_baseline())
    plan.save(here)
    here.rename(there)
    found = type(plan).load(there)
    assert found is not None
    assert found.table == str(there / "table.json")
    assert found.baseline == the_baseline()
