"""All parts, each in a process of its own with a time limit; what is measured is kept at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.files import read_json, write_json
from detection.engine.preemption import listening
from detection.engine.provenance import provenance
from search.studies.benchmarks.costs import check_device, error_line
from search.studies.benchmarks.gpu import (
    checks,
    classifier_steps,
    detector_steps,
    full_size,
    latency,
    search_steps,
)
from search.studies.benchmarks.gpu.setting import Part, Setting

PARTS = {
    "a": Part("30 steps of every stage, stopped and resumed", 80, checks.measurements),
    "b": Part("a search step beside fixed networks'", 115, search_steps.measurements),
    "c": Part("the classifier's step beside timm's", 40, classifier_steps.measurements),
    "d": Part("Mask R-CNN's steps beside R50-FPN's", 65, detector_steps.measurements),
    "e": Part("a latency table, and a search on it", 80, latency.measurements),
    "f": Part("the full-size recipes' first steps", 100, full_size.measurements),
}
"""480 seconds together. What a part leaves of its time is for those after it."""

CPU_SECONDS = 20
"""How many times as long a part may take on a CPU."""


def gpu_report(setting: Setting, names: Sequence[str], output: Path) -> dict[str, Any]:
    """Runs parts and writes what is measured after each measurement.

    Parts that ``output`` has already and that are not named stay in it.

    Args:
        setting: of all parts.
        names: of ``PARTS``; empty takes all.
        output: JSON file.

    Returns:
        What the file then holds: ``parts``, by their letters, with the provenance, the time, an
        ``error`` (None without one) and the ``figures`` of each.

    Raises:
        UserError: for an unknown part, or without the device.
    """
    if unknown := sorted(set(names) - set(PARTS)):
        raise UserError(f"--only has '{unknown[0]}'; expected some of {' '.join(PARTS)}")
    known = replace(setting, only=()).precisions
    if strange := [name for name in setting.only if name not in known]:
        raise UserError(f"--precisions has '{strange[0]}'; expected some of {' '.join(known)}")
    device, tiny = setting.device, setting.tiny
    check_device(device)
    origin = provenance(device)
    kept = _parts_of(output) if output.exists() else {}
    report: dict[str, Any] = {**origin, "tiny": tiny, "parts": dict(kept)}
    setting.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic()
    with listening():
        for name in names or PARTS:
            part = PARTS[name]
            end += part.seconds * (1 if device == "cuda" else CPU_SECONDS)
            print(f"{name}: {part.title}", flush=True)
            entry = {**origin, "tiny": tiny, "title": part.title}
            report["parts"][name] = entry
            _run_part(name, setting, end, output, report)
            report["parts"] = dict(sorted(report["parts"].items()))
            write_json(output, report)
            print(part_lines(entry), flush=True)
    return report


def _parts_of(output: Path) -> Mapping[str, Any]:
    found = read_json(output, "report")
    if not (isinstance(found, dict) and isinstance(found.get("parts"), dict)):
        raise UserError(f"'{output}' is no report of this benchmark; name another --output")
    parts: dict[str, Any] = found["parts"]
    return parts


def _run_part(
    name: str, setting: Setting, end: float, output: Path, report: Mapping[str, Any]
) -> None:
    """Runs a part in a process and keeps its figures in the report, while they come in."""
    entry = report["parts"][name]
    path, log = setting.folder / f"{name}.json", setting.folder / f"{name}.log"
    path.unlink(missing_ok=True)
    words = [name, json.dumps(vars(setting), default=str), str(path)]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )
        try:
            seen = 0.0
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
                if path.exists() and path.stat().st_mtime > seen:
                    seen = path.stat().st_mtime
                    entry["figures"] = read_json(path, "figures of a part")
                    write_json(output, report)
        finally:
            late = process.poll() is None
            _end_group(process)
    entry["seconds"] = round(time.monotonic() - start, 1)
    entry["figures"] = read_json(path, "figures of a part") if path.exists() else {}
    entry["error"] = None
    if late:
        entry["error"] = f"stopped after {entry['seconds']:.0f} s, its time limit"
    elif process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        entry["error"] = f"exit code {process.returncode}: {(lines or [''])[-1][:300]}"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it has started; on Windows itself alone."""
    if hasattr(os, "killpg") and hasattr(signal, "SIGKILL"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def part_lines(entry: Mapping[str, Any]) -> str:
    """What a part found, a line for every figure."""
    lines = [f"   {line}" for line in _lines(entry.get("figures") or {})]
    if entry.get("error"):
        lines.append(f"   error: {entry['error']}")
    return "\n".join([*lines, f"   ({entry['seconds']:.0f} s)"])


def _lines(figures: Mapping[str, Any], title: str = "") -> list[str]:
    flat = {key: value for key, value in figures.items() if not isinstance(value, Mapping)}
    words = [f"{key} {_shown(value)}" for key, value in flat.items() if value is not None]
    lines = [f"{title}: {', '.join(words)}"] if words else []
    for key, value in figures.items():
        if isinstance(value, Mapping):
            lines += _lines(value, f"{title}, {key}" if title else key)
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measure_part(name: str, setting: Setting, path: Path) -> None:
    """Makes the measurements of a part, and writes all so far after each.

    Args:
        name: one of ``PARTS``.
        setting: of the benchmark.
        path: JSON file.
    """
    figures: dict[str, Any] = {}
    for title, measured in PARTS[name].measurements(setting):
        start = time.monotonic()
        try:
            figures[title] = dict(measured())
        except Exception as error:
            figures[title] = {"error": error_line(error)}
        figures[title]["measured_in"] = round(time.monotonic() - start, 1)
        write_json(path, figures)


if __name__ == "__main__":
    part, words, path = sys.argv[1:]
    chosen = json.loads(words)
    chosen.update(folder=Path(chosen["folder"]), only=tuple(chosen["only"]))
    measure_part(part, Setting(**chosen), Path(path))
