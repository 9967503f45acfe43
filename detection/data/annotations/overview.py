"""What the data of a configuration are, in tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from tabulate import tabulate

from detection.data.annotations.columns import LARGE, SMALL
from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.masks import Array, MaskKind

SCALES = ("small", "medium", "large")


def scale_of(areas: Array) -> Array:
    """(N) 0, 1 or 2 for small, medium and large objects, with COCO's borders."""
    return np.digitize(areas, [SMALL, LARGE])


def facts(file: AnnotationFile) -> dict[str, str]:
    """What a data set is, by what is counted."""
    columns, masks = file.columns, file.columns.masks
    objects = columns.objects
    count = int(np.count_nonzero(objects))
    scales = np.bincount(scale_of(columns.scoring_areas[objects]), minlength=3)
    held = np.bincount(columns.image[objects], minlength=len(file.images))
    boxes = objects & np.isfinite(columns.box_areas)
    encoded = objects & ((masks.kind == MaskKind.RLE) | (masks.kind == MaskKind.COUNTS))
    polygons = objects & masks.usable & ~encoded
    return {
        "images": f"{len(file.images):,}",
        "without an object": f"{int(np.count_nonzero(held == 0)):,}",
        "width × height": _sizes(columns.sizes),
        "classes": f"{len(file.categories):,}",
        "objects": f"{count:,}",
        **{name: _share(scales[n], count) for n, name in enumerate(SCALES)},
        "objects an image": f"{held.mean():.1f}, at most {held.max():,}" if len(held) else "–",
        "boxes": _share(boxes.sum(), count),
        "masks, polygons": _share(polygons.sum(), count),
        "masks, run-length encoded": _share(encoded.sum(), count),
        "crowds": _share(columns.crowd.sum(), len(columns)),
    }


def facts_table(files: Mapping[str, AnnotationFile]) -> str:
    """The facts of data sets side by side."""
    found = {name: facts(file) for name, file in files.items()}
    keys = list(next(iter(found.values())))
    rows = [[key, *(values[key] for values in found.values())] for key in keys]
    return str(tabulate(rows, ["", *found], "github", disable_numparse=True))


def classes_table(files: Mapping[str, AnnotationFile]) -> str:
    """Objects of every class by scale, small / medium / large."""
    counts = {name: objects_by_class(file) for name, file in files.items()}
    names = list(dict.fromkeys(title for found in counts.values() for title in found))
    rows = [[title, *(_cell(found.get(title)) for found in counts.values())] for title in names]
    headers = ["class", *(f"{name}: objects (small / medium / large)" for name in files)]
    return str(tabulate(rows, headers, "github", disable_numparse=True))


def objects_by_class(file: AnnotationFile) -> dict[str, Array]:
    """(3) objects by scale, small, medium and large, of every class."""
    columns = file.columns
    objects = columns.objects
    keys = columns.category[objects] * 3 + scale_of(columns.scoring_areas[objects])
    counts = np.bincount(keys, minlength=3 * len(file.categories)).reshape(-1, 3)
    found: dict[str, Array] = {}
    for item, row in zip(file.categories, counts, strict=True):
        title = str(item["name"])
        found[title] = found.get(title, 0) + row
    return found


def _cell(counts: Array | None) -> str:
    if counts is None or not counts.sum():
        return "–"
    return f"{counts.sum():,} ({' / '.join(f'{n:,}' for n in counts)})"


def _share(count: float, total: int) -> str:
    return f"{int(count):,} ({100 * count / total:.1f} %)" if total and count else "–"


def _sizes(sizes: Array) -> str:
    """The commonest size, and the range of sizes where there are several."""
    sizes = sizes[np.isfinite(sizes).all(1)].astype(int)
    if not len(sizes):
        return "–"
    kinds, counts = np.unique(sizes, axis=0, return_counts=True)
    common = "×".join(map(str, kinds[np.argmax(counts)]))
    if len(kinds) == 1:
        return common
    low, high = ("×".join(map(str, f(sizes, axis=0))) for f in (np.min, np.max))
    return f"{low} to {high}, mostly {common}"
