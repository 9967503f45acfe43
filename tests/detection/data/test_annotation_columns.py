"""Masks, boxes and areas in columns, against pycocotools one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_util

from backbones import UserError
from detection.data.annotations.columns import BoxKind, Columns
from detection.data.annotations.file import read_annotations, reading_once
from detection.data.annotations.ids import id_order
from detection.data.annotations.masks import (
    Fault,
    MaskKind,
    decoded_runs,
    encoded,
    mask_columns,
    usable_mask,
)
from detection.data.annotations.values import is_crowd, number_or_nan
from tests.detection.annotation_files import content, rle


def random_codes(count: int, seed: int = 0) -> list[dict]:
    """Masks of many sizes, with few runs and with many, also without a pixel."""
    rng = np.random.default_rng(seed)
    codes = []
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        mask = rng.random((height, width)) < rng.choice([0, 0.01, 0.5, 0.99, 1])
        if rng.random() < 0.5:
            mask = np.kron(mask[:5, :5], np.ones((9, 7))) > 0
        code = mask_util.encode(np.asfortranarray(mask, np.uint8))
        codes.append({"size": list(mask.shape), "counts": code["counts"].decode()})
    return codes


def test_encoded_masks() -> None:
    codes = random_codes(300)
    found = mask_columns(codes)
    areas = np.array([mask_util.area(code) for code in codes])
    boxes = mask_util.toBbox(codes)
    empty = areas == 0
    assert 10 < empty.sum() < 200
    assert (found.kind == np.where(empty, MaskKind.EMPTY, MaskKind.RLE)).all()
    assert (found.area[~empty] == areas[~empty]).all()
    boxes[:, 2:] += boxes[:, :2]
    assert (found.extent[~empty] == boxes[~empty]).all()
    assert (found.size == [code["size"] for code in codes]).all()


def test_runs_are_those_that_were_encoded() -> None:
    for code in random_codes(100, seed=1):
        flat = mask_util.decode(code).ravel(order="F")
        changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
        assert decoded_runs(code["counts"]).tolist() == np.diff([0, *changes]).tolist()
        assert mask_columns([code]).kind[0] != MaskKind.BROKEN
        taller = {**code, "size": [code["size"][0] + 1, code["size"][1]]}
        assert mask_columns([taller]).kind[0] == MaskKind.BROKEN


@pytest.mark.parametrize("text", ["", "\x00", "zzzz", "é", "o" * 40, "P"])
def test_texts_that_are_no_runs(text: str) -> None:
    assert not len(decoded_runs(text))
    assert mask_columns([{"size": [3, 3], "counts": text}]).kind[0] == MaskKind.BROKEN


def test_counts_that_are_not_compressed() -> None:
    items = content()["annotations"]
    plain = mask_columns([rle(item, compressed=False) for item in items])
    packed = mask_columns([rle(item) for item in items])
    assert set(plain.kind) == {MaskKind.COUNTS}
    assert (plain.area == packed.area).all() and (plain.extent == packed.extent).all()
    for item in items:
        code = usable_mask(rle(item, compressed=False))
        assert (mask_util.decode(code) == mask_util.decode(rle(item))).all()


def test_polygons() -> None:
    """Areas are those that pycocotools counts in a finer image; extents are exact."""
    rng = np.random.default_rng(2)
    masks = []
    for _ in range(60):
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 30))))
        radius = rng.uniform(3, 30)
        points = rng.uniform(30, 60, 2) + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        masks.append([points.ravel().tolist()])
    found = mask_columns(masks)
    assert set(found.kind) == {MaskKind.POLYGONS}
    for row, mask in enumerate(masks):
        finer = [[16 * value for value in mask[0]]]
        area = mask_util.area(encoded(finer, 16 * 100, 16 * 100)) / 256
        assert found.area[row] == pytest.approx(area, rel=0.05, abs=2)
        points = np.reshape(mask[0], (-1, 2))
        assert found.extent[row].tolist() == [*points.min(0), *points.max(0)]


SQUARE = [0, 0, 10, 0, 10, 10, 0, 10]


@pytest.mark.parametrize(
    ("mask", "kind", "fault", "kept"),
    [
        ([SQUARE], MaskKind.POLYGONS, 0, [SQUARE]),
        (SQUARE, MaskKind.POLYGONS, 0, [SQUARE]),
        ([SQUARE, [20, 20, 25, 25]], MaskKind.SOME_POLYGONS, Fault.SHORT, [SQUARE]),
        ([[1, 2, 3], SQUARE], MaskKind.SOME_POLYGONS, Fault.ODD, [SQUARE]),
        ([[0, 0, 5, 5, 9, 9], SQUARE], MaskKind.SOME_POLYGONS, Fault.FLAT, [SQUARE]),
        ([[4, 4, 4, 4, 4, 4]], MaskKind.NO_POLYGON, Fault.FLAT, None),
        ([[]], MaskKind.NO_POLYGON, Fault.SHORT, None),
        ([[0, 0, 9, 9, 9, 0, 0, 9]], MaskKind.POLYGONS, 0, [[0, 0, 9, 9, 9, 0, 0, 9]]),
        ([], MaskKind.NONE, 0, None),
        (None, MaskKind.NONE, 0, None),
        ([[None] * 6], MaskKind.MALFORMED, 0, None),
        ([["1"] * 6], MaskKind.MALFORMED, 0, None),
        ([[float("nan")] * 6], MaskKind.MALFORMED, 0, None),
        ({"size": [3], "counts": [9]}, MaskKind.MALFORMED, 0, None),
    ],
)
def test_one_mask(mask: object, kind: MaskKind, fault: int, kept: object) -> None:
    found = mask_columns([None, mask, [SQUARE]])
    assert (found.kind[1], found.fault[1]) == (kind, fault)
    assert found.usable.tolist() == [False, kept is not None, True]
    assert usable_mask(mask) == kept


def test_many_masks_are_what_each_is() -> None:
    """Whole chunks are looked at together; one that is no mask spoils no other."""
    masks = [[SQUARE], None, *random_codes(9), [["a"] * 6], [SQUARE, [1, 2]], "x"] * 3000
    together, apart = mask_columns(masks), [mask_columns([mask]) for mask in masks[:14]]
    assert together.kind.tolist() == [int(one.kind[0]) for one in apart] * 3000
    areas = np.concatenate([one.area for one in apart] * 3000)
    np.testing.assert_array_equal(together.area, areas)


def test_columns() -> None:
    data = content(images=2)
    items = data["annotations"]
    items[0]["bbox"] = [1, 2, 3, 4, 45]
    items[1]["bbox"] = None
    items[2]["bbox"] = [1, True, 3, 4]
    items[3] |= {"iscrowd": 1, "image_id": 7}
    del items[4]["area"]
    found = Columns.of(data["images"], data["categories"], items)
    kinds = [BoxKind.ROTATED, BoxKind.MISSING, BoxKind.MALFORMED, *[BoxKind.FOUR] * 3]
    assert found.box_kind.tolist() == kinds
    assert found.image.tolist() == [0, 0, 0, -1, 1, 1]
    assert found.crowd.tolist() == [False] * 3 + [True, False, False]
    assert np.isnan(found.area).tolist() == [False] * 4 + [True, False]
    # its mask is its box
    assert found.scoring_areas[4] == items[4]["bbox"][2] * items[4]["bbox"][3]


def test_values() -> None:
    assert [is_crowd({"iscrowd": v}) for v in (0, 1, None, "0", "1", False, 1.0)] == [
        *(0, 1, 0, 0, 1, 0, 1)
    ]
    assert is_crowd({}) == 0
    assert np.isnan([number_or_nan(v) for v in (None, "4", True, 10**400, float("inf"))]).all()
    ids = ["b", 3, "10", 2**70, "9", -1.5, "a"]
    assert sorted(ids, key=id_order) == [-1.5, 3, "9", "10", 2**70, "a", "b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_reading(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    data = content()
    data["categories"][0]["name"] = "Ämeise"
    path.write_text(json.dumps(data, ensure_ascii=False), encoding=encoding)
    with reading_once():
        found = read_annotations(path)
        assert read_annotations(path) is found
        assert found.categories[0]["name"] == "Ämeise"
        path.write_text(json.dumps({**data, "annotations": []}))
        assert len(read_annotations(path).annotations) == 0
    assert read_annotations(path) is not read_annotations(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.pop("images"), "it has no list of images"),
        (lambda d: d["annotations"][3].pop("image_id"), r"annotations\[3\] has no 'image_id'"),
        (lambda d: d["images"].append(4), r"images\[8\] is no object"),
        (lambda d: d["images"][0].update(file_name=3), r"the file_name of images\[0\] is no text"),
        (lambda d: d.update(categories={}), "it has no list of categories"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, change: object, reason: str) -> None:
    data = content()
    change(data)  # type: ignore[operator]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=rf"'{path}' is not valid COCO JSON \({reason}\); mend"):
        read_annotations(path)


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"info": "Müller"}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(UserError, match="is not valid COCO JSON .UnicodeDecodeError"):
        read_annotations(path)


def test_images_that_lvis_names_by_their_address(tmp_path: Path) -> None:
    data = content()
    for image in data["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}"
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(data))
    names = [image["file_name"] for image in read_annotations(path).images]
    assert names == [f"train2017/{image['id']}.jpg" for image in data["images"]]
