"""The folders that people have: which annotation file, and which images, are of which split."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import UserError, first_of
from detection.data.formats import other_format, way_out
from detection.data.headers import is_coco, read_header

LABEL_TOOL_FILE = "_annotations.coco.json"
"""What Roboflow, and tools after it, put beside the images of a split."""

LAYOUTS = (
    "known layouts: annotations/instances_train*.json with train*/, train/"
    f"{LABEL_TOOL_FILE} among its images, train.json with train/ or images/; the same for val"
)
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of the three splits, as words of a file's name or of its folder's."""

_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels")
_IMAGE_FOLDERS = ("images", "JPEGImages", "data")
_PREFIXES = ("instances_", "person_keypoints_", "annotations_", "labels_", "coco_")
_OTHER_TASKS = ("captions_", "stuff_", "panoptic_", "image_info_")
_KEYPOINTS = "person_keypoints_"
_MAX_FILES = 50


@dataclass(frozen=True)
class Source:
    """A data set by its paths, as they were given.

    Attributes:
        json_file: annotations in COCO's format.
        image_root: the folder that their ``file_name`` are relative to.
    """

    json_file: str
    image_root: str

    def __str__(self) -> str:
        """As it is written in a configuration."""
        return f"{self.json_file}:{self.image_root}"

    def resolved(self) -> tuple[Path, Path]:
        """The same for all ways to write the same files."""
        return Path(self.json_file).resolve(), Path(self.image_root).resolve()


def source_of_file(path: Path, key: str) -> Source:
    """An annotation file with the folder where its images are.

    Args:
        path: of the file.
        key: of the configuration that names it, for the message.

    Raises:
        UserError: if it is no COCO JSON, or its images are in none of the usual folders, or in
            several of them.
    """
    header = read_header(path)
    own, usual = _image_folders(path)
    found = _holding(own, header.files)[:1] or _holding(usual, header.files)
    if all(os.path.isabs(name) for name in header.files):
        found = [path.parent]
    explicit = f"name the folder: {key} {pasted(f'{path}:IMAGE_FOLDER')}"
    if len(found) > 1:
        raise UserError(
            f"{key}: the images of '{path}' are in several folders, {_list(found)}; {explicit}"
        )
    if not found:
        looked = first_of([f"'{folder}'" for folder in (*own, *usual)])
        raise UserError(
            f"{key}: no images of '{path}', such as '{header.files[0]}', in any of the usual "
            f"folders ({looked or 'there are none'}); {explicit}"
        )
    return Source(str(path), str(found[0]))


def source_of_folder(folder: Path, key: str) -> Source:
    """A folder of images with the annotation file that belongs to them.

    That is :data:`LABEL_TOOL_FILE` or the one JSON file in it, or one beside it that is called
    like it: ``photos/train`` with ``photos/train.json`` or
    ``photos/annotations/instances_train.json``.

    Args:
        folder: of the images.
        key: of the configuration that names it, for the message.

    Raises:
        UserError: if there is no such file, or more than one.
    """
    if (folder / LABEL_TOOL_FILE).is_file():
        return source_of_file(folder / LABEL_TOOL_FILE, key)
    inside = _coco_files(_visible(folder, "*.json"))
    if len(inside) == 1:
        return source_of_file(inside[0], key)
    whole = [split for split, files in _split_files(folder).items() if files]
    if len(whole) > 1:
        raise UserError(
            f"{key}: '{folder}' has the splits {', '.join(whole)}; name one of them, or the whole "
            f"folder: DATA.ROOT {pasted(folder)}"
        )
    explicit = f"name it: {key} ANNOTATIONS.json:IMAGE_FOLDER"
    if not inside:
        apart = [path for path in _json_files(folder) if path.parent != folder]
        if len(one := _narrowed(apart)) == 1 and is_coco(one[0]):
            return source_of_file(one[0], key)
    if inside:
        raise UserError(
            f"{key}: '{folder}' has {len(inside)} annotation files, {_list(inside)}; {explicit}, "
            f"such as {pasted(inside[0])}"
        )
    name = folder.resolve().name
    beside = [folder.parent / f"{name}.json"]
    for place in _ANNOTATION_FOLDERS:
        beside += [folder.parent / place / f"{prefix}{name}.json" for prefix in ("instances_", "")]
    found = [path for path in beside if path.is_file()]
    if len(found) == 1:
        return Source(str(found[0]), str(folder))
    if found:
        raise UserError(
            f"{key}: the annotations of '{folder}' may be in {_list(found)}; {explicit}, such as "
            f"{pasted(f'{found[0]}:{folder}')}"
        )
    raise UserError(
        f"{key}: no annotation file in '{folder}', nor one beside it that is called like it "
        f"('{beside[0]}'); {way_out(other_format(folder))}{explicit}"
    )


def splits_of(root: Path, training: bool = True) -> tuple[Source | None, Source, str]:
    """The training and the validation split of a folder.

    Without a validation split the test split takes its place.

    Args:
        root: the folder.
        training: insist on a training split.

    Returns:
        Both, and what is to be said of them; the training split is None where there is none.

    Raises:
        UserError: if the folder has another layout, or several that fit, or no split to
            validate on.
    """
    key = "DATA.ROOT"
    if root.is_file():
        raise UserError(
            f"{key} is '{root}', which is a file; name the folder of both sets, or single files "
            f"instead of {key}: DATASETS.TRAIN {pasted(root)} DATASETS.TEST …"
        )
    if not root.is_dir():
        raise UserError(f"{key} is '{root}', but there is no such folder; check the path")
    files = _split_files(root)
    wanted = ["train"] if training else []
    wanted.append("val" if files["val"] else "test")
    for split in wanted:
        if len(files[split]) > 1:
            _refuse_several(root, split, files)
    if any(not files[split] for split in wanted):
        _refuse_missing(root, files)
    train = source_of_file(files["train"][0], key) if files["train"] else None
    held_out = wanted[-1]
    note = ""
    if held_out == "test":
        note = "; there is no val, so test takes its place"
    elif files["test"]:
        note = f"; '{files['test'][0]}' is left out"
    return train, source_of_file(files[held_out][0], key), note


def _refuse_several(root: Path, split: str, files: dict[str, list[Path]]) -> None:
    """Lists the candidates, and what to write for the first of them."""
    words = [f"DATASETS.TRAIN {pasted(_explicit(files['train']))}"]
    words.append(f"DATASETS.TEST {pasted(_explicit(files['val'] or files['test']))}")
    raise UserError(
        f"DATA.ROOT is '{root}', where {split} may be {_list(files[split], 'or')}; choose, instead "
        f"of DATA.ROOT, such as: {' '.join(words)}"
    )


def _explicit(files: Sequence[Path]) -> str:
    if not files:
        return "ANNOTATIONS.json:IMAGE_FOLDER"
    try:
        return str(source_of_file(files[0], "DATA.ROOT"))
    except UserError:
        return f"{files[0]}:IMAGE_FOLDER"


def _refuse_missing(root: Path, files: dict[str, list[Path]]) -> None:
    others = [path for path in _json_files(root) if split_of(path, root) is None]
    others = _coco_files(others)
    one = (files["train"] or others)[:1]
    if one and not files["val"] and not files["test"] and len(files["train"] or others) == 1:
        raise UserError(
            f"DATA.ROOT is '{root}', with one annotation file, '{one[0]}', and no validation set; "
            "split it into train.json and val.json, or train without an evaluation, instead of "
            f'DATA.ROOT: DATASETS.TRAIN {pasted(_explicit(one))} DATASETS.TEST "()"'
        )
    there = [path for group in files.values() for path in group] + others
    found = f"it has {_list(there)}" if there else "it has no COCO annotation file"
    if not there and (other := other_format(root)):
        found += f", {way_out(other).removesuffix('; ')}"
    below = [folder for folder in _visible(root, "*") if folder.is_dir()]
    inner = next((folder for folder in below if any(_split_files(folder).values())), None)
    hint = f"did you mean DATA.ROOT {pasted(inner)}? " if inner and not there else ""
    raise UserError(
        f"DATA.ROOT is '{root}', where no training and validation set are found: {found}; {hint}"
        f"{LAYOUTS}; or name them: DATASETS.TRAIN ANNOTATIONS.json:IMAGE_FOLDER "
        "DATASETS.TEST ANNOTATIONS.json:IMAGE_FOLDER"
    )


def _split_files(root: Path) -> dict[str, list[Path]]:
    """The annotation files of every split."""
    files: dict[str, list[Path]] = {split: [] for split in _SPLITS}
    for path in _json_files(root):
        if split := split_of(path, root):
            files[split].append(path)
    return {split: _narrowed(paths) for split, paths in files.items()}


def _narrowed(paths: list[Path]) -> list[Path]:
    """Leaves out, of several files, those for other tasks than detection, and other JSON."""
    paths = [path for path in paths if not path.name.startswith(_OTHER_TASKS)]
    if any(path.name.startswith("instances_") for path in paths):
        paths = [path for path in paths if not path.name.startswith(_KEYPOINTS)]
    return _coco_files(paths) if len(paths) > 1 else paths  # one that is broken is named later


def _coco_files(paths: Sequence[Path]) -> list[Path]:
    """Of few files those in COCO's format; of very many, such as one an image, none."""
    return [path for path in paths if is_coco(path)] if len(paths) <= _MAX_FILES else []


def _json_files(root: Path) -> list[Path]:
    """In a folder, in those of annotations and of splits, and in the former below the latter."""
    below = [folder for folder in _visible(root, "*") if folder.is_dir()]
    splits = [folder for folder in below if split_of(folder, root)]
    places = [root, *splits, *(folder for folder in below if folder.name in _ANNOTATION_FOLDERS)]
    places += [folder / name for folder in splits for name in _ANNOTATION_FOLDERS]
    return [path for place in dict.fromkeys(places) for path in _visible(place, "*.json")]


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Without what systems and editors leave: ``._*``, ``.ipynb_checkpoints``, ``__MACOSX``."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith((".", "__")))


def split_of(path: Path, root: Path) -> str | None:
    """The split that a file's name says, or else the names of its folders below ``root``."""
    for part in reversed(path.relative_to(root).with_suffix("").parts):
        words = re.findall(r"[a-z]+", part.lower())
        if found := [split for split, names in _SPLITS.items() if set(names) & set(words)]:
            return found[0] if len(found) == 1 else None
    return None


def _image_folders(path: Path) -> tuple[list[Path], list[Path]]:
    """Where the images of an annotation file may be.

    Returns:
        Folders that are called like the file, the likeliest first, and those of any file.
    """
    base = path.parent.parent if path.parent.name in _ANNOTATION_FOLDERS else path.parent
    roots = list(dict.fromkeys([path.parent, base]))
    names = _names(path.stem)
    holders = [root for top in roots for root in (top, *(top / name for name in _IMAGE_FOLDERS))]
    own = [holder / name for name in names for holder in holders]
    usual = [path.parent, *(top / name for top in roots for name in _IMAGE_FOLDERS), base]
    return _existing(own), _existing(usual)


def _names(stem: str) -> list[str]:
    """What folders of images may be called: ``instances_train_13`` → that, train_13 and train."""
    names = [stem]
    names += [stem.removeprefix(prefix) for prefix in _PREFIXES if stem.startswith(prefix)]
    for end in ("_annotations", "_coco", "_labels", "_instances"):
        names += [name.removesuffix(end) for name in names if name.endswith(end)]
    names += [name.rsplit("_", 1)[0] for name in names if "_" in name.strip("_")]
    return [name for name in dict.fromkeys(names) if name.strip("._")]


def _existing(folders: Sequence[Path]) -> list[Path]:
    found: dict[Path, Path] = {}
    for folder in folders:
        if folder.is_dir():
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _holding(folders: Sequence[Path], files: Sequence[str]) -> list[Path]:
    """The folders with most of the files, if they have any."""
    counts = [sum(os.path.isfile(folder / name) for name in files) for folder in folders]
    most = max(counts, default=0)
    return [folder for folder, count in zip(folders, counts, strict=True) if count == most > 0]


def pasted(text: object) -> str:
    """A word for a command line, in quotes that all shells know where it needs them."""
    return f'"{text}"' if re.search(r"[\s()&;']", str(text)) else str(text)


def _list(paths: Sequence[Path], word: str = "and") -> str:
    shown = [f"'{path}'" for path in paths[:4]]
    if len(paths) > 4:
        return f"{', '.join(shown)}, …"
    return f" {word} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
