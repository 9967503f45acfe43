"""What the checks of a data set find: errors, which stop a run, and oddities, which are said."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from backbones.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one data set.

    Attributes:
        kind: what it is, in words that can follow a count, e.g. ``boxes of negative size``.
        severity: an error stops a run before its first step, an oddity is said in one warning.
        count: how many annotations, images or classes have it.
        example: the first of them, with the image file and the annotation id where it has them.
        advice: the way out.
    """

    kind: str
    severity: Literal["error", "oddity"]
    count: int
    example: str
    advice: str

    def __str__(self) -> str:
        return f"{self.count:,} × {self.kind}, first {self.example}; {self.advice}"


def report(findings: Iterable[Finding], name: str) -> None:
    """Logs every oddity as one warning, and refuses the data set if there are errors.

    Args:
        findings: of one data set.
        name: of the data set.

    Raises:
        UserError: with the first kind of error, its count, first example and way out; further
            kinds are counted.
    """
    findings = list(findings)
    for finding in findings:
        if finding.severity == "oddity":
            _log.warning("data set '%s': %s", name, finding)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = [f"{finding.count:,} × {finding.kind}" for finding in errors[1:]]
        further = f" (also: {'; '.join(more)})" if more else ""
        raise UserError(f"data set '{name}': {errors[0]}{further}")
