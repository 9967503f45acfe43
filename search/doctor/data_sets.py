"""The data sets below ``$DETECTRON2_DATASETS``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from search.doctor.finding import Finding

__all__ = ["data_findings", "data_folder"]

_VARIABLE = "DETECTRON2_DATASETS"
_COCO = (
    *("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
    *("train2017", "val2017"),
)
_IMAGENET = ("train", "val")


def data_folder(environ: Mapping[str, str]) -> Path:
    """Where data sets that have a name are looked for."""
    return Path(environ.get(_VARIABLE) or "datasets").expanduser()


def data_findings(environ: Mapping[str, str], own: Sequence[str]) -> Iterator[Finding]:
    """What is there of the data sets that configurations name, and which others.

    Args:
        environ: of the process.
        own: names of folders in a layout that is known.
    """
    folder = data_folder(environ)
    yield _root(folder, environ)
    if (folder / "digits" / "manifest.json").is_file():
        yield Finding("ok", "data: digits", "made")
    else:
        yield Finding("ok", "data: digits", "made at first use, or by spnas prepare-digits")
    for name, parts in (("coco", _COCO), ("imagenet", _IMAGENET)):
        yield _named(folder, name, parts)
    if others := [name for name in own if name not in ("coco", "digits", "imagenet")]:
        named = ", ".join(f"DATA.ROOT {folder / name}" for name in others)
        yield Finding("ok", "data: of your own", f"layouts that are known: {named}")


def _root(folder: Path, environ: Mapping[str, str]) -> Finding:
    subject = "data: folder"
    says = f"${_VARIABLE}" if environ.get(_VARIABLE) else f"${_VARIABLE} is not set"
    where = f"'{folder}' ({says})"
    fix = _choose()
    if not folder.exists():
        if environ.get(_VARIABLE):
            return Finding("note", subject, f"no {where}", fix)
        return Finding("ok", subject, f"no {where}; it is made when it is needed")
    if not folder.is_dir():
        return Finding("note", subject, f"{where} is no folder", fix)
    if not os.access(folder, os.W_OK):
        return Finding("note", subject, f"{where} cannot be written, so no digits can be made", fix)
    return Finding("ok", subject, where)


def _choose() -> str:
    return f"export {_VARIABLE}=FOLDER, the one that holds coco/, imagenet/ or your own folders"


def _named(folder: Path, name: str, parts: Sequence[str]) -> Finding:
    subject, here = f"data: {name}", folder / name
    if not here.is_dir():
        return Finding("ok", subject, "not there")
    tars = {path.parent for pattern in ("*.tar", "*/*.tar") for path in here.glob(pattern)}
    if name == "imagenet" and tars:
        return Finding("ok", subject, f"tar files in {', '.join(sorted(map(str, tars)))}")
    missing = [part for part in parts if not _has_content(here / part)]
    if not missing:
        return Finding("ok", subject, "complete, by its files and folders")
    text = f"'{here}' is there, but nothing in it at {', '.join(missing)}"
    return Finding("note", subject, text, f"put it there, or {_choose()}")


def _has_content(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
