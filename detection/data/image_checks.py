"""Image files are checked by their headers, in seconds, before anything is trained on them."""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
from PIL import Image

from detection.data.findings import Finding, report
from detection.data.image_files import (
    DARK_ADVICE,
    NEARLY_BLACK,
    UNSCALED_ADVICE,
    as_rgba,
    is_deep,
    open_lazily,
    white_value,
)
from detection.data.image_headers import (
    BROKEN,
    EMPTY,
    HUGE,
    MISSING,
    UNKNOWN,
    UNREADABLE,
    Header,
    check_decodes,
    read_header,
)

_log = logging.getLogger(__name__)

Size = tuple[int, int]
"""Width and height in pixels."""

BEFORE_A_RUN = 20_000
"""Images whose headers are read before a run; of a larger data set an even sample."""

_ADVICE = {
    MISSING: "check the image folder of the data set",
    EMPTY: "copy them again or take them out",
    UNREADABLE: "see that they may be read",
    UNKNOWN: "convert them to JPEG or PNG, or take them out",
    HUGE: "make them smaller, or cut them into tiles",
    BROKEN: "copy them again or take them out",
}
_TURNED = "images turned by their EXIF orientation, but listed with the size before the turn"
_SWAPPED = "images listed with width and height swapped"
_OTHER_SIZE = "images of another size than listed in the annotation file"
_SIZE_ADVICE = {
    _TURNED: "images are read upright: if the boxes were drawn on the upright image, swap width "
    "and height in the annotation file; if not, take the orientation out of the images "
    "(exiftool -Orientation= FILES)",
    _SWAPPED: "mend the sizes, or use the annotation file that belongs to these images",
    _OTHER_SIZE: "use the annotation file that belongs to these images, or mend its sizes",
}
_DECODED = 256  # files at most whose end looks wrong, or whose pixels have to tell
_SAMPLED = 16
_TIMED = 200  # files read one after another, to see whether they wait for the disk
_WAIT_SECONDS = 0.001  # of a file: above what a local disk lets wait, or another process
_PART = 16  # files that a thread is given at once
_SAY_SECONDS = 10.0

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def check_image_files(
    paths: Sequence[str], sizes: Sequence[Size | None] | None = None, workers: int = 16
) -> list[Finding]:
    """Reads the headers of image files, and compares them with what annotations say.

    Pixels are decoded of at most some hundred files: those whose end looks as if bytes were
    missing, and samples of those with 16 bits or transparency.

    Args:
        paths: the files; addresses of remote ones are left out.
        sizes: (width, height) by the annotations, None where they say nothing.
        workers: threads, used where reading waits for the disk more than it computes.

    Returns:
        The faults of each kind: errors first.
    """
    if sizes is None:
        sizes = [None] * len(paths)
    local = [pair for pair in zip(paths, sizes, strict=True) if "://" not in pair[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        headers = list(_in_parallel(read_header, [path for path, _ in local], workers))
        headers = _decode_suspects(headers, workers)
    sound = [(header, size) for header, (_, size) in zip(headers, local, strict=True)]
    sound = [(header, size) for header, size in sound if not header.problem]
    found = [_unusable(headers, kind) for kind in _ADVICE]
    found += _sizes(sound) + _depths([h for h, _ in sound]) + _oddities([h for h, _ in sound])
    kept = [finding for finding in found if finding is not None]
    return sorted(kept, key=lambda finding: finding.severity != "error")


_checked: set[int] = set()


def check_before_run(
    name: str,
    paths: Sequence[str],
    sizes: Sequence[Size | None] | None = None,
    further: Sequence[Finding] = (),
    unreadable: int = 0,
) -> None:
    """Checks the images of a data set, an even sample of very many, once per process.

    Args:
        name: of the data set.
        paths: the files.
        sizes: (width, height) by the annotations.
        further: what was found besides, said with it.
        unreadable: images that the run may leave out: as many are no fault.

    Raises:
        UserError: with the first kind of fault, its count, first example and way out.
    """
    step = -(-len(paths) // BEFORE_A_RUN) or 1
    paths, sizes = paths[::step], None if sizes is None else sizes[::step]
    key = hash((name, tuple(paths), sizes and tuple(sizes)))
    if key in _checked:
        return
    if step > 1:
        _log.info("data set '%s': the headers of one image in %d are checked", name, step)
    report([*further, *_tolerated(check_image_files(paths, sizes), unreadable)], name)
    _checked.add(key)


def _tolerated(findings: Sequence[Finding], unreadable: int) -> list[Finding]:
    """The findings, where images that cannot be read are oddities if they are that few."""
    kinds = set(_ADVICE)
    if sum(finding.count for finding in findings if finding.kind in kinds) > unreadable:
        return list(findings)
    advice = "they are left out as they are met, which DATALOADER.MAX_UNREADABLE_IMAGES allows"
    return [
        replace(finding, severity="oddity", advice=advice) if finding.kind in kinds else finding
        for finding in findings
    ]


def _in_parallel(
    work: Callable[[_Given], _Made], given: Sequence[_Given], workers: int
) -> Iterator[_Made]:
    """Results in order, with a line of progress every ten seconds.

    Decoding headers is Python's own work, which threads only slow down; they help where a disk
    or a network lets a file wait. The first files tell which it is.
    """
    began, busy = time.perf_counter(), time.thread_time()
    first = [work(item) for item in given[:_TIMED]]
    yield from first
    waited = time.perf_counter() - began - (time.thread_time() - busy)
    rest = given[len(first) :]
    if waited > _WAIT_SECONDS * len(first) and workers > 1:
        parts = [rest[start : start + _PART] for start in range(0, len(rest), _PART)]
        with ThreadPoolExecutor(workers) as pool:
            made = pool.map(lambda part: [work(item) for item in part], parts)
            results = itertools.chain.from_iterable(made)
            yield from _with_progress(results, len(first), len(given))
    else:
        yield from _with_progress(map(work, rest), len(first), len(given))


def _with_progress(results: Iterable[_Made], done: int, total: int) -> Iterator[_Made]:
    said = time.perf_counter()
    for count, result in enumerate(results, done + 1):
        if time.perf_counter() - said > _SAY_SECONDS:
            said = time.perf_counter()
            _log.info("headers of %s of %s images are read", f"{count:,}", f"{total:,}")
        yield result


def _decode_suspects(headers: Sequence[Header], workers: int) -> list[Header]:
    suspects = _evenly([header for header in headers if header.suspect], _DECODED)
    decoded = dict(zip(suspects, _in_parallel(check_decodes, suspects, workers), strict=True))
    return [decoded.get(header, header) if header.suspect else header for header in headers]


def _evenly(items: Sequence[_Given], count: int) -> Sequence[_Given]:
    return items[:: -(-len(items) // count) or 1]


def _unusable(headers: Sequence[Header], kind: str) -> Finding | None:
    found = [header for header in headers if header.problem == kind]
    if not found:
        return None
    reason = f" ({found[0].reason})" if found[0].reason else ""
    return Finding(kind, "error", len(found), f"'{found[0].path}'{reason}", _ADVICE[kind])


def _sizes(sound: Sequence[tuple[Header, Size | None]]) -> list[Finding | None]:
    """What differs from the annotations, and what their sizes cannot tell."""
    wrong: dict[str, list[tuple[Header, Size]]] = {kind: [] for kind in _SIZE_ADVICE}
    unclear = []
    for header, listed in sound:
        if listed is None:
            continue
        if header.size != tuple(listed):
            wrong[_kind_of_size(header, listed)].append((header, listed))
        elif header.turned != 1 and header.stored == header.size:
            unclear.append(header)
    found: list[Finding | None] = []
    for kind, pairs in wrong.items():
        if pairs:
            header, listed = pairs[0]
            width, height = header.size
            example = f"'{header.path}' ({width} × {height}, listed as {listed[0]} × {listed[1]})"
            found.append(Finding(kind, "error", len(pairs), example, _SIZE_ADVICE[kind]))
    odd = "images that their EXIF orientation turns or mirrors without a change of size"
    advice = "they are read upright: see that their boxes were drawn on the upright image"
    return [*found, _of(odd, unclear, advice)]


def _kind_of_size(header: Header, listed: Size) -> str:
    if header.size != (listed[1], listed[0]):
        return _OTHER_SIZE
    return _TURNED if header.stored == tuple(listed) else _SWAPPED


def _of(kind: str, headers: Sequence[Header], advice: str) -> Finding | None:
    if not headers:
        return None
    return Finding(kind, "oddity", len(headers), f"'{headers[0].path}'", advice)


def _depths(sound: Sequence[Header]) -> list[Finding | None]:
    unscalable = [header for header in sound if not header.scalable]
    deep = [header for header in sound if header.deep and header.scalable]
    found: list[Finding | None] = []
    if unscalable:
        path, count = unscalable[0].path, len(unscalable)
        kind = "images of 32-bit, signed or floating point values"
        found.append(Finding(kind, "error", count, f"'{path}'", UNSCALED_ADVICE))
    if not deep:
        return found
    share = max(map(_largest_share, _evenly(deep, _SAMPLED)))
    if 0 < share < NEARLY_BLACK:
        kind = f"16-bit images that use only {share:.2%} of their range and would be nearly black"
        found.append(Finding(kind, "error", len(deep), f"'{deep[0].path}'", DARK_ADVICE))
    else:
        found.append(_of("16-bit images", deep, "they are scaled to 8 bits, 65,535 to 255"))
    return found


def _largest_share(header: Header) -> float:
    """The largest value of a 16-bit image, as a share of white."""
    try:
        with open(header.path, "rb") as file, open_lazily(file) as image:
            if is_deep(image.mode):
                return float(np.asarray(image).max()) / (white_value(image) or 1)
            return float(np.asarray(image.convert("RGB")).max()) / 255
    except Exception:  # it is named when it is read
        return 0.0


def _oddities(sound: Sequence[Header]) -> list[Finding | None]:
    limit = Image.MAX_IMAGE_PIXELS or float("inf")
    alpha = [header for header in sound if header.alpha]
    if not any(map(_is_transparent, _evenly(alpha, _SAMPLED))):
        alpha = []
    return [
        _of("images with transparency", alpha, "they are laid on white"),
        _of(
            "files of several frames or pages",
            [header for header in sound if header.frames],
            "the first one is used",
        ),
        _of(
            f"images of more than {limit / 1e6:.0f} million pixels",
            [header for header in sound if header.stored[0] * header.stored[1] > limit],
            "they are read, slowly; make them smaller, or cut them into tiles",
        ),
    ]


def _is_transparent(header: Header) -> bool:
    try:
        with open(header.path, "rb") as file, open_lazily(file) as image:
            return as_rgba(image).getchannel("A").getextrema() != (255, 255)
    except Exception:  # it is named when it is read
        return False
