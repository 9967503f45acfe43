"""Makes the visits of a folder that ``tools/profile_latency.py --prepare`` has filled."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .device import available_cores, device_facts
from .models import CannotMeasureError, check_provider, engine_versions, load_model
from .turns import append_line, in_turns, read_visits, visit_and_share

PLAN, MEASUREMENTS = "plan.json", "measurements.jsonl"
SECONDS_BETWEEN_REPORTS = 30.0
_SAME = ("plan", "device", "versions", "threads")
"""Facts that all visits of a folder share."""


def main() -> None:
    """What ``python3 measure.py`` does."""
    parser = argparse.ArgumentParser(
        prog="measure.py",
        description="Times the models of this folder in turns, as plan.json says, and writes "
        f"{MEASUREMENTS}. An interrupted run goes on where it stopped. Nothing else should run on "
        "the device meanwhile.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(sys.argv[0]).resolve().parent,
        help="prepared folder (default: where this script lies)",
    )
    try:
        measure(parser.parse_args().folder)
    except CannotMeasureError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def measure(folder: Path) -> None:
    """Makes the visits that are left.

    Raises:
        CannotMeasureError: if the folder is not complete, the engine is missing or does not take a
            model, or visits of another device, version or plan are there already.
    """
    plan = _plan(folder)
    if plan["engine"] == "onnxruntime":
        engine_versions(plan["engine"])
        check_provider(plan["device"])
    path = folder / MEASUREMENTS
    facts = facts_here(folder, plan)
    known, made = read_visits(path)
    _check_same(path, known, facts)
    if facts["threads"] > facts["cores"] and plan["device"] == "cpu":
        print(f"warning: {facts['threads']} threads on {facts['cores']} cores", file=sys.stderr)
    done = {(key, round_) for key, round_, *_ in made}
    turns = list(in_turns(plan["models"], plan["reference"], plan["rounds"], plan["every"]))
    left = [turn for turn in turns if turn[::-1] not in done]
    append_line(path, facts)
    start = reported = time.monotonic()
    for count, (round_, key) in enumerate(left, 1):
        file = folder / f"{key}.model"
        session = load_model(plan["engine"], file, plan["threads"], plan["device"])
        append_line(path, [key, round_, *visit_and_share(session, plan["device"])])
        del session
        now = time.monotonic()
        if now - reported > SECONDS_BETWEEN_REPORTS or count == len(left):
            reported = now
            minutes = (now - start) / count * (len(left) - count) / 60
            made_now = len(turns) - len(left) + count
            print(f"{made_now} of {len(turns)} visits, {minutes:.0f} min left", flush=True)
    append_line(path, {"minutes": round((time.monotonic() - start) / 60, 1)})


def _plan(folder: Path) -> dict[str, Any]:
    try:
        plan: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        wanted = [*plan["models"], plan["reference"]]
    except (OSError, ValueError, KeyError) as error:
        raise CannotMeasureError(
            f"no plan can be read in '{folder}' ({error}); copy the prepared folder whole"
        ) from None
    missing = [key for key in wanted if not (folder / f"{key}.model").is_file()]
    if missing:
        raise CannotMeasureError(
            f"'{folder}' lacks {len(missing)} of {len(wanted)} models, such as "
            f"'{missing[0]}.model'; copy the prepared folder whole"
        )
    return plan


def facts_here(folder: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the figures depend on beside the models."""
    return {
        "plan": plan_id(folder),
        "device": device_facts(plan["device"]),
        "versions": engine_versions(plan["engine"]),
        "threads": plan["threads"],
        "cores": available_cores(),
        "date": datetime.date.today().isoformat(),
    }


def plan_id(folder: Path) -> str:
    """Tells the plan of a folder from others."""
    return hashlib.sha256((folder / PLAN).read_bytes()).hexdigest()


def _check_same(path: Path, known: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    other = [name for name in _SAME if known and known.get(name) != facts[name]]
    if other:
        raise CannotMeasureError(
            f"'{path}' was begun with another {other[0]} ({known.get(other[0])}; here "
            f"{facts[other[0]]}); finish it as it was begun, or delete it to begin anew"
        )
