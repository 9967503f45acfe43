"""Files and folders that systems and editors leave in data sets, and that are no data."""

from __future__ import annotations

_LEFT_BEHIND = {
    "__macosx",
    "__pycache__",
    "@eadir",  # thumbnails of a Synology, which are images
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
}


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is no part of a data set, by its name alone.

    What begins with a dot (``.ipynb_checkpoints``, ``.DS_Store``, macOS's ``._photo.jpg``), and
    what archives, file servers and Windows leave behind (``__MACOSX``, ``@eaDir``, ``Thumbs.db``).
    """
    return name.startswith(".") or name.lower() in _LEFT_BEHIND
