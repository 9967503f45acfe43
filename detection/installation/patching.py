"""Changes to a source tree as data, and the function that makes them.

A :class:`Mend` names the files, the exact old text, the new text and the reason.
:func:`apply_mends` refuses a tree that does not hold the old text exactly as often as stated, so a
wrong source can never be half mended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import UserError
from backbones.files import write_atomic


@dataclass(frozen=True)
class Edit:
    """One replacement in one file.

    Attributes:
        file: path inside the source tree, with forward slashes.
        old: the exact text to replace, or a regular expression if ``pattern`` is set.
        new: the replacement (``re.sub`` syntax if ``pattern`` is set).
        count: how often ``old`` must occur in the file.
        pattern: whether ``old`` is a regular expression.
    """

    file: str
    old: str
    new: str
    count: int = 1
    pattern: bool = False

    def apply(self, text: str) -> str:
        """Returns ``text`` with the replacement made.

        Raises:
            UserError: if ``old`` does not occur exactly ``count`` times.
        """
        expression = self.old if self.pattern else re.escape(self.old)
        found = len(re.findall(expression, text))
        if found != self.count:
            raise UserError(
                f"'{self.file}' is not Detectron2 v0.6's: expected {self.count} times {self.old!r} "
                f"and found it {found} times; use the unchanged v0.6 source"
            )
        # A callable keeps backslashes in a literal replacement as they are.
        return re.sub(expression, self.new if self.pattern else lambda _: self.new, text)


@dataclass(frozen=True)
class Mend:
    """One thing that v0.6 needs, and why.

    Attributes:
        name: short name, used in the notice that is added to every changed file.
        why: what breaks without it.
        edits: replacements in existing files.
        new_files: files to add, as (path in the tree, path of the text to copy).
    """

    name: str
    why: str
    edits: tuple[Edit, ...] = ()
    new_files: tuple[tuple[str, Path], ...] = ()


def _write_with_notice(path: Path, text: str, names: Iterable[str]) -> None:
    """Writes a changed file with the notice of changes that Detectron2's licence asks for."""
    notice = f"# Changed by spnas for current libraries: {', '.join(names)}.\n"
    write_atomic(path, text.rstrip("\n") + "\n\n" + notice)


def apply_mends(root: Path, mends: Iterable[Mend]) -> None:
    """Mends an unpacked Detectron2 v0.6 tree in place.

    Args:
        root: the folder that holds ``detectron2/`` and ``projects/``.
        mends: which mends.

    Raises:
        UserError: if the tree is not an unchanged v0.6. Nothing is written then.
    """
    changed: dict[str, tuple[str, list[str]]] = {}
    for mend in mends:
        for edit in mend.edits:
            text, names = changed.get(edit.file) or (_read(root, edit.file), [])
            changed[edit.file] = (edit.apply(text), list(dict.fromkeys([*names, mend.name])))
        for target, source in mend.new_files:
            if (root / target).exists():
                raise UserError(f"'{root / target}' exists already; use the unchanged v0.6 source")
            changed[target] = (source.read_text(encoding="utf-8"), [mend.name])
    for file, (text, names) in changed.items():
        _write_with_notice(root / file, text, names)


def _read(root: Path, file: str) -> str:
    try:
        return (root / file).read_text(encoding="utf-8")
    except OSError:
        raise UserError(
            f"'{root}' is not a Detectron2 v0.6 source tree: it has no '{file}'"
        ) from None
