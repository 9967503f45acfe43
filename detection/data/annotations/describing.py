"""From rows of an annotation file to findings, with the first of them as the example."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from detection.data.annotations.file import AnnotationFile
from detection.data.annotations.kinds import KINDS, MOST
from detection.data.annotations.masks import Array
from detection.data.findings import Finding


def finding(
    key: str, count: int, example: str, share: float = 0.0, **values: object
) -> Finding | None:
    """What is said of one kind; None if nothing has it.

    Args:
        key: of :data:`detection.data.annotations.kinds.KINDS`.
        count: how many have it.
        example: the first of them.
        share: of all that could have it.
        values: for the braces of its texts.
    """
    if not count:
        return None
    kind = KINDS[key]
    severity = kind.severity
    if severity == "share":
        severity = "error" if share >= MOST else "oddity"
    title, advice = (text.format(**values) for text in (kind.title, kind.advice))
    return Finding(title, severity, int(count), example, advice)


def of_rows(
    key: str,
    file: AnnotationFile,
    rows: Array,
    shows: str | None = None,
    doubtful: bool = False,
    **values: object,
) -> Finding | None:
    """What is said of annotations.

    Args:
        key: of :data:`detection.data.annotations.kinds.KINDS`.
        file: that they are in.
        rows: (N) truth values, which of its annotations have the fault.
        shows: the key of the annotation that the example quotes.
        doubtful: that it is an oddity, however many have it.
        values: for the braces of the kind's texts.
    """
    count = int(np.count_nonzero(rows))
    if not count:
        return None
    example = described(file, int(np.argmax(rows)), shows)
    share = 0.0 if doubtful else count / max(len(rows), 1)
    return finding(key, count, example, share, **values)


def described(file: AnnotationFile, row: int, shows: str | None = None) -> str:
    """An annotation by its id and image: ``annotation 7 of 'a.jpg', bbox [0, 0, 0, 4]``."""
    item, image = file.annotations[row], int(file.columns.image[row])
    where = f"'{file.images[image]['file_name']}'" if image >= 0 else f"image {item['image_id']!r}"
    text = f"annotation {item.get('id', f'number {row}')} of {where}"
    if shows is None:
        return text
    quoted = str(item.get(shows))
    return f"{text}, {shows} {quoted if len(quoted) < 80 else quoted[:80] + '…'}"


def present(findings: Iterable[Finding | None]) -> list[Finding]:
    """Those that are there."""
    return [found for found in findings if found is not None]
