"""Images in tar files: as webdataset reads them, and as a folder of the same images trains."""

from __future__ import annotations

import io
import itertools
import pickle
import runpy
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image
from webdataset import WebDataset

from backbones import UserError
from detection.engine.config_file import merge_options
from search.classification import shard_index
from search.classification.classifier import ClassifierTrainer
from search.classification.data import (
    build_dataset,
    build_train_loader,
    build_val_loader,
    open_images,
    resolve_class_count,
)
from search.classification.shard_files import find_shards, has_shards
from search.classification.shards import ClassificationShards, write_shards
from search.studies.kills.differences import first_difference
from tests.search.conftest import make_cfg

ROOT = Path(__file__).resolve().parents[3]
SMALL = 8_000
"""Bytes of a tar file: some samples."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of indices."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


@pytest.fixture
def shards(images: Path, tmp_path: Path) -> Path:
    """The images of the folder, packed."""
    write_shards(images, tmp_path / "shards", SMALL)
    return tmp_path / "shards"


def config(dataset: Path | str, output: Path, *more: str) -> CfgNode:
    quick = ("DATALOADER.NUM_WORKERS", "0", "SOLVER.WARMUP_EPOCHS", "0.0")
    augment = ("CLASSIFICATION.AUGMENTATION.FLIP", "0.5")
    return make_cfg("classification/digits.yaml", Path(dataset), output, *quick, *augment, *more)


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (value, 90, 90)).save(file, "PNG")
    return file.getvalue()


def two_classes() -> dict[str, bytes]:
    return {"a.png": png(), "a.cls": b"0", "b.png": png(200), "b.cls": b"1\n"}


def test_the_samples_are_those_that_webdataset_reads(shards: Path) -> None:
    paths = find_shards(str(shards), shards)["train"]
    assert len(paths) > 2
    data = ClassificationShards(paths)
    assert data.classes == ["blue", "red"]
    reader = WebDataset([str(path) for path in paths], shardshuffle=False).decode("rgb8")
    theirs = sorted(
        (sample["cls"], sample["__key__"], sample["png"].tobytes()) for sample in reader
    )
    ours = [(label, np.asarray(image).tobytes()) for image, label in data]
    assert ours == [(label, pixels) for label, _, pixels in theirs]
    assert len(ours) == 16


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder(
    images: Path, shards: Path, tmp_path: Path, workers: int
) -> None:
    """Order, augmentation and labels, at any point of the stream."""
    found = []
    for place in (images, shards):
        cfg = config(place, tmp_path, "DATALOADER.NUM_WORKERS", str(workers))
        data = build_dataset(cfg, "train", augment=True)
        train = itertools.islice(build_train_loader(cfg, data, start_iter=3), 6)
        val = build_val_loader(cfg, build_dataset(cfg, "val", augment=False))
        found.append([*train, *val])
    assert len(found[0]) == 10
    for (ours, labels), (theirs, expected) in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(labels, expected)


def test_a_training_is_that_of_the_folder(images: Path, shards: Path, tmp_path: Path) -> None:
    weights = []
    for place in (images, shards):
        torch.manual_seed(0)
        cfg, _ = resolve_class_count(config(place, tmp_path / f"run_{place.name}"))
        trainer = ClassifierTrainer(cfg)
        trainer.train()
        weights.append(trainer.unwrapped.state_dict())
    assert first_difference(*weights) is None


def test_few_files_are_open_at_a_time(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of another process, whose place in a file a fork would share."""
    monkeypatch.setattr("search.classification.shards._MAX_OPEN", 2)
    data = ClassificationShards(find_shards(str(shards), shards)["train"])
    whole = [np.asarray(image).tobytes() for image, _ in data]
    handles = list(data._files.values())
    assert len(handles) == 2
    assert pickle.loads(pickle.dumps(data))._files == {}
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert [np.asarray(image).tobytes() for image, _ in data] == whole
    assert not set(handles) & set(data._files.values())
    assert all(file.closed for file in handles)


def test_every_process_evaluates_its_part(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(shards, tmp_path)
    data = build_dataset(cfg, "val", augment=False)
    whole = torch.cat([images for images, _ in build_val_loader(cfg, data)])
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        parts.append(torch.cat([images for images, _ in build_val_loader(cfg, data)]))
    assert [len(part) for part in parts] == [8, 8]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_the_index_is_made_once(shards: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = find_shards(str(shards), shards)["train"]
    first = shard_index.index_shards(paths)
    shard_index._loaded.cache_clear()
    scan = shard_index._scanned
    monkeypatch.delattr(shard_index, "_scanned")
    again = shard_index.index_shards(paths)
    assert all(map(np.array_equal, first, again))
    (file,) = cache.glob("*.npz")
    file.write_bytes(file.read_bytes()[:99])  # a disk was full
    shard_index._loaded.cache_clear()
    monkeypatch.setattr(shard_index, "_scanned", scan, raising=False)
    assert all(map(np.array_equal, first, shard_index.index_shards(paths)))
    paths[0].touch()
    assert shard_index.index_shards(paths) is not first
    assert len(list(cache.glob("*.npz"))) == 2


@pytest.mark.parametrize("in_the_way", ["cache", "cache/shards/index.npz"])
def test_without_a_place_for_the_index(
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    in_the_way: str,
) -> None:
    """A file where its folder should be, and a folder where it should be itself."""
    file = tmp_path / "cache" / "shards" / "index.npz"
    if in_the_way == "cache":
        (tmp_path / "cache").write_text("")
    else:
        file.mkdir(parents=True)
    paths = find_shards(str(shards), shards)["train"]
    index = shard_index._loaded(tuple(paths), file)
    assert len(index.labels) == 16
    (message,) = caplog.messages
    assert f"cannot be kept in '{file.parent}' (" in message
    assert "set FVCORE_CACHE" in message


def test_the_kept_classes_are_those_of_the_folder(tmp_path: Path) -> None:
    for split, name in itertools.product(("train", "val"), "abcdef"):
        (tmp_path / "folder" / split / name).mkdir(parents=True)
        (tmp_path / "folder" / split / name / "0.png").write_bytes(png(ord(name)))
    write_shards(tmp_path / "folder", tmp_path / "shards", SMALL)
    options = {"classes_kept": 3, "seed": 5}
    ours = open_images(str(tmp_path / "shards"), "train", **options)
    theirs = open_images(str(tmp_path / "folder"), "train", **options)
    assert ours.classes == theirs.classes
    assert [(np.asarray(x).tolist(), y) for x, y in ours] == [
        (np.asarray(x).tolist(), y) for x, y in theirs
    ]


@pytest.mark.parametrize(
    ("files", "dataset"),
    [
        (("train/a-0.tar", "train/a-1.tar", "val/a-0.tar"), "."),
        (("train/a-0.tar", "train/a-1.tar", "validation/a-0.tar"), "."),
        (("imagenet1k-train-0.tar", "imagenet1k-train-1.tar", "imagenet1k-validation-0.tar"), "."),
        (("a-train-0.tar", "a-train-1.tar", "a-train-2.tar", "a-val-0.tar"), "a-{train,val}-*.tar"),
        (("a-train-0.tar", "a-train-1.tar", "b-val-0.tar"), "a-train-{0..1}.tar::b-val-0.tar"),
    ],
)
def test_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], dataset: str
) -> None:
    for name in files:
        write_tar(tmp_path / name, two_classes())
    monkeypatch.chdir(tmp_path)
    count = sum("train" in name for name in files)
    train, val = (open_images(dataset, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (2 * count, 2)
    assert train.classes == ["0", "1"]


def test_a_folder_of_images_stays_one(images: Path, tmp_path: Path) -> None:
    """Whatever was downloaded lies beside it."""
    root = tmp_path / "images"
    for split in ("train", "val"):
        for name in ("blue", "red"):
            (root / split / name).mkdir(parents=True)
    write_tar(root / "ILSVRC2012_img_train.tar", {"n01440764.tar": b"x"})
    write_tar(root / "train" / "n01440764.tar", {"n01440764_1.JPEG": png()})
    assert not has_shards(root)


def test_a_folder_may_be_called_like_a_pattern(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "photos[1].tar")
    assert len(open_images(str(tmp_path / "photos[1].tar"), "train")) == 16


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.png": png(), "b.png": png(), "b.cls": b"0"}, "1 images without a class, .*'a.png'"),
        ({"a.png": png(), "a.cls": b"cat"}, "has b'cat' in 'a.cls'; expected the number"),
        ({"a.png": png(), "a.jpg": b"", "a.cls": b"0"}, "two images of one sample, 'a.png' and"),
        ({"n1.tar": b"x", "n2.tar": b"x"}, r"no images, but 2 × \.tar; expected samples"),
        ({"a.png": png(), "a.cls": b"1"}, r"a class without images \(1 of 2: 0\)"),
        ({"a.png": png(), "a.cls": b"0"}, "has one class, '0'; a classifier needs two"),
    ],
)
def test_what_is_wrong_in_a_tar_file(
    tmp_path: Path, files: dict[str, bytes], expected: str
) -> None:
    path = write_tar(tmp_path / "train-0.tar", files)
    with pytest.raises(UserError, match=expected):
        ClassificationShards([path])


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(5 * 512 + 200, "cut"), (4 * 512, "has no end: it is cut"), (100, "cut"), (0, "cut")],
)
def test_cut_files(tmp_path: Path, keep: int, expected: str) -> None:
    path = write_tar(tmp_path / "train-0.tar", two_classes())
    assert len(png()) < 512
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=expected):
        ClassificationShards([path])


def test_compressed_files(tmp_path: Path) -> None:
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(UserError, match="compressed or no tar file: copy it again, or unpack"):
        ClassificationShards([path])


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("b-train-{0..3}.tar", "no file 'b-train-0.tar'; check the path"),
        ("a-*.tar", r"no tar file of its val split \(found: a-train-0.tar\); expected 'val'"),
        ("a-train-0.tar::${X}.tar", "no pattern of tar files"),
    ],
)
def test_what_is_wrong_with_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, expected: str
) -> None:
    write_tar(tmp_path / "a-train-0.tar", two_classes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected):
        open_images(dataset, "train")


def test_numbers_and_names_of_classes(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a-train-0.tar", two_classes())
    with pytest.raises(UserError, match="NUM_CLASSES is 3, but .* has 2 classes; set it to 2"):
        ClassificationShards([path], num_classes=3)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(UserError, match="names 1 classes in 1 lines, but .* has class 1"):
        ClassificationShards([path])


def test_a_pattern_on_the_command_line(tmp_path: Path) -> None:
    for name in ("a-train-00.tar", "a-val-00.tar"):
        write_tar(tmp_path / name, two_classes())
    cfg = config(tmp_path, tmp_path)
    pattern = f"{tmp_path}/a-{{train,val}}-{{00..00}}.tar"
    merge_options(cfg, ["CLASSIFICATION.DATASET", pattern, "CLASSIFICATION.NUM_CLASSES", "0"])
    resolved, (note,) = resolve_class_count(cfg)
    assert resolved.CLASSIFICATION.NUM_CLASSES == 2
    assert f"the classes of '{tmp_path}/a-train-00.tar (1 tar files)': 0, 1" in note


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    files = {**two_classes(), "b.png": png()[:-30]}
    data = ClassificationShards([write_tar(tmp_path / "a-train-0.tar", files)])
    with pytest.raises(UserError, match=r"the image '.*/a-train-0.tar/b.png' \(.*truncated"):
        data.check()
    data.check(unreadable=1)


def test_the_tool_packs_as_documented(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "packed"
    monkeypatch.setattr(sys, "argv", ["pack_images.py", str(images), str(target)])
    runpy.run_path(str(ROOT / "tools" / "pack_images.py"), run_name="__main__")
    assert capsys.readouterr().out.endswith(
        f"2 tar files in {target}: CLASSIFICATION.DATASET {target}\n"
    )
    assert len(open_images(str(target), "val")) == 16
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--megabytes", "0"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / "pack_images.py"), run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: --megabytes is 0; expected more than 0\n"


def test_packing_twice_is_refused(images: Path, shards: Path) -> None:
    with pytest.raises(UserError, match="has tar files already"):
        write_shards(images, shards, SMALL)
