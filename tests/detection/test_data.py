"""Data sets that cannot be used are named, and a resumed run sees the batches that were left."""

from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import load_proposals_into_dataset
from detectron2.structures import BoxMode
from PIL import Image

from backbones import UserError
from detection.data.checks import check_test_sets, load_records
from detection.data.loader import (
    BatchesByAspectRatio,
    build_test_loader,
    build_train_loader,
    load_training_records,
    skip_batches,
)
from detection.data.mapper import CheckedDatasetMapper
from detection.engine.sampler import ResumableSampler
from detection.modeling.meta_arch import num_classes

Register = Callable[..., str]


def image_ids(loader: Any, batches: int) -> list[list[int]]:
    return [[r["image_id"] for r in batch] for batch in itertools.islice(loader, batches)]


@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_loader_goes_on(tiny_cfg: CfgNode, grouping: bool, workers: int) -> None:
    tiny_cfg.DATALOADER.ASPECT_RATIO_GROUPING = grouping
    tiny_cfg.DATALOADER.NUM_WORKERS = workers
    tiny_cfg.INPUT.MIN_SIZE_TRAIN = tuple(range(40, 97))
    whole = list(itertools.islice(build_train_loader(tiny_cfg), 9))
    np.random.seed(5)
    resumed = build_train_loader(tiny_cfg)
    skip_batches(resumed, 5)
    for expected, batch in zip(whole[5:], itertools.islice(resumed, 4), strict=True):
        for one, other in zip(expected, batch, strict=True):
            assert one["image_id"] == other["image_id"]
            assert torch.equal(one["image"], other["image"])  # of the same drawn size
    # Six images, the last of which has no objects: five to learn from.
    assert {record["image_id"] for batch in whole for record in batch} == set(range(100, 105))


def test_wide_and_tall_images_are_not_mixed(tiny_cfg: CfgNode) -> None:
    batches = list(itertools.islice(build_train_loader(tiny_cfg), 10))
    kinds = [{record["width"] > record["height"] for record in batch} for batch in batches]
    assert [len(batch) for batch in batches] == [2] * 10
    assert all(len(kind) == 1 for kind in kinds)
    assert {True} in kinds and {False} in kinds


def test_batches_lose_and_repeat_nothing() -> None:
    wide = [index % 3 == 0 for index in range(30)]
    indices = ResumableSampler(30, seed=4)
    batches = BatchesByAspectRatio(indices, wide, 4)
    made = list(itertools.islice(batches, 60))
    assert all(len({wide[index] for index in batch}) == 1 for batch in made)
    seen = list(itertools.chain(*made))
    expected = list(itertools.islice(indices, 300))
    assert len(seen) == 240
    for kind in (True, False):
        ours = [index for index in seen if wide[index] == kind]
        theirs = [index for index in expected if wide[index] == kind]
        assert len(ours) > 50
        assert ours == theirs[: len(ours)]


def test_test_loader_keeps_order_and_empty_images(tiny_cfg: CfgNode) -> None:
    loader = build_test_loader(tiny_cfg, "tiny_val")
    assert image_ids(loader, 9) == [[100], [101], [102], [103], [104], [105]]
    assert len(loader) == 6


def test_unknown_name(tiny_cfg: CfgNode) -> None:
    with pytest.raises(UserError, match=r"unknown data set 'tiny_trian'.*'tiny_train'"):
        load_records("tiny_trian")
    tiny_cfg.DATASETS.TRAIN = ()
    with pytest.raises(UserError, match=r"DATASETS.TRAIN is empty"):
        build_train_loader(tiny_cfg)


def test_class_count(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    message = r"ROI_HEADS.NUM_CLASSES is 80, but data set 'tiny_\w+' has 3 classes \(box, disc, bar"
    with pytest.raises(UserError, match=message):
        build_train_loader(tiny_cfg)
    with pytest.raises(UserError, match=message):
        check_test_sets(tiny_cfg)
    tiny_cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    tiny_cfg.MODEL.RETINANET.NUM_CLASSES = 2
    with pytest.raises(UserError, match=r"RETINANET.NUM_CLASSES is 2.*set MODEL.RETINANET.NUM_CL"):
        build_test_loader(tiny_cfg, "tiny_val")
    assert num_classes(tiny_cfg) == 2


def test_missing_json(register: Register, tmp_path: Path) -> None:
    name = register(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"no file '.*none.json'.*DETECTRON2_DATASETS"):
        load_records(name)


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [',
        "[]",
        '{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
        '{"images": [{"id": 1, "height": 4, "width": 4, "file_name": "a"}], "annotations": '
        '[{"id": 1, "image_id": 1, "bbox": [0, 0, 1, 1]}], "categories": [{"id": 1, "name": "a"}]}',
        '{"images": [7], "annotations": [], "categories": []}',
        '{"images": [{"id": 1, "height": 4, "width": 4, "file_name": "a"}], "annotations": []}',
    ],
)
def test_broken_json(register: Register, tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    name = register(tmp_path / "broken.json")
    with pytest.raises(UserError, match=r"'.*broken.json' is not valid COCO JSON") as caught:
        load_records(name)
    assert "\n" not in str(caught.value)


def test_empty_sets(register: Register, tiny_cfg: CfgNode, own_json: Path) -> None:
    content = json.loads(own_json.read_text())
    own_json.write_text(json.dumps({**content, "images": [], "annotations": []}))
    with pytest.raises(UserError, match=r"is empty: .*lists no images"):
        load_records(register(own_json))
    own_json.write_text(json.dumps({**content, "annotations": []}))
    name = register(own_json)
    tiny_cfg.DATASETS.TRAIN = (name,)
    with pytest.raises(UserError, match=f"no image of {name} has an annotated object"):
        build_train_loader(tiny_cfg)
    tiny_cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert len(image_ids(build_train_loader(tiny_cfg), 2)) == 2


def test_missing_image(register: Register, own_json: Path) -> None:
    (own_json.parent / "3.jpg").unlink()
    with pytest.raises(UserError, match=r"no image '.*3.jpg', which '.*annotations.json' lists"):
        load_records(register(own_json))


@pytest.mark.parametrize(
    "place", ["../outside.jpg", "deeper/../../outside.jpg", "{}", "../own/0.jpg"]
)
def test_images_outside_the_folder(
    register: Register, own_json: Path, tmp_path: Path, place: str
) -> None:
    """An annotation file is data: it cannot have files read that are not in its image folder."""
    (own_json.parent / "deeper").mkdir()
    Image.new("RGB", (96, 72)).save(tmp_path / "outside.jpg")
    content = json.loads(own_json.read_text())
    content["images"][2]["file_name"] = place.format(tmp_path / "outside.jpg")
    own_json.write_text(json.dumps(content))
    name = register(own_json)
    with pytest.raises(UserError, match=rf"'{name}': the image 102 of '{own_json}' has the file_n"):
        load_records(name)


def test_images_inside_the_folder(register: Register, own_json: Path, tmp_path: Path) -> None:
    """By a relative path, by an absolute one, and by a link that its owner made."""
    (own_json.parent / "deeper").mkdir()
    for index, place in enumerate(("deeper/0.jpg", str(own_json.parent / "1.jpg"), "link/2.jpg")):
        content = json.loads(own_json.read_text())
        content["images"][index]["file_name"] = place
        own_json.write_text(json.dumps(content))
    (own_json.parent / "0.jpg").rename(own_json.parent / "deeper/0.jpg")
    (tmp_path / "elsewhere").mkdir()
    (own_json.parent / "2.jpg").rename(tmp_path / "elsewhere/2.jpg")
    (own_json.parent / "link").symlink_to(tmp_path / "elsewhere")
    assert len(load_records(register(own_json))) == 6


def test_images_of_a_data_set_in_python() -> None:
    """A function may name images anywhere: it is the user's own code."""
    DatasetCatalog.register("in_python", lambda: [{"file_name": __file__, "image_id": 0}])
    MetadataCatalog.get("in_python").image_root = "nowhere"
    assert len(load_records("in_python")) == 1


def test_annotations_nested_too_deeply(register: Register, own_json: Path) -> None:
    own_json.write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not valid COCO JSON .RecursionError"):
        load_records(register(own_json))


def test_proposals_are_data(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    ids = list(range(100, 106))
    boxes = [np.array([[0, 0, 5, 5], [0, 0, 9, 9]], np.float32)] * len(ids)
    scores = [np.array([0.1, 0.7], np.float32)] * len(ids)
    found = {"indexes": ids, "boxes": boxes, "scores": scores, "bbox_mode": BoxMode.XYXY_ABS}
    path = tmp_path / "proposals.pkl"
    path.write_bytes(pickle.dumps(found))
    tiny_cfg.MODEL.LOAD_PROPOSALS = True
    tiny_cfg.DATASETS.PROPOSAL_FILES_TRAIN = (str(path),)
    tiny_cfg.DATASETS.PROPOSAL_FILES_TEST = (str(path),)
    theirs = load_proposals_into_dataset(load_records("tiny_train"), str(path))
    for ours, record in zip(load_training_records(tiny_cfg), theirs, strict=False):
        assert ours["proposal_boxes"].tolist() == record["proposal_boxes"].tolist()
        assert ours["proposal_objectness_logits"][0] == np.float32(0.7)
        assert ours["proposal_bbox_mode"] is BoxMode.XYXY_ABS
    build_test_loader(tiny_cfg, "tiny_val")
    for content, message in (
        ({"ids": ids}, "holds no 'ids', 'boxes' and"),
        ({**found, "indexes": ids[:3]}, "has none for the image 103"),
        ({**found, "ids": print}, r"is a pickle that holds '(builtins|__builtin__).print'"),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=message):
            build_test_loader(tiny_cfg, "tiny_val")


@pytest.mark.parametrize("is_train", [True, False])
def test_images_that_cannot_be_used(
    register: Register, tiny_cfg: CfgNode, own_json: Path, is_train: bool
) -> None:
    records = load_records(register(own_json))
    mapper = CheckedDatasetMapper(tiny_cfg, is_train)
    assert mapper(records[1])["image"].shape[0] == 3
    image = own_json.parent / "1.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read the image '.*1.jpg' \(.*truncated"):
        mapper(records[1])
    image.write_text("no image")
    with pytest.raises(UserError, match="cannot read the image"):
        mapper(records[1])
    Image.new("RGB", (50, 40)).save(image)
    with pytest.raises(UserError, match=r"do not fit the image '.*1.jpg'.*\(50, 40\), expect \(96"):
        mapper(records[1])
    image.unlink()
    with pytest.raises(UserError, match=r"no image '.*1.jpg'"):
        mapper(records[1])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "bbox",
            KeyError,
            r"without a bbox, first annotation 2 of '0.jpg'; expected \[x, y, width",
        ),
        ("bbox", [1, 2, 3], r"of '0.jpg', bbox \[1, 2, 3\]; expected"),
        ("bbox", [1, 2, float("nan"), 3], r"bbox \[1, 2, nan, 3\]; expected"),
        ("bbox", ["a", "b", "c", "d"], r"bbox \['a', 'b', 'c', 'd'\]"),
        (
            "segmentation",
            {"size": [72, 96], "counts": [6912]},
            r"height and width \[72, 96\], but the image has \[96",
        ),
        ("segmentation", [["a", "b", "c", "d", "e", "f"]], r"neither polygons of numbers nor run"),
    ],
)
def test_annotations_that_cannot_be_used(
    register: Register, tiny_cfg: CfgNode, own_json: Path, key: str, value: Any, message: str
) -> None:
    content = json.loads(own_json.read_text())
    annotation = content["annotations"][1]
    if value is KeyError:
        del annotation[key]
    else:
        annotation[key] = value
    own_json.write_text(json.dumps(content))
    name = register(own_json)
    for cfg_key, check in (("TRAIN", build_train_loader), ("TEST", check_test_sets)):
        tiny_cfg.DATASETS[cfg_key] = (name,)
        with pytest.raises(UserError, match=message):
            check(tiny_cfg)
    tiny_cfg.MODEL.MASK_ON = False
    if key == "segmentation":
        check_test_sets(tiny_cfg)


def test_sizes_that_are_no_numbers(register: Register, tiny_cfg: CfgNode, own_json: Path) -> None:
    content = json.loads(own_json.read_text())
    content["images"][0]["height"] = "96"
    own_json.write_text(json.dumps(content))
    tiny_cfg.DATASETS.TRAIN = (register(own_json),)
    with pytest.raises(UserError, match=r"height and width of '0.jpg' are \['96', 72\]"):
        build_train_loader(tiny_cfg)


@pytest.mark.parametrize(("title", "shown"), [(None, "null"), (7, "7")])
def test_class_names_that_are_no_text(
    register: Register, tiny_cfg: CfgNode, own_json: Path, title: object, shown: str
) -> None:
    content = json.loads(own_json.read_text())
    content["categories"][1]["name"] = title
    own_json.write_text(json.dumps(content))
    tiny_cfg.DATASETS.TRAIN = (register(own_json),)
    with pytest.raises(UserError, match=rf"has the name {shown}; expected text in quotes"):
        build_train_loader(tiny_cfg)


def test_training_sets_with_different_classes(
    register: Register, tiny_cfg: CfgNode, own_json: Path
) -> None:
    content = json.loads(own_json.read_text())
    content["categories"][1]["name"] = "ring"
    own_json.write_text(json.dumps(content))
    tiny_cfg.DATASETS.TRAIN = ("tiny_train", register(own_json))
    message = r"classes other than those of 'tiny_train', first 'ring' where it has 'disc'; a det"
    with pytest.raises(UserError, match=message):
        build_train_loader(tiny_cfg)


def test_classes_other_than_the_name_stands_for(register: Register, own_json: Path) -> None:
    """As when one's own annotations are put where COCO's are expected."""
    name = register(own_json)
    MetadataCatalog.get(name).thing_classes = ["person", "bicycle", "car", "bus"]
    message = r"has 3 classes \(box, disc, bar\), but the name stands for 4 classes \(person, bic"
    with pytest.raises(UserError, match=message):
        load_records(name)


def test_encoded_masks_in_polygon_format(tiny_cfg: CfgNode) -> None:
    """The images that have them get bitmaps, the same as in the bitmask format."""
    record = load_records("tiny_train")[0]
    found = {}
    for form in ("polygon", "bitmask"):
        tiny_cfg.INPUT.MASK_FORMAT = form
        tiny_cfg.INPUT.RANDOM_FLIP = "none"
        made = CheckedDatasetMapper(tiny_cfg, True)(record)
        assert made is not None
        found[form] = made["instances"].gt_masks.tensor
    assert found["polygon"].equal(found["bitmask"])
    assert found["polygon"].any(2).any(1).all()


def test_crowds_are_no_objects_to_train_on(
    register: Callable[..., str],
    tiny_cfg: CfgNode,
    own_json: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = json.loads(own_json.read_text())
    content["annotations"][0]["iscrowd"] = 1
    objects = sum(not item.get("iscrowd", 0) for item in content["annotations"])
    assert objects < len(content["annotations"])
    own_json.write_text(json.dumps(content))
    tiny_cfg.DATASETS.TRAIN = (register(own_json),)
    caplog.set_level("INFO")
    load_training_records(tiny_cfg)
    assert any(text.endswith(f"images, {objects} objects") for text in caplog.messages)
