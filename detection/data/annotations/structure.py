"""Faults of ids and classes: whatever has them cannot be told apart."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from detection.data.annotations.describing import finding, of_rows, present
from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.ids import id_order, is_id
from detection.data.annotations.values import is_set
from detection.data.findings import Finding

Classes = Sequence[tuple[Any, Any]]
"""Name and id of every class, in the order of the ids."""

_found: WeakKeyDictionary[AnnotationFile, list[Finding]] = WeakKeyDictionary()


def structure_findings(file: AnnotationFile) -> list[Finding]:
    """Faults of the ids and names of images, classes and annotations."""
    if file not in _found:
        _found[file] = present([*_classes(file), *_ids(file), *_sizes(file)])
    return _found[file]


def object_findings(file: AnnotationFile, training: bool) -> list[Finding]:
    """Whether a data set has any object that is no crowd.

    Args:
        file: whose columns are looked at.
        training: whether it is trained on, or else evaluated on.
    """
    if not file.images or file.columns.objects.any():
        return []
    key = "none_to_train" if training else "none_to_find"
    return present([finding(key, len(file.images), f"'{file.images[0]['file_name']}'")])


def class_findings(ours: Classes, theirs: Classes, other: str) -> list[Finding]:
    """How the classes of a data set differ from those of another.

    Args:
        ours: of the data set.
        theirs: of the other data set.
        other: the name of that.
    """
    names, their_names = [name for name, _ in ours], [name for name, _ in theirs]
    if names != their_names:
        pairs = [(a, b) for a, b in zip(names, their_names, strict=False) if a != b]
        counts = f"{len(names)} classes where it has {len(their_names)}"
        shown = f"'{pairs[0][0]}' where it has '{pairs[0][1]}'" if pairs else counts
        if sorted(map(str, names)) == sorted(map(str, their_names)):
            shown += ", the same classes in another order"
        apart = len(pairs) + abs(len(names) - len(their_names))
        return present([finding("class_other_names", apart, shown, other=other)])
    moved = [(name, a, b) for (name, a), (_, b) in zip(ours, theirs, strict=True) if a != b]
    shown = "'{}' with {!r} where it has {!r}".format(*moved[0]) if moved else ""
    return present([finding("class_other_ids", len(moved), shown, other=other)])


def classes_in(file: AnnotationFile) -> Classes:
    """The classes of an annotation file whose ids can be told apart."""
    listed = sorted(file.categories, key=lambda item: id_order(item["id"]))
    return [(item["name"], item["id"]) for item in listed]


def _classes(file: AnnotationFile) -> Iterable[Finding | None]:
    names = [item["name"] for item in file.categories]
    shown = [f"the category {item['id']!r}" for item in file.categories]
    wrong = [n for n, title in enumerate(names) if not isinstance(title, str)]
    first = f"{shown[wrong[0]]} has the name {json.dumps(names[wrong[0]])}" if wrong else ""
    yield finding("class_no_text", len(wrong), first)
    texts = [title if isinstance(title, str) else None for title in names]
    empty = [n for n, title in enumerate(texts) if title is not None and not title.strip()]
    yield finding("class_empty", len(empty), shown[empty[0]] if empty else "")
    whole = [title for title in texts if title is not None and title.strip()]
    twice = _repeated(whole)
    yield finding("class_twice", len(twice), f"'{twice[0]}'" if twice else "")
    folded = _repeated([" ".join(title.split()).casefold() for title in dict.fromkeys(whole)])
    alike = [t for t in dict.fromkeys(whole) if " ".join(t.split()).casefold() in folded]
    yield finding("class_alike", len(alike), " and ".join(f"{t!r}" for t in alike[:2]))
    yield from _unused(file)


def _unused(file: AnnotationFile) -> Iterable[Finding | None]:
    category = file.columns.category
    if not (category >= 0).any():
        return
    objects = np.bincount(category[category >= 0], minlength=len(file.categories))
    parents = {_parent(item) for item in file.categories}
    unused = [item for item, count in zip(file.categories, objects, strict=True) if not count]
    dummy = [
        item
        for item in unused
        if item["name"] in parents - {_parent(item)}
        or (item["id"] in (0, "0") and _parent(item) in ("none", ""))
    ]
    for key, items in (
        ("class_dummy", dummy),
        ("class_unused", [item for item in unused if item not in dummy]),
    ):
        shown = f"'{items[0]['name']}' with the id {items[0]['id']!r}" if items else ""
        yield finding(key, len(items), shown)


def _parent(category: Mapping[str, Any]) -> str:
    """The class above; empty where there is none, or where tools write a list or an object."""
    parent = category.get("supercategory")
    return parent if isinstance(parent, str) else ""


def _ids(file: AnnotationFile) -> Iterable[Finding | None]:
    # An annotation's own id may be missing: nothing rests on it.
    parts = {"image": file.images, "category": file.categories}
    bad = [(what, item["id"]) for what, items in parts.items() for item in items]
    bad = [(what, value) for what, value in bad if not is_id(value)]
    bad += [
        (f"annotation's {key}", item[key])
        for item in file.annotations
        for key in ("image_id", "category_id")
        if not is_id(item[key])
    ]
    yield finding("id_unusable", len(bad), f"{bad[0][0]} {bad[0][1]!r}" if bad else "")
    for key, items in (("image_twice", file.images), ("category_twice", file.categories)):
        twice = _repeated([item["id"] for item in items if is_id(item["id"])])
        shown = f"{twice[0]!r}" if twice else ""
        if twice and key == "image_twice":
            shown += f", of '{next(i['file_name'] for i in items if i['id'] == twice[0])}'"
        yield finding(key, len(twice), shown)
    twice = _repeated([i["id"] for i in file.annotations if "id" in i and is_id(i["id"])])
    yield finding("annotation_twice", len(twice), f"{twice[0]!r}" if twice else "")
    twice = _repeated([image["file_name"] for image in file.images])
    yield finding("file_twice", len(twice), f"'{twice[0]}'" if twice else "")
    columns = file.columns
    yield of_rows("image_unknown", file, columns.image < 0)
    yield of_rows("category_unknown", file, columns.category < 0, "category_id")
    yield of_rows("object_twice", file, _copies(file))
    ignored = np.fromiter((is_set(i.get("ignore")) for i in file.annotations), bool, len(columns))
    yield of_rows("ignored", file, ignored)


def _copies(file: AnnotationFile) -> np.ndarray[Any, Any]:
    """(N) whether an annotation says what one before it says."""
    columns = file.columns
    rows = np.flatnonzero(columns.objects & np.isfinite(columns.boxes).all(1))
    keys = np.column_stack([columns.image[rows], columns.category[rows], columns.boxes[rows]])
    order = np.lexsort(keys.T[::-1])
    same = (keys[order][1:] == keys[order][:-1]).all(1)
    found = np.zeros(len(columns), bool)
    found[rows[order[1:][same]]] = True
    return found


def _sizes(file: AnnotationFile) -> Iterable[Finding | None]:
    asked = [file.written or "width" in image or "height" in image for image in file.images]
    sizes = file.columns.sizes
    usable = ((sizes > 0) & (sizes % 1 == 0)).all(1)
    wrong = np.flatnonzero(np.asarray(asked, bool) & ~usable)
    shown = ""
    if len(wrong):
        image = file.images[wrong[0]]
        size = [image[key] for key in ("height", "width") if key in image]
        shown = f"height and width of '{image['file_name']}' are {size}"
    yield finding("size_unknown", len(wrong), shown)


def _repeated(values: Sequence[Hashable]) -> list[Any]:
    """Values that stand more than once, in order."""
    if len(set(values)) == len(values):
        return []
    seen: set[Hashable] = set()
    return list(dict.fromkeys(v for v in values if v in seen or seen.add(v)))  # type: ignore[func-returns-value]
