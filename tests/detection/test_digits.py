"""The embedded digits data set."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from sklearn.datasets import load_digits

from backbones.errors import UserError
from detection.data import canvas, digits, digits_writer, scenes
from detection.data.digits import DigitsSize, digits_root, prepare_digits, read_manifest
from detection.data.digits_writer import SPLITS, load_pools, scene_annotations, scene_rng
from detection.data.scenes import SceneConfig, render_scene

SMALL = DigitsSize(scenes_train=12, scenes_val=6, images_train=40, images_val=20)
TINY = DigitsSize(scenes_train=1, scenes_val=1, images_train=2, images_val=2)
HARD_EDGES = SceneConfig(edge=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_digits(tmp_path_factory.mktemp("datasets"), SMALL)


@pytest.fixture(scope="module")
def pools() -> dict[str, digits_writer.Pool]:
    return load_pools()


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _annotations(folder: Path, split: str) -> dict[str, Any]:
    document = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    assert isinstance(document, dict)
    return document


def _plans(pool: digits_writer.Pool, config: SceneConfig, count: int) -> list[scenes.ScenePlan]:
    return [
        scenes.plan_scene(pool.digits, pool.labels, scene_rng("train", i), config)
        for i in range(count)
    ]


def _changed(one: canvas.Canvas, other: canvas.Canvas) -> scenes.Mask:
    changed = np.abs(one - other).max(axis=2) > 0.01  # less is float32 rounding under opaque ink
    return np.asarray(changed, dtype=np.bool_)


# Making it


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    assert digits_root() == tmp_path / "sets" / "digits"
    assert digits_root(tmp_path) == tmp_path / "digits"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    assert digits_root() == tmp_path / "datasets" / "digits"


def test_same_bytes_twice(folder: Path, tmp_path: Path) -> None:
    assert _hashes(prepare_digits(tmp_path, SMALL)) == _hashes(folder)


def test_images_do_not_depend_on_how_many_there_are(folder: Path, tmp_path: Path) -> None:
    small, tiny = _hashes(folder), _hashes(prepare_digits(tmp_path, TINY))
    pictures = {name: value for name, value in tiny.items() if name.endswith(("jpg", "png"))}
    assert len(pictures) == 6
    assert pictures.items() <= small.items()


def test_layout_and_manifest(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest["settings"]["version"] == digits.VERSION
    assert manifest["digits"] == {"train": 1297, "val": 500}
    assert set(manifest["libraries"]) == {"scikit-learn", "numpy", "pillow"}
    for split, number in (("train", 40), ("val", 20)):
        below = folder / "classification" / split
        assert sorted(p.name for p in below.iterdir()) == [str(i) for i in range(10)]
        pictures = list(below.glob("*/*.png"))
        assert len(pictures) == number
        with Image.open(pictures[0]) as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
        assert sum(manifest["counts"]["classification"][split]["classes"].values()) == number
    table = digits.summary_table(manifest).splitlines()
    assert len(table) == 5
    assert table[1].split()[2] == "12"


def test_ready_data_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_build", None)
    assert prepare_digits(folder.parent, SMALL) == folder
    assert prepare_digits(folder.parent) == folder


@pytest.mark.parametrize("damage", ["version", "image", "annotations", "manifest", "config"])
def test_outdated_or_incomplete_data_is_made_anew(tmp_path: Path, damage: str) -> None:
    folder = prepare_digits(tmp_path, TINY)
    before = _hashes(folder)
    manifest = folder / "manifest.json"
    if damage == "version":
        content = json.loads(manifest.read_text())
        content["settings"]["version"] = 0
        manifest.write_text(json.dumps(content))
    elif damage == "image":
        (folder / "val" / "000000.jpg").unlink()
    elif damage == "annotations":
        (folder / "annotations" / "instances_val.json").unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        prepare_digits(tmp_path, TINY, scene=SceneConfig(noise=(0.0, 1.0)))
        assert _hashes(folder) != before
    prepare_digits(tmp_path, TINY)
    assert _hashes(folder) == before


def test_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(digits, "write_digit_images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_digits(tmp_path, TINY)
    assert [p.name for p in tmp_path.iterdir() if p.name != ".digits.lock"] == []
    folder = prepare_digits(tmp_path, TINY)
    before = _hashes(folder)
    monkeypatch.setattr(digits, "write_digit_images", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_digits(tmp_path, TINY, force=True)
    assert _hashes(folder) == before
    assert sorted(p.name for p in tmp_path.iterdir()) in (["digits"], [".digits.lock", "digits"])


def test_what_a_killed_build_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".digits.new" / "train").mkdir(parents=True)
    (tmp_path / ".digits.new" / "train" / "000000.jpg").write_bytes(b"half")
    prepare_digits(tmp_path, TINY)
    assert not (tmp_path / ".digits.new").exists()


def test_builds_at_once_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[Path] = []
    build = digits._build

    def counted(folder: Path, *args: Any) -> None:
        builds.append(folder)
        build(folder, *args)

    monkeypatch.setattr(digits, "_build", counted)
    threads = [threading.Thread(target=prepare_digits, args=(tmp_path, TINY)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
    assert digits._is_complete(
        tmp_path / "digits", TINY, digits._settings(SceneConfig(), scenes.DigitImageConfig())
    )


@pytest.mark.slow
def test_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from detection.data.digits import DigitsSize, prepare_digits; "
        "prepare_digits(sys.argv[1], DigitsSize(2, 2, 4, 4))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(digits.__file__).parents[2]
    runs = [subprocess.Popen(command, cwd=root) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert len(list((tmp_path / "digits" / "train").glob("*.jpg"))) == 2


def test_a_run_that_makes_the_data_set_draws_as_one_that_finds_it(tmp_path: Path) -> None:
    """In a process of its own: the first import of scikit-learn draws from Python's `random`."""
    code = (
        "import sys; "
        "from detection.data.digits import DigitsSize, prepare_digits; "
        "from detection.engine.random_state import capture_random_state; "
        "state = repr(capture_random_state()); "
        "prepare_digits(sys.argv[1], DigitsSize(2, 2, 4, 4)); "
        "assert 'sklearn' in sys.modules; "
        "assert repr(capture_random_state()) == state"
    )
    root = Path(digits.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, timeout=120, check=True)


def test_other_peoples_files_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        prepare_digits(tmp_path, TINY)
    assert (tmp_path / "digits" / "thesis.tex").read_text() == "precious"


def test_a_file_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "datasets").write_text("")
    with pytest.raises(UserError, match="DETECTRON2_DATASETS"):
        prepare_digits(tmp_path / "datasets", TINY)


# What is in it


def test_no_validation_digit_is_seen_in_training(folder: Path) -> None:
    used: dict[str, set[int]] = {}
    for split in SPLITS:
        scene = {a["digit_index"] for a in _annotations(folder, split)["annotations"]}
        below = folder / "classification" / split
        single = {int(p.stem.split("_")[0]) for p in below.glob("*/*.png")}
        assert scene and single
        used[split] = scene | single
    assert not used["train"] & used["val"]


def test_split_is_stratified_and_complete(pools: dict[str, digits_writer.Pool]) -> None:
    train, val = pools["train"], pools["val"]
    assert sorted([*train.indices, *val.indices]) == list(range(1797))
    everything = np.bincount(load_digits().target)
    shares = np.bincount(val.labels) / everything
    assert np.all(np.abs(shares - 500 / 1797) < 0.01)


def test_labels_are_the_source_digits_labels(folder: Path) -> None:
    target = load_digits().target
    for split in SPLITS:
        for annotation in _annotations(folder, split)["annotations"]:
            assert annotation["category_id"] == target[annotation["digit_index"]] + 1
        for path in (folder / "classification" / split).glob("*/*.png"):
            assert int(path.parent.name) == target[int(path.stem.split("_")[0])]


@pytest.mark.parametrize("split", SPLITS)
def test_pycocotools_reads_it(folder: Path, split: str) -> None:
    coco = COCO(str(folder / "annotations" / f"instances_{split}.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == [str(i) for i in range(10)]
    assert sorted(coco.getCatIds()) == list(range(1, 11))
    for info in coco.loadImgs(coco.getImgIds()):
        with Image.open(folder / split / info["file_name"]) as picture:
            assert picture.size == (info["width"], info["height"])
        covered = np.zeros((info["height"], info["width"]), dtype=int)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=info["id"])):
            mask = coco.annToMask(annotation)
            covered += mask
            rle = annotation["segmentation"]
            assert isinstance(rle["counts"], str)
            assert annotation["area"] == mask.sum() == coco_mask.area(rle)
            assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
            assert annotation["iscrowd"] == 0
        assert covered.max() == 1


def test_annotations_hold_the_rendered_masks(pools: dict[str, digits_writer.Pool]) -> None:
    pool = pools["val"]
    scene = render_scene(pool.digits, pool.labels, scene_rng("val", 0), SceneConfig())
    annotations = scene_annotations(scene, pool.indices)
    assert len(annotations) == len(scene.masks) >= 1
    for annotation, mask in zip(annotations, scene.masks, strict=True):
        rle = annotation["segmentation"] | {"counts": annotation["segmentation"]["counts"].encode()}
        assert np.array_equal(coco_mask.decode(rle).astype(bool), mask)


def test_masks_are_the_pixels_that_a_digit_changes(pools: dict[str, digits_writer.Pool]) -> None:
    for plan in _plans(pools["train"], HARD_EDGES, 8):
        whole = scenes.paint_scene(plan)
        for number, mask in enumerate(scenes.visible_masks(plan)):
            # Painted in another colour, a digit with hard edges changes all it shows, and no more.
            colour = plan.layers[number].colour + 1000
            layers = list(plan.layers)
            layers[number] = replace(layers[number], colour=colour)
            other = scenes.paint_scene(replace(plan, layers=tuple(layers)))
            assert np.array_equal(_changed(whole, other), mask)
            # Left out, it changes nothing else either.
            missing = scenes.paint_scene(scenes.without_layer(plan, number))
            assert not _changed(whole, missing)[~mask].any()


def test_soft_edges_cross_one_half_at_the_mask(pools: dict[str, digits_writer.Pool]) -> None:
    for plan in _plans(pools["train"], SceneConfig(), 8):
        for number, mask in enumerate(scenes.visible_masks(plan)):
            shares = []
            for value in (0.0, 255.0):
                colour = np.full(3, value, dtype=np.float32)
                layers = list(plan.layers)
                layers[number] = replace(layers[number], colour=colour)
                shares.append(scenes.paint_scene(replace(plan, layers=tuple(layers))))
            share = (shares[1] - shares[0])[..., 0] / 255  # of the pixel's light, this digit's
            assert share[mask].min() > 0.2
            assert share[~mask].max() < 0.5 + 1e-4


def test_scene_rules_hold(pools: dict[str, digits_writer.Pool]) -> None:
    config = SceneConfig()
    for plan in _plans(pools["train"], config, 20):
        assert 1 <= len(plan.layers) <= config.count[1]
        assert plan.background.shape[:2] in config.sizes
        for layer, mask in zip(plan.layers, scenes.visible_masks(plan), strict=True):
            assert mask.sum() >= 0.4 * (layer.alpha >= 0.5).sum()


def test_scene_config_is_obeyed(pools: dict[str, digits_writer.Pool]) -> None:
    pool = pools["train"]
    easy = replace(SceneConfig(), sizes=((200, 240),), count=(3, 3), shares=(1.0, 0.0, 0.0))
    scene = render_scene(pool.digits, pool.labels, np.random.default_rng(0), easy)
    assert scene.image.shape == (200, 240, 3) and scene.image.dtype == np.uint8
    assert len(scene.masks) == len(scene.labels) == len(scene.digit_indices) == 3
    assert all(mask.sum() < 32**2 for mask in scene.masks)
    assert [int(pool.labels[i]) for i in scene.digit_indices] == scene.labels


def test_drawn_digits_look_like_their_source(pools: dict[str, digits_writer.Pool]) -> None:
    """Shrunk back to 8x8, a drawing correlates with its source, more than with its mirror image."""
    pool = pools["train"]
    rng = np.random.default_rng(0)
    same, mirrored, upside_down = [], [], []
    for digit in pool.digits[:40]:
        alpha = canvas.digit_alpha(rng, digit, 200.0, 10.0, (0.45, 0.45), 2.0)
        assert alpha.min() >= 0 and alpha.max() == 1
        source = canvas.crop(np.where(digit > 0.45, digit, 0))
        size = (source.shape[1], source.shape[0])
        shrunk = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BOX))
        flat = shrunk.ravel()
        same.append(np.corrcoef(flat, source.ravel())[0, 1])
        mirrored.append(np.corrcoef(flat, source[:, ::-1].ravel())[0, 1])
        upside_down.append(np.corrcoef(flat, source[::-1].ravel())[0, 1])
    assert np.mean(same) > 0.7
    assert np.mean(same) > np.mean(mirrored) + 0.2
    assert np.mean(same) > np.mean(upside_down) + 0.2


@pytest.mark.parametrize("split", SPLITS)
def test_every_scale_has_its_share(pools: dict[str, digits_writer.Pool], split: str) -> None:
    pool = pools[split]
    areas: list[int] = []
    for number in range(60):
        plan = scenes.plan_scene(pool.digits, pool.labels, scene_rng(split, number), SceneConfig())
        areas += [int(mask.sum()) for mask in scenes.visible_masks(plan)]
    scales = [digits_writer.scale_of(area) for area in areas]
    assert min(scales.count(scale) for scale in digits_writer.SCALES) >= 0.15 * len(scales)


@pytest.mark.slow
def test_the_full_data_set(tmp_path: Path) -> None:
    folder = prepare_digits(tmp_path)
    manifest = read_manifest(folder)
    assert manifest is not None
    for split, number in (("train", 1200), ("val", 200)):
        areas = [a["area"] for a in _annotations(folder, split)["annotations"]]
        small = sum(area < 32**2 for area in areas) / len(areas)
        large = sum(area > 96**2 for area in areas) / len(areas)
        assert min(small, large, 1 - small - large) >= 0.15
        counts = manifest["counts"]["scenes"][split]
        assert counts["images"] == number
        assert sum(counts["instances"].values()) == len(areas)
    assert sum(1 for _ in folder.glob("classification/train/*/*.png")) == 5188
    test_no_validation_digit_is_seen_in_training(folder)


# Detectron2


def test_registration(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("detectron2")
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from detection.data.builtin import register_digits

    before = "digits_val" in DatasetCatalog.list()
    try:
        register_digits(tmp_path / "unused")  # nothing is made until the data is asked for
        assert MetadataCatalog.get("digits_train").thing_classes == [str(i) for i in range(10)]
        assert not (tmp_path / "unused").exists()
        monkeypatch.setenv("DETECTRON2_DATASETS", str(folder.parent))
        register_digits()
        register_digits()
        metadata = MetadataCatalog.get("digits_val")
        assert metadata.thing_classes == [str(i) for i in range(10)]
        assert metadata.thing_dataset_id_to_contiguous_id == {i + 1: i for i in range(10)}
        assert metadata.evaluator_type == "coco"
        assert Path(metadata.json_file).is_file()
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "later"))  # read when registering
        loaded = DatasetCatalog.get("digits_val")
        expected = _annotations(folder, "val")
        assert len(loaded) == len(expected["images"])
        assert sum(len(d["annotations"]) for d in loaded) == len(expected["annotations"])
        first = loaded[0]
        assert Path(first["file_name"]) == Path(metadata.image_root) / "000000.jpg"
        annotation = next(a for a in expected["annotations"] if a["image_id"] == first["image_id"])
        assert first["annotations"][0]["category_id"] == annotation["category_id"] - 1
        assert first["annotations"][0]["segmentation"] == annotation["segmentation"]
    finally:
        monkeypatch.undo()
        if before:
            register_digits()
        else:
            for name in ("digits_train", "digits_val"):
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
