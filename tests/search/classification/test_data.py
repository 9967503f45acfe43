"""Folders of images in ImageNet's layout, and what can be wrong with them."""

from __future__ import annotations

import logging
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from PIL import Image, ImageOps
from timm.data import create_transform
from torchvision.datasets import ImageFolder

from backbones import UserError, load_architecture
from backbones.architecture import IMAGENET
from detection.engine.config_file import merge_options
from search.classification.classifier import ClassifierTrainer
from search.classification.data import (
    build_dataset,
    build_train_loader,
    build_val_loader,
    check_same_classes,
    count_classes,
    resolve_class_count,
    resolve_classifier,
)
from search.classification.folder import ClassificationFolder
from search.classification.pixels import normalised
from search.config import add_search_config
from tests.made_images import exif, photo, spoil_pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, three training and two validation images each."""
    for split, count in (("train", 3), ("val", 2)):
        for index, name in enumerate(("n01440764", "n01443537")):
            target = tmp_path / split / name
            target.mkdir(parents=True)
            for number in range(count):
                colour = (40 * number, 200 * index, 90)
                Image.new("RGB", (50 + number, 40), colour).save(target / f"{number}.JPEG")
    return tmp_path


@pytest.fixture
def cfg(folder: Path) -> CfgNode:
    cfg = get_cfg()
    add_search_config(cfg)
    cfg.CLASSIFICATION.DATASET = str(folder)
    cfg.CLASSIFICATION.NUM_CLASSES = 0
    cfg.CLASSIFICATION.INPUT_SIZE = 32
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 3
    return cfg


def test_batches_are_in_the_layout_of_the_network(cfg: CfgNode) -> None:
    """One batch by channel would have every map of an evaluation by channel: twice the time."""
    data = build_dataset(cfg, "train", augment=True)
    for build in (build_train_loader, build_val_loader):
        for cfg.MODEL.SPNAS.CHANNELS_LAST in (True, False):
            images, _ = next(iter(build(cfg, data)))
            last = images.is_contiguous(memory_format=torch.channels_last)
            assert (last, images.is_contiguous()) == (
                cfg.MODEL.SPNAS.CHANNELS_LAST,
                not cfg.MODEL.SPNAS.CHANNELS_LAST,
            )


def test_imagenet_layout(cfg: CfgNode) -> None:
    assert count_classes(cfg) == 2
    dataset = build_dataset(cfg, "val", augment=False)
    batches = list(build_val_loader(cfg, dataset))
    assert [tuple(images.shape) for images, _ in batches] == [(2, 3, 32, 32)] * 2
    assert torch.cat([targets for _, targets in batches]).tolist() == [0, 0, 1, 1]


def test_mean_and_deviation_are_the_networks(cfg: CfgNode) -> None:
    """One grey level of a photo, in the network's figures and in ImageNet's."""
    images = load_architecture("efficientnet_lite0").input
    pixels = build_dataset(cfg, "val", augment=False)[0][0]
    own, usual = normalised(pixels, images), normalised(pixels, IMAGENET)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET.mean, IMAGENET.std))
    torch.testing.assert_close(255 * (usual * std + mean), 128 * own + 127, rtol=0, atol=1e-3)


def test_bytes_become_what_torchvision_makes_of_an_image(cfg: CfgNode, folder: Path) -> None:
    """Bit for bit, in both memory layouts, and as timm's own transform ends."""
    Image.fromarray(photo(45, 40)).save(folder / "val" / "n01440764" / "0.JPEG")
    dataset = build_dataset(cfg, "val", augment=False)
    expected = create_transform(32, crop_pct=0.875, interpolation="bicubic")(
        dataset.loader(dataset.samples[0][0])
    )
    ((images, _), *_) = build_val_loader(cfg, dataset)
    assert images.dtype == torch.uint8
    for layout in (torch.contiguous_format, torch.channels_last):
        found = normalised(images.to(memory_format=layout), IMAGENET)
        assert found.is_contiguous(memory_format=layout)
        assert torch.equal(found[0], expected)


def test_classifier_and_its_data_agree(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.MODEL.SPNAS.ARCH, cfg.MODEL.DEVICE = "efficientnet_lite2", "cpu"
    cfg.CLASSIFICATION.INPUT_SIZE, cfg.OUTPUT_DIR = 0, str(tmp_path / "run")
    resolved, notes = resolve_classifier(cfg)
    assert resolved.CLASSIFICATION.INPUT_SIZE == 260
    assert notes[-1] == (
        "CLASSIFICATION.INPUT_SIZE is 260, what network 'efficientnet_lite2' is made for"
    )
    trainer = ClassifierTrainer(resolved)
    expected = build_dataset(resolved, "val", False, trainer.architecture.input)[0][0]
    assert expected.shape == (3, 260, 260)
    assert torch.equal(trainer.val_data[0][0], expected)


def test_named_data_set_is_below_detectron2_datasets(
    cfg: CfgNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "imagenet").mkdir()
    for split in ("train", "val"):
        shutil.move(folder / split, folder / "imagenet" / split)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
    cfg.CLASSIFICATION.DATASET = "imagenet"
    assert len(build_dataset(cfg, "train", augment=True)) == 6


def test_training_order_goes_on_where_it_stopped(cfg: CfgNode) -> None:
    dataset = build_dataset(cfg, "train", augment=False)
    whole = [targets.tolist() for _, targets in islice(build_train_loader(cfg, dataset), 9)]
    rest = [targets.tolist() for _, targets in islice(build_train_loader(cfg, dataset, 4), 5)]
    assert whole[4:] == rest
    assert sorted(target for batch in whole[:3] for target in batch) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_goes_on_where_it_stopped(cfg: CfgNode, folder: Path, workers: int) -> None:
    """With and without loader processes, whatever else was drawn."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    for path in folder.glob("train/*/*.JPEG"):
        Image.fromarray(pixels).save(path)
    dataset = build_dataset(cfg, "train", augment=True)
    whole = [images for images, _ in islice(build_train_loader(cfg, dataset), 6)]
    torch.manual_seed(8)
    cfg.DATALOADER.NUM_WORKERS = workers
    rest = [images for images, _ in islice(build_train_loader(cfg, dataset, 3), 3)]
    assert all(map(torch.equal, whole[3:], rest))
    assert not any(map(torch.equal, whole[:3], rest))


def test_broken_image(cfg: CfgNode, folder: Path) -> None:
    spoil_pixels(folder / "train" / "n01440764" / "1.JPEG")
    dataset = build_dataset(cfg, "train", augment=False)
    dataset.check()
    with pytest.raises(UserError, match=r"cannot read the image '.*1\.JPEG'.*replace or remove"):
        list(islice(build_train_loader(cfg, dataset), 3))


def test_a_truncated_image_is_found_at_once(cfg: CfgNode, folder: Path) -> None:
    path = folder / "train" / "n01440764" / "1.JPEG"
    path.write_bytes(path.read_bytes()[:-50])
    message = rf"'{folder}/train': 1 × image files that are truncated or broken, first '{path}'"
    with pytest.raises(UserError, match=message):
        build_dataset(cfg, "train", augment=False).check()


def test_what_systems_leave_in_folders(
    cfg: CfgNode, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No classes and no images; torchvision takes all of it that is called like an image."""
    train = folder / "train"
    image = train / "n01440764" / "0.JPEG"
    for place in (
        ".ipynb_checkpoints/0-checkpoint.jpg",
        "__MACOSX/n01440764/0.jpg",
        "@eaDir/0.jpg",
        "n01440764/.cache/0.jpg",
        "n01440764/._0.JPEG",
        "n01440764/__MACOSX/0.jpg",
    ):
        (train / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, train / place)
    for place in (".DS_Store", "n01440764/.DS_Store", "n01440764/Thumbs.db"):
        (train / place).write_bytes(b"left")
    assert len(ImageFolder(str(train)).classes) == 5
    dataset = build_dataset(cfg, "train", augment=False)
    assert dataset.classes == ["n01440764", "n01443537"]
    assert [Path(path).name for path, _ in dataset.samples] == ["0.JPEG", "1.JPEG", "2.JPEG"] * 2
    with caplog.at_level(logging.WARNING):
        dataset.check()
    (warning,) = caplog.messages
    assert f"3 × hidden folders, first '{train}/.ipynb_checkpoints'; they are left out" in warning


def test_odd_files_are_said(cfg: CfgNode, folder: Path) -> None:
    one = folder / "train" / "n01440764"
    (one / "list.txt").write_text("0.JPEG")
    (one / "near").mkdir()
    for place in (one / "near" / "3.PNG", folder / "train" / "cover.webp"):
        Image.new("RGB", (40, 40)).save(place)
    dataset = build_dataset(cfg, "train", augment=False)
    assert len(dataset) == 7
    assert [(f.severity, f.count, f.kind, f.example) for f in dataset.findings()] == [
        ("oddity", 1, "images beside the class folders", f"'{folder}/train/cover.webp'"),
        (
            "oddity",
            1,
            "files in class folders that are not images by their suffix",
            f"'{one}/list.txt'",
        ),
        ("oddity", 1, "images in folders below a class folder", f"'{one}/near/3.PNG'"),
    ]


def test_images_are_upright(cfg: CfgNode, folder: Path) -> None:
    path = folder / "train" / "n01440764" / "0.JPEG"
    Image.fromarray(photo(30, 40)).save(path, exif=exif(6))
    seen, _ = ClassificationFolder(folder, "train")[0]
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image)
    assert np.array_equal(np.asarray(seen), np.asarray(expected))
    assert seen.size == (30, 40)


def test_one_class(cfg: CfgNode, folder: Path) -> None:
    shutil.rmtree(folder / "train" / "n01443537")
    with pytest.raises(UserError, match="has one class folder, 'n01440764'; a classifier needs tw"):
        build_dataset(cfg, "train", augment=False)


def test_no_class(cfg: CfgNode, folder: Path) -> None:
    for name in ("n01440764", "n01443537"):
        shutil.move(folder / "train" / name, folder / "train" / f".{name}")
    with pytest.raises(UserError, match=r"'.*train' is empty: it has no class folders; expected"):
        build_dataset(cfg, "train", augment=False)


def test_wrong_class_count(cfg: CfgNode) -> None:
    cfg.CLASSIFICATION.NUM_CLASSES = 1000
    with pytest.raises(UserError, match="NUM_CLASSES is 1000, but .* has 2 class folders"):
        build_dataset(cfg, "train", augment=True)


def test_empty_class(cfg: CfgNode, folder: Path) -> None:
    shutil.rmtree(folder / "val" / "n01443537")
    (folder / "val" / "n01443537").mkdir()
    with pytest.raises(UserError, match="empty or has a class without images"):
        build_dataset(cfg, "val", augment=False)


def test_many_empty_classes_are_named_shortly(cfg: CfgNode, folder: Path) -> None:
    for index in range(500):
        (folder / "val" / f"n1{index:07d}").mkdir()
    with pytest.raises(UserError, match=r"\(500 of 502: n1000.* …\); expected") as caught:
        build_dataset(cfg, "val", augment=False)
    assert len(str(caught.value)) < 500


def test_other_classes_in_val(cfg: CfgNode, folder: Path) -> None:
    """As many folders, but not the same: the labels would not mean the same."""
    train = build_dataset(cfg, "train", augment=False)
    check_same_classes(train, build_dataset(cfg, "val", augment=False))
    shutil.move(folder / "val" / "n01440764", folder / "val" / "n99999999")
    with pytest.raises(UserError, match=r"only one of them has n01440764, n99999999; the folders"):
        check_same_classes(train, build_dataset(cfg, "val", augment=False))


def test_missing_split(cfg: CfgNode, folder: Path) -> None:
    shutil.rmtree(folder / "val")
    with pytest.raises(UserError, match="expected one folder per class"):
        build_dataset(cfg, "val", augment=False)


def test_missing_data_set(cfg: CfgNode) -> None:
    cfg.CLASSIFICATION.DATASET = "imagnet"
    with pytest.raises(UserError, match=r"no folder 'imagnet'; did you mean 'imagenet'\?"):
        build_dataset(cfg, "train", augment=True)


def test_the_number_of_classes_is_that_of_the_folders(cfg: CfgNode, folder: Path) -> None:
    """Whatever part of them a search uses; a number that is set is left to the check above."""
    cfg.SEARCH.PROXY_CLASSES = 2
    resolved, notes = resolve_class_count(cfg)
    assert notes == [
        f"CLASSIFICATION.NUM_CLASSES is 2, the classes of '{folder}/train': n01440764, n01443537"
    ]
    assert (resolved.CLASSIFICATION.NUM_CLASSES, cfg.CLASSIFICATION.NUM_CLASSES) == (2, 0)
    assert resolved.is_frozen()
    assert resolve_class_count(resolved) == (resolved, [])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("DATA.ROOT", "photos", r"this is a classifier, .* CLASSIFICATION.DATASET photos"),
        ("SOLVER.EPOCHS", "3", "this is a classifier: set CLASSIFICATION.EPOCHS 3"),
        ("SOLVER.BACKBONE_LR_MULT", "0.2", "this is a classifier, .* leave it at 1.0"),
        ("CLASSIFICATION.DATASET", "", "is empty; name the folder of your images"),
    ],
)
def test_keys_of_detectors_are_refused(cfg: CfgNode, key: str, value: str, expected: str) -> None:
    merge_options(cfg, [key, value])
    with pytest.raises(UserError, match=expected):
        resolve_class_count(cfg)
