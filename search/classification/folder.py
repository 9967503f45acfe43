"""Folders of images in ImageNet's layout, without what systems and editors leave in them."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file

from backbones.errors import UserError, first_of
from detection.data.findings import Finding
from detection.data.hidden import is_hidden
from detection.data.image_checks import check_before_run, check_image_files
from detection.data.image_files import load_image


class ClassificationFolder(ImageFolder):
    """``root/split/<class>/*``, read as all stages read images.

    Hidden files and folders are neither images nor classes; images in folders below a class
    belong to the class.

    Args:
        root: the data set.
        split: ``train`` or ``val``.
        transform: from PIL image to tensor.
        num_classes: expected number of class folders; 0 accepts any.
        classes_kept: classes to draw at random, the same for all splits; 0 keeps all.
        seed: of that draw.

    Raises:
        UserError: if the folder is missing or empty, has only one class or one without images,
            or has another number of classes, or fewer than are to be kept.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        transform: Any = None,
        num_classes: int = 0,
        classes_kept: int = 0,
        seed: int = 0,
    ) -> None:
        folder = root / split
        self.num_classes = num_classes
        self.classes_kept = classes_kept
        self.seed = seed
        self._other_files: list[str] = []
        if not folder.is_dir():
            raise UserError(f"no folder '{folder}'; expected one folder per class in it")
        super().__init__(
            str(folder),
            transform=transform,
            loader=load_image,
            is_valid_file=self._is_image,
            allow_empty=True,
        )
        self._check_no_class_is_empty()

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The class folders that are used, and their indices."""
        folders = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        classes = [name for name in folders if not is_hidden(name)]
        if not classes:
            raise UserError(
                f"the data set '{directory}' is empty: it has no class folders; expected images "
                "in one folder per class"
            )
        if self.num_classes and len(classes) != self.num_classes:
            raise UserError(
                f"CLASSIFICATION.NUM_CLASSES is {self.num_classes}, but '{directory}' has "
                f"{len(classes)} class folders; set it to {len(classes)}, or to 0 to take the "
                "number of folders"
            )
        if len(classes) == 1:
            raise UserError(
                f"'{directory}' has one class folder, '{classes[0]}'; a classifier needs two or "
                "more: see that CLASSIFICATION.DATASET names the folder that holds train and val"
            )
        if self.classes_kept:
            if not 2 <= self.classes_kept <= len(classes):
                raise UserError(
                    f"SEARCH.PROXY_CLASSES is {self.classes_kept}; expected 2 to {len(classes)}, "
                    f"the classes of '{directory}', or 0 for all"
                )
            classes = sorted(random.Random(self.seed).sample(classes, self.classes_kept))
        return classes, {name: index for index, name in enumerate(classes)}

    def findings(self) -> list[Finding]:
        """What is odd in the folders, and, from their headers, what is wrong with the images."""
        paths = [path for path, _ in self.samples]
        return [*self.oddities(), *check_image_files(paths)]

    def oddities(self) -> list[Finding]:
        """What is in the folders that is no class and no image, or is an image further below."""
        hidden = [
            os.path.join(self.root, entry.name)
            for entry in os.scandir(self.root)
            if entry.is_dir() and is_hidden(entry.name)
        ]
        beside = [
            entry.path
            for entry in os.scandir(self.root)
            if is_image_file(entry.name) and entry.is_file() and not is_hidden(entry.name)
        ]
        below = [path for path, _ in self.samples if path.count(os.sep, len(self.root) + 1) > 1]
        suffixes = ", ".join(IMG_EXTENSIONS)
        kinds = (
            ("hidden folders", hidden, "they are left out"),
            ("images beside the class folders", beside, "they are left out: they have no class"),
            (
                "files in class folders that are not images by their suffix",
                self._other_files,
                f"they are left out; images have {suffixes}, in capitals too",
            ),
            ("images in folders below a class folder", below, "they count for the class"),
        )
        return [
            Finding(kind, "oddity", len(paths), f"'{min(paths)}'", advice)
            for kind, paths, advice in kinds
            if paths
        ]

    def check(self, unreadable: int = 0) -> None:
        """Says what is odd, and insists on images whose headers can be read.

        Args:
            unreadable: images that may be others.

        Raises:
            UserError: with the first kind of fault, its count, first example and way out.
        """
        paths = [path for path, _ in self.samples]
        check_before_run(self.root, paths, further=self.oddities(), unreadable=unreadable)

    def _is_image(self, path: str) -> bool:
        """Whether a file of a class folder is used; asked for each of them once."""
        if any(map(is_hidden, path[len(str(self.root)) + 1 :].split(os.sep))):
            return False
        if not is_image_file(path):
            self._other_files.append(path)
            return False
        return True

    def _check_no_class_is_empty(self) -> None:
        used = set(self.targets)
        empty: Sequence[str] = [name for name, k in self.class_to_idx.items() if k not in used]
        if empty:
            raise UserError(
                f"the data set '{self.root}' is empty or has a class without images "
                f"({len(empty)} of {len(self.classes)}: {first_of(empty)}); expected images "
                f"({', '.join(IMG_EXTENSIONS)}) in one folder per class"
            )
