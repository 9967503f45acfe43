"""Classification images: ImageNet's folder layout, timm's augmentation, a resumable order."""

from __future__ import annotations

import difflib
import os
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from backbones.architecture import IMAGENET, InputSpec
from backbones.errors import UserError, first_of
from backbones.factory import load_architecture
from detection.data.digits import digits_root, prepare_digits, read_manifest
from detection.engine.accumulation import images_per_pass
from detection.engine.preemption import loader_start
from detection.engine.sampler import Augmented, ResumableSampler
from detection.engine.unreadable import UnreadableImages
from search.classification.folder import ClassificationFolder
from search.classification.readable import Readable, collated
from search.classification.shard_files import find_shards, has_shards, is_pattern
from search.classification.shards import ClassificationShards

SplitImages: TypeAlias = "ClassificationFolder | ClassificationShards"
ImageSet: TypeAlias = "SplitImages | Subset[Any]"
"""Images as bytes, with the index of their class."""

NAMED = ("imagenet", "digits")


def classification_root(dataset: str) -> Path:
    """Folder of a data set: of a named one below ``$DETECTRON2_DATASETS``, or the path given.

    A pattern of tar files is relative to the present folder.

    Raises:
        UserError: if it does not exist.
    """
    if not dataset:
        raise UserError(
            "CLASSIFICATION.DATASET is empty; name the folder of your images, with train/<class>/* "
            "and val/<class>/* in it: CLASSIFICATION.DATASET photos"
        )
    if dataset == "digits":
        return prepare_digits() / "classification"
    if is_pattern(dataset):
        return Path()
    base = Path(os.environ.get("DETECTRON2_DATASETS") or "datasets").expanduser()
    root = base / dataset if dataset in NAMED else Path(dataset).expanduser()
    if not root.is_dir():
        near = difflib.get_close_matches(dataset, NAMED, 1)
        hint = f"did you mean '{near[0]}'? " if near and near[0] != dataset else ""
        raise UserError(
            f"CLASSIFICATION.DATASET '{dataset}': no folder '{root}'; {hint}expected "
            "train/<class>/* and val/<class>/* there, or tar files ($DETECTRON2_DATASETS sets "
            "where named data sets are)"
        )
    return root


def build_transform(cfg: CfgNode, is_training: bool, images: InputSpec = IMAGENET) -> Any:
    """Timm's standard augmentation, from PIL image to (3, H, W) uint8 tensor.

    Args:
        cfg: size, crops and augmentation.
        is_training: augment.
        images: that the network expects: their mean fills what a policy leaves empty.
    """
    node = cfg.CLASSIFICATION
    return create_transform(
        node.INPUT_SIZE,
        is_training=is_training,
        scale=tuple(node.AUGMENTATION.CROP_SCALE),
        ratio=tuple(node.AUGMENTATION.CROP_RATIO),
        hflip=node.AUGMENTATION.FLIP,
        # None is no transform; 0 would be one that does nothing, for every image
        color_jitter=node.AUGMENTATION.COLOR_JITTER or None,  # type: ignore[arg-type]
        auto_augment=node.AUGMENTATION.AUTO_AUGMENT or None,
        interpolation="bicubic",
        crop_pct=node.CROP_PCT,
        mean=images.mean,
        normalize=False,
    )


def build_dataset(
    cfg: CfgNode, split: str, augment: bool, images: InputSpec = IMAGENET
) -> SplitImages:
    """One split of ``CLASSIFICATION.DATASET``, checked; as a network for ``images`` expects it."""
    return open_images(
        cfg.CLASSIFICATION.DATASET,
        split,
        transform=build_transform(cfg, augment, images),
        num_classes=cfg.CLASSIFICATION.NUM_CLASSES,
        classes_kept=cfg.SEARCH.PROXY_CLASSES,
        seed=max(cfg.SEED, 0),
    )


def open_images(dataset: str, split: str, **options: Any) -> SplitImages:
    """The images of a split, from folders or from tar files.

    Args:
        dataset: a name, a folder or a pattern of tar files.
        split: ``train`` or ``val``.
        **options: of both.

    Raises:
        UserError: if they are not there, or not as expected.
    """
    root = classification_root(dataset)
    if is_pattern(dataset) or has_shards(root):
        return ClassificationShards(find_shards(dataset, root)[split], **options)
    return ClassificationFolder(root, split, **options)


def known_classes(dataset: str, count: int) -> tuple[str, ...]:
    """Names of the classes that a classifier was trained on.

    Args:
        dataset: ``CLASSIFICATION.DATASET`` of its run; empty where that is not known.
        count: of the classifier's classes.

    Returns:
        Empty where the data are not at hand, or are others by now.
    """
    if not dataset or (dataset == "digits" and read_manifest(digits_root()) is None):
        return ()  # digits would be made first, for a minute
    try:
        names = tuple(map(str, open_images(dataset, "train").classes))
    except UserError:
        return ()
    return names if len(names) == count else ()


def check_same_classes(train: SplitImages, val: SplitImages) -> None:
    """Insists on the same class folders in both splits, since their order numbers the classes.

    Raises:
        UserError: naming the first folders that only one of them has.
    """
    if odd := sorted(set(train.classes) ^ set(val.classes)):
        raise UserError(
            f"'{train.root}' and '{val.root}' have different class folders: only one of them "
            f"has {first_of(odd)}; the folders number the classes, so both need the same ones"
        )


def count_classes(cfg: CfgNode) -> int:
    """Classes of the model: ``CLASSIFICATION.NUM_CLASSES``, or what the folders say where it is 0.

    A search on ``SEARCH.PROXY_CLASSES`` has that many.
    """
    return (
        cfg.SEARCH.PROXY_CLASSES
        or cfg.CLASSIFICATION.NUM_CLASSES
        or len(build_dataset(cfg, "train", False).classes)
    )


def resolve_class_count(cfg: CfgNode) -> tuple[CfgNode, list[str]]:
    """A classifier's configuration with the number of classes that its data have.

    Returns:
        The frozen configuration, and a line for the log where ``CLASSIFICATION.NUM_CLASSES`` was 0.

    Raises:
        UserError: if the data are not there, or are named by a detector's keys.
    """
    if cfg.DATA.ROOT:
        raise UserError(
            f"DATA.ROOT is '{cfg.DATA.ROOT}', but this is a classifier, whose images are named by "
            f"CLASSIFICATION.DATASET {cfg.DATA.ROOT}, a folder with train/<class>/* and "
            "val/<class>/*"
        )
    if cfg.SOLVER.EPOCHS:
        raise UserError(
            f"SOLVER.EPOCHS is {cfg.SOLVER.EPOCHS:g}, but this is a classifier: set "
            f"CLASSIFICATION.EPOCHS {cfg.SOLVER.EPOCHS:g}"
        )
    if cfg.SOLVER.BACKBONE_LR_MULT != 1:
        raise UserError(
            f"SOLVER.BACKBONE_LR_MULT is {cfg.SOLVER.BACKBONE_LR_MULT:g}, but this is a "
            "classifier, which learns at one rate: leave it at 1.0"
        )
    if cfg.CLASSIFICATION.NUM_CLASSES:
        return cfg, []
    data = open_images(cfg.CLASSIFICATION.DATASET, "train")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.CLASSIFICATION.NUM_CLASSES = len(data.classes)
    cfg.freeze()
    found = f"{len(data.classes)}, the classes of '{data.root}': {first_of(data.classes)}"
    return cfg, [f"CLASSIFICATION.NUM_CLASSES is {found}"]


def resolve_classifier(cfg: CfgNode) -> tuple[CfgNode, list[str]]:
    """A classifier's configuration with the number of classes, and the size of its images.

    Returns:
        As :func:`resolve_class_count`.

    Raises:
        UserError: as that does, and if there is no such network.
    """
    cfg, notes = resolve_class_count(cfg)
    if cfg.CLASSIFICATION.INPUT_SIZE:
        return cfg, notes
    architecture = load_architecture(cfg.MODEL.SPNAS.ARCH)
    cfg, note = with_input_size(cfg, architecture.input, f"network '{architecture.name}'")
    return cfg, [*notes, note]


def with_input_size(cfg: CfgNode, images: InputSpec, what: str) -> tuple[CfgNode, str]:
    """The frozen configuration with the size of ``images``, and a line for the log."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.CLASSIFICATION.INPUT_SIZE = images.size
    cfg.freeze()
    return cfg, f"CLASSIFICATION.INPUT_SIZE is {images.size}, what {what} is made for"


def split_images(cfg: CfgNode, images: int) -> tuple[list[int], list[int]]:
    """Indices of the training images for weights, and of those held out to decide on.

    Raises:
        UserError: if one of the parts has less than a batch.
    """
    share, batch = cfg.SEARCH.HELD_OUT, cfg.SOLVER.IMS_PER_BATCH
    generator = torch.Generator().manual_seed(max(cfg.SEED, 0))
    order = torch.randperm(images, generator=generator).tolist()
    split = round(images * (1 - share))
    if not batch <= split <= images - batch:
        raise UserError(
            f"SEARCH.HELD_OUT is {share:g}, which splits the {images} training images into "
            f"{split} and {images - split}; expected at least SOLVER.IMS_PER_BATCH, {batch}, in "
            "each"
        )
    return order[:split], order[split:]


def build_train_loader(
    cfg: CfgNode, dataset: ImageSet, start_iter: int = 0, order: int = 0
) -> DataLoader[Any]:
    """Endless shuffled batches of this process, one for every forward pass.

    Args:
        cfg: batch size, loader processes and seed.
        dataset: the images.
        start_iter: iteration of the first batch.
        order: 0 is that of the training; others are other ones.
    """
    batch = images_per_pass(cfg)
    sampler = ResumableSampler(
        len(dataset),
        shuffle=True,
        seed=max(cfg.SEED, 0) + order,
        start=start_iter * cfg.SOLVER.IMS_PER_BATCH,
    )
    return DataLoader(
        Augmented(dataset, sampler.seed, UnreadableImages.of(cfg)),
        batch_size=batch,
        sampler=sampler,
        collate_fn=_collate(cfg),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=torch.cuda.is_available(),
        drop_last=True,
        worker_init_fn=loader_start(),
    )


def build_val_loader(cfg: CfgNode, dataset: ImageSet) -> DataLoader[Any]:
    """The validation images of this process, once, in order."""
    indices = range(comm.get_rank(), len(dataset), comm.get_world_size())
    return DataLoader(
        Readable(Subset(dataset, indices), UnreadableImages.of(cfg)),
        batch_size=images_per_pass(cfg),
        collate_fn=_collate(cfg),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=loader_start(),
    )


def memory_layout(cfg: CfgNode) -> torch.memory_format:
    """What ``MODEL.SPNAS.CHANNELS_LAST`` says: of the images, and so of all maps."""
    return torch.channels_last if cfg.MODEL.SPNAS.CHANNELS_LAST else torch.contiguous_format


def _collate(cfg: CfgNode) -> partial[tuple[Tensor, Tensor]]:
    return partial(collated, cfg.CLASSIFICATION.INPUT_SIZE, memory_layout(cfg))
