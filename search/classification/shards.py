"""Classification images in tar files (shards), read in any order; and how they are written."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from webdataset import ShardWriter

from backbones.errors import UserError, first_of
from backbones.files import write_atomic
from detection.data.image_files import decode_image
from detection.engine.unreadable import UnreadableImageError
from search.classification.folder import ClassificationFolder
from search.classification.shard_index import CLASS, index_shards

CLASSES_FILE = "classes.txt"
"""Names of the classes beside the tar files, one a line, in the order of their numbers."""

_CHECKED = 32  # images decoded before a run
_MAX_OPEN = 128  # tar files of a process; systems allow 256 or more


class ClassificationShards(Dataset[tuple[Any, int]]):
    """The images of tar files: of every sample an image and a ``.cls``, the number of its class.

    Samples have an index of their own, by class and name: order, augmentation, resuming and held
    out parts are those of a folder of the same images.

    Args:
        paths: tar files of one split, uncompressed.
        transform: from PIL image to tensor.
        num_classes: expected number of classes; 0 accepts any.
        classes_kept: classes to draw at random, the same for all splits; 0 keeps all.
        seed: of that draw.

    Attributes:
        root: the first tar file and how many there are, for messages.
        classes: their names, or their numbers where :data:`CLASSES_FILE` is missing.

    Raises:
        UserError: if a file cannot be read, a class has no image, there is one class only, or
            another number, or fewer than are to be kept.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        transform: Any = None,
        num_classes: int = 0,
        classes_kept: int = 0,
        seed: int = 0,
    ) -> None:
        self.paths = list(paths)
        self.root = f"{paths[0]} ({len(paths)} tar files)"
        self.transform = transform
        self._files: dict[tuple[int, int], IO[bytes]] = {}
        self._index = index_shards(self.paths)
        self.classes = self._class_names()
        self._check_classes(num_classes)
        if classes_kept:
            self._keep(classes_kept, seed)

    def __len__(self) -> int:
        return len(self._index.labels)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        """The image, as the transform makes it, and its class."""
        image: Any = self.image(number)
        if self.transform is not None:
            image = self.transform(image)
        return image, int(self._index.labels[number])

    def image(self, number: int) -> Image.Image:
        """An image as all stages read it.

        Raises:
            UserError: naming tar file and image, if it cannot be read.
        """
        return decode_image(self.name(number), lambda: io.BytesIO(self._bytes(number)))

    def name(self, number: int) -> str:
        """Tar file and name of an image."""
        path = self.paths[self._index.shards[number]]
        return f"{path}/{self._index.names[number].decode(errors='replace')}"

    def check(self, unreadable: int = 0) -> None:
        """Decodes an even sample.

        Args:
            unreadable: images that may be broken.

        Raises:
            UserError: naming the first one beyond those.
        """
        for number in range(0, len(self), -(-len(self) // _CHECKED)):
            try:
                self.image(number)
            except UnreadableImageError:
                if unreadable <= 0:
                    raise
                unreadable -= 1

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, for processes that are not forked."""
        return {**self.__dict__, "_files": {}}

    def _bytes(self, number: int) -> bytes:
        file = self._opened(int(self._index.shards[number]))
        file.seek(int(self._index.offsets[number]))
        return file.read(int(self._index.sizes[number]))

    def _opened(self, shard: int) -> IO[bytes]:
        """A tar file that stays open: opening it is what takes long by network."""
        # one that was opened before a fork shares its place with the other process
        key = os.getpid(), shard
        if key not in self._files:
            if len(self._files) >= _MAX_OPEN:
                self._files.pop(next(iter(self._files))).close()
            self._files[key] = open(self.paths[shard], "rb", buffering=0)  # noqa: SIM115
        return self._files[key]

    def _class_names(self) -> list[str]:
        count = int(self._index.labels.max()) + 1
        for folder in (self.paths[0].parent, self.paths[0].parent.parent):
            file = folder / CLASSES_FILE
            if file.is_file():
                names = file.read_text(encoding="utf-8-sig").splitlines()
                if len(names) < count or len(set(names)) < len(names):
                    raise UserError(
                        f"'{file}' names {len(set(names))} classes in {len(names)} lines, but "
                        f"'{self.root}' has class {count - 1}; expected one line for each class, "
                        "from 0 on"
                    )
                return names
        return [str(number) for number in range(count)]

    def _check_classes(self, num_classes: int) -> None:
        found = len(self.classes)
        if num_classes and found != num_classes:
            raise UserError(
                f"CLASSIFICATION.NUM_CLASSES is {num_classes}, but '{self.root}' has {found} "
                f"classes; set it to {found}, or to 0 to take the number that is there"
            )
        present = set(np.unique(self._index.labels).tolist())
        if empty := [name for k, name in enumerate(self.classes) if k not in present]:
            raise UserError(
                f"'{self.root}' has a class without images ({len(empty)} of {found}: "
                f"{first_of(empty)}); expected some of every class, numbered from 0 on"
            )
        if found == 1:
            raise UserError(
                f"'{self.root}' has one class, '{self.classes[0]}'; a classifier needs two or more"
            )

    def _keep(self, count: int, seed: int) -> None:
        """The classes that a folder would keep."""
        if not 2 <= count <= len(self.classes):
            raise UserError(
                f"SEARCH.PROXY_CLASSES is {count}; expected 2 to {len(self.classes)}, the classes "
                f"of '{self.root}', or 0 for all"
            )
        kept = sorted(random.Random(seed).sample(range(len(self.classes)), count))
        used = np.isin(self._index.labels, kept)
        index = type(self._index)(*(column[used] for column in self._index))
        self._index = index._replace(labels=np.searchsorted(kept, index.labels))
        self.classes = [self.classes[k] for k in kept]


def write_shards(source: Path, target: Path, size: int, seed: int = 0) -> list[Path]:
    """Packs ``source/{train,val}/<class>/*`` into ``target/{train,val}/*.tar``.

    The images are packed as they are, in a random order, so that others can read one tar file
    after the other.

    Args:
        source: a folder of images.
        target: the folder of the tar files.
        size: bytes of a tar file, about.
        seed: of the order.

    Returns:
        The tar files.

    Raises:
        UserError: if the source cannot be used, or the target has tar files already.
    """
    if found := sorted(target.glob("*/*.tar")):
        raise UserError(f"'{target}' has tar files already, such as '{found[0]}'; name another")
    for split in ("train", "val"):
        images = ClassificationFolder(source, split)
        images.check()
        (target / split).mkdir(parents=True, exist_ok=True)
        # names that sort as the folder does
        numbers = list(range(len(images)))
        random.Random(seed).shuffle(numbers)
        pattern = str(target / split / f"{split}-%06d.tar")
        with contextlib.ExitStack() as files:
            options = {**_PLAIN, "maxcount": len(images) + 1, "maxsize": size}
            options["opener"] = lambda name, files=files: files.enter_context(open(name, "wb"))
            with ShardWriter(pattern, **options) as writer:
                for number in numbers:
                    writer.write(_sample(images, number))
        write_atomic(target / CLASSES_FILE, "".join(f"{name}\n" for name in images.classes))
    return sorted(target.glob("*/*.tar"))


_PLAIN: dict[str, Any] = {
    "verbose": 0,
    "encoder": False,
    "mtime": 0,
    "format": "PAX_FORMAT",  # others cannot hold long names
}


def _sample(images: ClassificationFolder, number: int) -> dict[str, Any]:
    path, label = images.samples[number]
    file = Path(path)
    stem = re.sub(r"[^\w-]", "_", file.stem)  # what follows a dot is a suffix
    return {
        "__key__": f"{images.classes[label]}/{number:08d}_{stem}",
        file.suffix[1:].lower(): file.read_bytes(),
        CLASS: str(label).encode(),
    }
