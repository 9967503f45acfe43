"""Data sets by their paths: what entries of ``DATASETS`` stand for, and their short names."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from backbones.errors import UserError
from detection.data.layouts import Source, source_of_file, source_of_folder

EXPLICIT = "annotation file:image folder, such as photos/train.json:photos/train"

_registered: dict[str, Source] = {}
"""Names that stand for paths in this process."""

_GENERIC = re.compile(r"_?annotations?(\.coco)?|labels?|coco|data|default|instances|result|_?all")
_TASKS = re.compile(r"^(instances|annotations?|labels?)_|_(annotations?|coco|labels?)$")


@dataclass(frozen=True)
class OwnSet:
    """A data set by its paths, with the name that a configuration gives it, if it does."""

    source: Source
    name: str | None = None


def parse_entry(entry: str, key: str, named: Mapping[str, Source]) -> OwnSet | None:
    """What an entry of ``DATASETS.TRAIN`` or ``DATASETS.TEST`` stands for.

    Args:
        entry: a name, ``ANNOTATIONS:IMAGES``, an annotation file or a folder; ``NAME=`` before a
            path names it.
        key: that holds it, for messages.
        named: what ``DATA.SETS`` says.

    Returns:
        None for the name of a data set that is registered otherwise, or of none.

    Raises:
        UserError: if it is a path, and there is nothing there, or nothing that can be used.
    """
    if entry in named:
        return OwnSet(named[entry], entry)
    if entry in DatasetCatalog.list() and entry not in _registered:
        return None
    name, path = _name_and_path(entry, key)
    if not (name or _looks_like_a_path(path)):
        return None
    if entry in _registered and not os.path.exists(path):
        return OwnSet(_registered[entry], entry)
    return OwnSet(_source(path, key), name)


def parse_named(items: Sequence[str]) -> dict[str, Source]:
    """``DATA.SETS``: ``NAME=ANNOTATIONS:IMAGES`` of each.

    The files need not be there yet: an evaluation needs no training images.

    Raises:
        UserError: for an item of another form, or a name that is there twice.
    """
    found: dict[str, Source] = {}
    for item in items:
        name, equals, path = str(item).partition("=")
        parts = _halves(path)
        if not (equals and name and parts):
            raise UserError(
                f"DATA.SETS holds '{item}'; expected NAME=ANNOTATIONS.json:IMAGE_FOLDER, as a "
                "run's config.yaml has it"
            )
        source = Source(*parts)
        if name in found and found[name].resolved() != source.resolved():
            raise UserError(f"DATA.SETS says twice what '{name}' is: '{found[name]}' and '{path}'")
        found[name] = source
    return found


def with_names(sets: Sequence[OwnSet]) -> dict[str, Source]:
    """Short names for data sets by path, each once: as given, or ``photos/train``.

    A name that is taken by other data gets more of the path before it.

    Raises:
        UserError: if two sets are given one name.
    """
    names: dict[str, Source] = {}
    for own in sets:
        if own.name is None:
            continue
        there = names.setdefault(own.name, own.source)
        if there.resolved() != own.source.resolved():
            raise UserError(
                f"'{own.name}' names two data sets, '{there}' and '{own.source}'; name one of "
                f"them apart: NAME={own.source}"
            )
    for own in sets:
        if all(own.source.resolved() != there.resolved() for there in names.values()):
            names[_free_name(own.source, names)] = own.source
    return names


def register(name: str, source: Source) -> None:
    """Registers a data set with Detectron2 as ``name``; a repeated call is silent.

    Raises:
        UserError: if other data have that name.
    """
    if name not in DatasetCatalog.list():
        register_coco_instances(name, {}, source.json_file, source.image_root)
        _registered[name] = source
        return
    if not _is_registered_as(name, source):
        there = MetadataCatalog.get(name)
        raise UserError(
            f"the data set '{name}' is registered already, with "
            f"'{there.get('json_file')}:{there.get('image_root')}', and not '{source}'; give one "
            f"of them another name: NAME={source}"
        )


def _is_registered_as(name: str, source: Source) -> bool:
    there = MetadataCatalog.get(name)
    json_file, image_root = there.get("json_file"), there.get("image_root")
    if json_file is None or image_root is None:
        return False
    return Source(json_file, image_root).resolved() == source.resolved()


def _free_name(source: Source, names: Mapping[str, Source]) -> str:
    """The shortest name of its path that stands for nothing else."""
    path = Path(os.path.abspath(source.json_file))  # a link's own name, and not its target's
    folders, title = list(path.parts[1:-1]), _TASKS.sub("", path.stem)
    if len(folders) > 1 and folders[-1] in ("annotations", "annotation", "labels"):
        del folders[-1]
    parts = folders if _GENERIC.fullmatch(path.stem) else [*folders, title or path.stem]
    parts = [re.sub(r"[=:\\]|\s", "_", part) for part in parts]
    known = DatasetCatalog.list()

    def is_free(name: str) -> bool:
        return name not in names and (name not in known or _is_registered_as(name, source))

    longer = ["/".join(parts[-count:]) for count in range(2, len(parts) + 1)]
    candidates = [*longer, *(f"{longer[0] if longer else parts[-1]}-{n}" for n in range(2, 1000))]
    return next(filter(is_free, candidates))


def _name_and_path(entry: str, key: str) -> tuple[str | None, str]:
    name, equals, path = entry.partition("=")
    if not equals or os.path.exists(entry):
        return None, entry
    bad = not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name)
    if bad or not path:
        raise UserError(
            f"{key} names '{entry}'; expected NAME={EXPLICIT}, with a name of letters, digits, "
            "'.', '-', '_' and '/'"
        )
    return name, path


def _looks_like_a_path(text: str) -> bool:
    ends = text.lower().endswith(".json")
    return ends or os.path.exists(text) or bool(_halves(text)) or bool(re.search(r"[/\\]", text))


def _source(entry: str, key: str) -> Source:
    path = os.path.expanduser(entry)
    if not os.path.exists(path) and (parts := _halves(path)):
        json_file, image_root = map(os.path.expanduser, parts)
        return _explicit(entry, json_file, image_root, key)
    if os.path.isdir(path):
        return source_of_folder(Path(path), key)
    if os.path.isfile(path):
        return source_of_file(Path(path), key)
    raise UserError(f"{key} names '{path}', but there is no such file or folder{_near(path)}")


def _explicit(path: str, json_file: str, image_root: str, key: str) -> Source:
    if os.path.isdir(json_file) and os.path.isfile(image_root):
        raise UserError(
            f"{key} names '{path}'; the annotation file comes first: {image_root}:{json_file}"
        )
    if not os.path.isfile(json_file):
        raise UserError(
            f"{key} names '{path}', but there is no annotation file '{json_file}'{_near(json_file)}"
        )
    if not os.path.isdir(image_root):
        raise UserError(
            f"{key} names '{path}', but there is no image folder '{image_root}'{_near(image_root)}"
        )
    return Source(json_file, image_root)


def _halves(text: str) -> tuple[str, str] | None:
    r"""Both sides of the colon that is none of a drive letter (``C:\photos``) or an address."""
    drive_or_address = r"(?<![^:])[A-Za-z]:[\\/]|://"
    excluded = {
        match.start() + match[0].index(":") for match in re.finditer(drive_or_address, text)
    }
    colons = [at for at, mark in enumerate(text) if mark == ":" and at not in excluded]
    halves = [(text[:at], text[at + 1 :]) for at in colons]
    halves = [pair for pair in halves if all(pair)]
    there = [pair for pair in halves if os.path.isfile(pair[0])]
    return next(iter(there or halves), None)


def _near(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        near = difflib.get_close_matches(name, os.listdir(folder or "."), n=1)
    except OSError:
        return f"; expected {EXPLICIT}, or one of both"
    if near:
        return f"; did you mean '{os.path.join(folder, near[0])}'?"
    return f"; expected {EXPLICIT}, or one of both"
