"""What is proposed for a data set, against its annotations and by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg

from backbones import UserError
from detection.config import add_spnas_config
from detection.data.annotations.anchors import InputSize
from detection.data.annotations.file import AnnotationFile
from detection.data.inspection import Inspection
from search.auto.data_facts import DATA_FILE, DataFacts, Proposal
from search.auto.proposals import Proposals, propose, recipe_epochs, sides_for
from tests.detection.annotation_files import content, rle
from tests.tiny_coco import ROOT

BIG = 10
"""Images of 1200×900 pixels, and objects with sides of 120 to 450."""


@pytest.fixture(scope="module")
def cfg() -> CfgNode:
    node = get_cfg()
    add_spnas_config(node)
    node.merge_from_file(str(ROOT / "configs/detection/custom_lite.yaml"))
    return node


def photos(images: int = 40, scale: float = BIG) -> dict[str, Any]:
    """Large photos, whose objects are ``scale`` times those of the small ones."""
    data = content(images)
    for image in data["images"]:
        image |= {"width": 120 * BIG, "height": 90 * BIG}
    for item in data["annotations"]:
        item["bbox"] = [scale * value for value in item["bbox"]]
        del item["area"], item["segmentation"]
    return data


def inspection(train: dict[str, Any], val: dict[str, Any] | None = None) -> Inspection:
    files = {"train": AnnotationFile("train.json", train)}
    if val is not None:
        files["val"] = AnnotationFile("val.json", val)
    return Inspection(("train",), files, dict.fromkeys(files, ()), dict.fromkeys(files, ()))


def values(found: Proposals) -> dict[str, str]:
    return {item.key: item.value for item in found.keys}


def sides_at(data: dict[str, Any], size: InputSize) -> list[float]:
    """Sides of squares of the objects' areas when images of 1200×900 pixels are resized."""
    scale = min(size.short / (90 * BIG), size.long / (120 * BIG))
    return [float(np.sqrt(box[2] * box[3])) * scale for box in boxes_of(data)]


def boxes_of(data: dict[str, Any]) -> list[list[float]]:
    return [item["bbox"] for item in data["annotations"]]


def test_the_size_is_what_small_objects_need_and_says_so(cfg: CfgNode) -> None:
    data = photos(scale=BIG / 3)
    found = propose(cfg, inspection(data))
    tenth, quarter = np.quantile(sides_at(data, found.size), [0.1, 0.25])
    assert found.size.short % 32 == 0
    assert abs(tenth - 24) < 24 * 16 / found.size.short + 1e-6  # to the next multiple of 32
    assert found.deploy_size == (found.size.short, found.size.short)
    (size,) = (item for item in found.keys if item.key == "INPUT.MIN_SIZE_TRAIN")
    assert size.value == f"({found.size.short},)"
    assert size.reason == (
        f"a tenth of the objects are below {tenth:.0f} px and a quarter below {quarter:.0f} px at "
        f"{found.size.short}"
    )
    assert found.size.long / found.size.short == pytest.approx(4 / 3, abs=0.05)


def test_what_is_proposed_is_taken_by_the_configuration(cfg: CfgNode) -> None:
    data = photos(scale=BIG / 4)
    found = propose(cfg, inspection(data))
    node = cfg.clone()
    node.merge_from_list([*found.options()])
    assert (found.size.short,) == node.INPUT.MIN_SIZE_TRAIN
    assert found.size.short == node.INPUT.MIN_SIZE_TEST
    assert "SOLVER.EPOCHS" not in found.options()
    assert values(found)["SOLVER.EPOCHS"] == f"{found.epochs:g}"


def test_a_small_budget_takes_a_smaller_size_as_far_as_the_objects_allow(cfg: CfgNode) -> None:
    """The largest size with half of the recipe's steps, else that of objects of 12 pixels."""
    data = photos(scale=BIG / 4)
    whole = propose(cfg, inspection(data))
    recipe = whole.recipe_epochs * 40 / 4
    side = whole.size.short

    def pace(at_whole: float) -> Proposals:
        return propose(
            cfg, inspection(data), steps=lambda size: at_whole * (side / size.short) ** 2
        )

    assert pace(2 * recipe).size == whole.size
    assert pace(2 * recipe).epochs == whole.epochs == whole.recipe_epochs
    tight = pace(0.5 * recipe)
    assert tight.size == whole.size
    assert tight.epochs == pytest.approx(0.5 * whole.epochs, abs=0.01)
    smaller = pace(0.4 * recipe)
    fits = 0.4 * (side / smaller.size.short) ** 2
    above = 0.4 * (side / (smaller.size.short + 32)) ** 2
    assert above < 0.5 <= fits
    assert f"too few steps at {side}" in smaller.keys[0].reason
    least = pace(1e-3 * recipe)
    assert np.quantile(sides_at(data, least.size), 0.1) >= 12
    short = least.size.short - 32
    assert np.quantile(sides_at(data, InputSize(short, 2 * short)), 0.1) < 12
    assert 0 < least.epochs < 1


def test_targets_bound_the_size(cfg: CfgNode) -> None:
    data = photos(scale=BIG / 3)
    own = propose(cfg, inspection(data)).size.short
    small = propose(cfg, inspection(data), sides=(192, 256))
    assert small.size.short == 256
    assert f"the data would have {own}, the targets ask for 256" in small.keys[0].reason
    assert propose(cfg, inspection(data), sides=(192, own + 64)).size.short == own
    assert propose(cfg, inspection(data), sides=(own + 64, own + 96)).size.short == own + 64
    bound = propose(cfg, inspection(data), steps=lambda size: 1.0, sides=(own - 32, own))
    assert bound.size.short == own - 32


@pytest.mark.parametrize(
    ("targets", "expected"),
    [([15.0], (288, 352)), ([10.0, 12.0], (256, 288)), ([10.0, 25.0], (288, 288))],
)
def test_sides_for_targets(targets: list[float], expected: tuple[int, int]) -> None:
    """Of a start of 20 ms at 320 pixels: between 1 and 0.6 of what it takes there."""
    assert sides_for(targets, 20.0, 320) == expected
    low, high = expected
    if low < high:
        assert 20 * (low / 320) ** 2 >= max(targets) > 20 * ((low - 32) / 320) ** 2
        assert 0.6 * 20 * (high / 320) ** 2 <= min(targets) < 0.6 * 20 * ((high + 32) / 320) ** 2


def test_a_size_that_is_asked_for_is_taken(cfg: CfgNode) -> None:
    found = propose(cfg, inspection(photos()), side=224, steps=lambda size: 10.0)
    assert found.size == InputSize(224, 288)
    with pytest.raises(UserError, match=r"the size is 250; expected a multiple of 32 .* such as"):
        propose(cfg, inspection(photos()), side=250)


def test_anchors_are_proposed_where_they_fit_better(cfg: CfgNode) -> None:
    data = photos()
    for number, item in enumerate(data["annotations"]):
        x, y, width, _ = item["bbox"]
        item["bbox"] = [x, y, width, (5 + number % 3) * width]  # posts, taller than any anchor
    found = propose(cfg, inspection(data), side=320)
    node = cfg.clone()
    node.merge_from_list([*found.options()])
    assert min(node.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0]) > 4
    assert len(node.MODEL.ANCHOR_GENERATOR.SIZES) == 4
    (sizes,) = (k for k in found.keys if k.key == "MODEL.ANCHOR_GENERATOR.SIZES")
    low, high = np.quantile(sides_at(data, found.size), [0.05, 0.95])
    assert f"nine tenths of the objects are {low:.0f} to {high:.0f} px at 320" in sizes.reason


def test_more_images_need_fewer_passes() -> None:
    assert recipe_epochs(400) == 12
    assert recipe_epochs(100) == 24
    assert recipe_epochs(5000) == pytest.approx(12 * (400 / 5000) ** 0.5, abs=0.05)
    assert recipe_epochs(1) == 40 and recipe_epochs(10**6) == 3


def test_images_without_objects_are_no_part_of_an_epoch(cfg: CfgNode) -> None:
    data = photos(images=10)
    data["annotations"] = data["annotations"][:9]
    found = propose(cfg, inspection(data))
    assert (found.images, found.batch) == (3, 3)
    assert values(found)["SOLVER.IMS_PER_BATCH"] == "3"
    node = cfg.clone()
    node.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert propose(node, inspection(data)).images == 10


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("left_door", "right_door", "hood"), "mirrored, 'left_door' would be 'right_door'"),
        (("b", "d", "3"), "a mirrored letter or digit is another one"),
        (("left_over", "bee", "cow"), ""),
    ],
)
def test_classes_that_a_mirror_turns(
    cfg: CfgNode, names: tuple[str, str, str], reason: str
) -> None:
    data = photos()
    for category, name in zip(data["categories"], names, strict=True):
        category["name"] = name
    keys = {item.key: item for item in propose(cfg, inspection(data)).keys}
    assert ("INPUT.RANDOM_FLIP" in keys) == bool(reason)
    if reason:
        assert keys["INPUT.RANDOM_FLIP"] == Proposal("INPUT.RANDOM_FLIP", "none", reason)


def test_what_else_the_data_ask_for(cfg: CfgNode) -> None:
    """Boxes alone, and more objects on an image than are kept."""
    data = photos(images=4)
    crowded = copy.deepcopy(data)
    crowded["annotations"] *= 40
    for item in crowded["annotations"]:
        item["image_id"] = 1
    found = values(propose(cfg, inspection(data, crowded)))
    assert found["MODEL.MASK_ON"] == "False"
    assert found["TEST.DETECTIONS_PER_IMAGE"] == str(len(crowded["annotations"]))


def test_long_photos_are_evaluated_whole(cfg: CfgNode) -> None:
    val = photos(images=4)
    for image in val["images"]:
        image["width"] = 1800
    found = propose(cfg, inspection(photos(), val), side=320)
    assert values(found)["INPUT.MAX_SIZE_TRAIN"] == "416"
    assert values(found)["INPUT.MAX_SIZE_TEST"] == "640"


def test_without_objects_it_says_so(cfg: CfgNode) -> None:
    with pytest.raises(UserError, match="no object with a box"):
        propose(cfg, inspection({**photos(), "annotations": []}))


def test_facts_are_kept_with_the_proposals(cfg: CfgNode, tmp_path: Path) -> None:
    data = content(8)
    data["annotations"][0]["segmentation"] = rle(data["annotations"][0])
    found = inspection(data, content(4))
    proposals = propose(cfg, found).keys
    written = DataFacts.of(found, proposals)
    assert written.save(tmp_path) == tmp_path / DATA_FILE
    assert DataFacts.load(tmp_path) == written
    counts = {name: [0, 0, 0] for name in ("ant", "bee", "cow")}
    for item in data["annotations"]:
        name = ("ant", "bee", "cow")[item["category_id"] - 1]
        area = item["bbox"][2] * item["bbox"][3]
        counts[name][int(area >= 32**2) + int(area >= 96**2)] += 1
    train, val = written.sets
    assert {name: list(row) for name, row in train.classes.items()} == counts
    assert (train.name, train.facts["images"], val.facts["images"]) == ("train", "8", "4")
    (tmp_path / DATA_FILE).write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(UserError, match="the key 'sets' is missing"):
        DataFacts.load(tmp_path)
