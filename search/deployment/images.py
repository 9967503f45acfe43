"""Real images to compare, calibrate and judge an exported network on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets.folder import is_image_file

from backbones.deployment.contract import Preprocessing
from backbones.deployment.photos import normalised, pixels
from backbones.errors import UserError
from detection.data.hidden import is_hidden
from detection.data.image_files import load_image
from search.classification.data import SplitImages, build_dataset
from search.deployment.sources import Source

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]

MOST_PHOTOS = 100
"""On which a file is compared with PyTorch, and int8 calibrated."""

_FEWEST_PHOTOS = 10
_PIXELS = 10_000_000
"""In all of them together, where they are large."""


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` indices of ``count`` things, evenly spread over them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def photos_in(folder: str, key: str, most: int = MOST_PHOTOS) -> list[Path]:
    """Image files below a folder, hidden ones left out, evenly spread over them.

    Args:
        folder: to look in.
        key: that has it, for messages.
        most: to take.

    Raises:
        UserError: if there is no such folder, or no image in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"{key} is '{folder}', which is no folder; name one with images")
    found = sorted(
        path
        for path in root.rglob("*")
        if is_image_file(path.name) and path.is_file() and not is_hidden(path.name)
    )
    if not found:
        raise UserError(f"{key} is '{folder}', which has no images; name a folder with some")
    return [found[index] for index in spread(len(found), most)]


def photos_for(size: tuple[int, int]) -> int:
    """How many photos of a size are taken, so that all can be held at once."""
    return max(_FEWEST_PHOTOS, min(MOST_PHOTOS, _PIXELS // (size[0] * size[1])))


def inputs_of(
    photos: Iterable[Image.Image], preprocessing: Preprocessing, size: tuple[int, int]
) -> list[Array]:
    """Network inputs (1, 3, H, W) of photos, all of one size."""
    return [normalised(pixels(photo, preprocessing, size), preprocessing) for photo in photos]


def _of_folder(
    folder: str, key: str, preprocessing: Preprocessing, size: tuple[int, int]
) -> list[Array]:
    photos = (load_image(str(path)) for path in photos_in(folder, key, photos_for(size)))
    return inputs_of(photos, preprocessing, size)


def sample_photos() -> list[Image.Image]:
    """The two photos that come with scikit-learn."""
    images = import_module("sklearn.datasets").load_sample_images().images
    return [Image.fromarray(image) for image in images]


def images_of_run(source: Source, split: str, size: tuple[int, int]) -> SplitImages | None:
    """A split of the classification images of a run; None where it has none that can be read."""
    if source.cfg is None or source.is_detector:
        return None
    cfg = source.cfg.clone()
    cfg.defrost()
    cfg.CLASSIFICATION.INPUT_SIZE = max(size)
    cfg.CLASSIFICATION.NUM_CLASSES = 0
    try:
        return build_dataset(cfg, split, augment=False, images=source.architecture.input)
    except UserError as error:
        logger.warning("The run's %s images cannot be read: %s", split, error)
        return None


def inputs_of_run(
    dataset: SplitImages, preprocessing: Preprocessing, most: int = MOST_PHOTOS
) -> Iterator[tuple[Array, int]]:
    """Network inputs (1, 3, S, S) with the index of their class, evenly spread over the images."""
    for index in spread(len(dataset), most):
        image, target = dataset[index]
        yield normalised(image.numpy()[None].astype(np.float32), preprocessing), int(target)


def images_to_compare(
    source: Source, preprocessing: Preprocessing, size: tuple[int, int], folder: str = ""
) -> tuple[list[Array], str]:
    """Network inputs of real images, and where they are from.

    They are those of ``folder``; without it the run's validation images; without those
    scikit-learn's photos.

    Raises:
        UserError: if a folder is named that has none.
    """
    if folder:
        return _of_folder(folder, "--images", preprocessing, size), f"'{folder}'"
    dataset = images_of_run(source, "val", size)
    if dataset is not None and size[0] == size[1]:
        inputs = [image for image, _ in inputs_of_run(dataset, preprocessing, photos_for(size))]
        return inputs, f"'{dataset.root}'"
    return inputs_of(sample_photos(), preprocessing, size), "scikit-learn's sample photos"


def images_to_calibrate(
    source: Source, preprocessing: Preprocessing, size: tuple[int, int], folder: str = ""
) -> tuple[list[Array], str]:
    """As :func:`images_to_compare`, of ``--calibration`` or the run's training images.

    Raises:
        UserError: if there are none.
    """
    if folder:
        return _of_folder(folder, "--calibration", preprocessing, size), f"'{folder}'"
    dataset = images_of_run(source, "train", size)
    if dataset is None or size[0] != size[1]:
        raise UserError(
            "--precision int8 needs images to calibrate on, and this network has no training "
            "images here; name a folder of some with --calibration"
        )
    inputs = [image for image, _ in inputs_of_run(dataset, preprocessing)]
    return inputs, f"'{dataset.root}'"


def top1(predict: Callable[[Array], Array], images: Sequence[tuple[Array, int]]) -> float:
    """Accuracy in percent.

    Args:
        predict: (1, 3, H, W) → logits (1, K).
        images: with the index of their class.
    """
    right = sum(int(predict(image).argmax()) == target for image, target in images)
    return 100 * right / len(images)
