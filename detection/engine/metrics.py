"""``metrics.json`` and what goes into it: rows of scalars, none lost where a run is interrupted."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import hooks
from detectron2.utils.events import EventStorage

METRICS_FILE = "metrics.json"

_WINDOW = 20  # iterations that Detectron2's writers smooth over
_TIMES = ("time", "data_time", "rank_data_time", "eta_seconds")

logger = logging.getLogger(__name__)


def is_due(hook: hooks.HookBase, finished: int) -> bool:
    """Whether a hook evaluates behind an iteration, not counting the last one."""
    return isinstance(hook, hooks.EvalHook) and hook._period > 0 and finished % hook._period == 0


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.json``; none without the file.

    A line that is no row, because a disk was full or a machine went down, is left out with a
    warning.
    """
    path = Path(folder) / METRICS_FILE
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
    ):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            logger.warning("'%s', line %d is cut or no row of metrics: left out", path, number)
    return rows


def has_row(folder: str | os.PathLike[str], iteration: int) -> bool:
    """Whether a run's ``metrics.json`` has a row of an iteration."""
    return any(row.get("iteration") == iteration for row in read_metrics(folder))


def mend_metrics(folder: str | os.PathLike[str]) -> None:
    """Takes a cut last line out of ``metrics.json``, which the next row would be glued to."""
    path = Path(folder) / METRICS_FILE
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        logger.warning("The last line of '%s' was cut: it is taken out", path)
        os.truncate(path, content.rfind(b"\n") + 1)


def recent_scalars(storage: EventStorage) -> dict[str, Any]:
    """The last values of every scalar of the present iteration, for a checkpoint.

    Times are left out: they are of the process that took them.

    Returns:
        By name, whether the scalar is smoothed, and pairs of value and iteration.
    """
    hints = storage.smoothing_hints()
    found = {}
    for name, history in storage.histories().items():
        # of a scalar that is not smoothed, the earlier ones are of no use to a resumed run
        recent = history.values()[-(_WINDOW if hints[name] else 1) :]
        values = [[float(value), int(at)] for value, at in recent]
        if values and values[-1][1] == storage.iter and name not in _TIMES:
            found[name] = {"smoothed": hints[name], "values": values}
    return found


def restore_scalars(storage: EventStorage, saved: Mapping[str, Any], written: bool) -> None:
    """Puts back what :func:`recent_scalars` returned, so that smoothing goes on over a resume.

    Args:
        storage: of the resumed run.
        saved: the scalars.
        written: the row of their iteration is written. Those that are not smoothed are left out
            then, for they would be written again.
    """
    present = storage.iter
    for name, scalar in saved.items():
        if written and not scalar["smoothed"]:
            continue
        for value, iteration in scalar["values"]:
            storage.iter = iteration
            storage.put_scalar(name, value, smoothing_hint=scalar["smoothed"])
    storage.iter = present
