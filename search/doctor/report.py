"""All findings, as text or as JSON, and the exit code that they make."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from backbones.version import project_version
from search.doctor.data_sets import data_findings, data_folder
from search.doctor.finding import Finding
from search.doctor.libraries import library_findings
from search.doctor.machine import machine_findings
from search.doctor.trial import try_libraries

__all__ = ["diagnose"]

EXIT_BROKEN = 1


def diagnose(as_json: bool = False) -> int:
    """Looks at everything and prints what was found.

    Args:
        as_json: print one object: ``spnas``, ``python``, ``system``, ``healthy`` and ``findings``,
            each with ``status``, ``subject``, ``text`` and ``fix``.

    Returns:
        The exit code: 1 if something that every run needs is broken, else 0.
    """
    facts = {
        "spnas": project_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if not as_json:  # trying the libraries takes some seconds
        print(f"spnas {facts['spnas']}, Python {facts['python']}, {facts['system']}\n", flush=True)
    findings = look()
    healthy = all(finding.status != "broken" for finding in findings)
    if as_json:
        rows = [asdict(finding) for finding in findings]
        print(json.dumps({**facts, "healthy": healthy, "findings": rows}, indent=2))
    else:
        print(as_text(findings))
    return 0 if healthy else EXIT_BROKEN


def look() -> list[Finding]:
    """Libraries, data sets and the machine, in this order."""
    reports = try_libraries(data_folder(os.environ))
    return [
        *library_findings(reports),
        *data_findings(os.environ, reports["layouts"].get("found", ())),
        *machine_findings(reports["torch"].get("threads"), os.environ),
    ]


def as_text(findings: Sequence[Finding]) -> str:
    """A line for each finding, one below it for its fix, and the counts."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for one in findings:
        lines.append(f"{one.status:6}  {one.subject:{width}}  {one.text}")
        if one.fix:
            lines.append(f"{'':6}  {'':{width}}  fix: {one.fix}")
    counts = Counter(finding.status for finding in findings)
    names = [f"{counts[status]} {status}" for status in ("broken", "note", "ok") if counts[status]]
    return "\n".join([*lines, "", ", ".join(names)])
