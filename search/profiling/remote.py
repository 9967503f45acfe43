"""Times a prepared folder on another machine: over ssh, or on an Android device over adb."""

from __future__ import annotations

import datetime
import logging
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backbones.errors import UserError
from backbones.files import read_json
from backbones.inference.board.measure import MEASUREMENTS, PLAN, plan_id
from backbones.inference.board.turns import (
    FEWEST,
    VISIT_MILLISECONDS,
    append_line,
    in_turns,
    read_visits,
)
from search.profiling.prepared import SCRIPT

logger = logging.getLogger(__name__)

ANDROID_FOLDER = "/data/local/tmp"
"""Where every Android device lets adb write and run programs."""

BENCHMARK = "benchmark_model"
"""LiteRT's program, by its name in ``ANDROID_FOLDER``."""

_UNREACHABLE = 255
"""ssh's own exit code; others are those of the command that it ran."""


def measure_over_ssh(folder: Path, host: str, python: str = "python3") -> None:
    """Copies a prepared folder to a host, runs its script there, and copies what it measured back.

    The host keeps the folder, so that an interrupted run goes on where it stopped.

    Args:
        folder: prepared.
        host: as ssh takes it, ``user@name`` or one of its configuration.
        python: that has the engine, on the host.

    Raises:
        UserError: if ssh or scp is missing, the host cannot be reached, or the script fails there.
    """
    place = f"spnas-measure-{plan_id(folder)[:12]}"
    _run(["ssh", host, f"mkdir -p {place}"], f"'{host}' cannot be reached")
    begun = _call(["ssh", host, f"test -s {place}/{MEASUREMENTS}"]).returncode == 0
    if not begun:
        logger.info("Copying '%s' to %s:%s", folder, host, place)
        files = [str(path) for path in sorted(folder.iterdir()) if path.is_file()]
        _run(["scp", "-q", *files, f"{host}:{place}/"], f"cannot copy to '{host}'")
    command = ["ssh", host, f"cd {place} && {shlex.quote(python)} {SCRIPT}"]
    logger.info("%s", shlex.join(command))
    _run(command, f"{SCRIPT} has failed on '{host}'", shown=True)
    source = f"{host}:{place}/{MEASUREMENTS}"
    _run(["scp", "-q", source, str(folder / MEASUREMENTS)], f"cannot copy from '{host}'")


def _call(command: Sequence[str], shown: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a program; ``shown`` leaves its output to the console."""
    try:
        return subprocess.run(
            command,
            stdout=None if shown else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise UserError(
            f"'{command[0]}' is not installed, or not on PATH; install it, or copy the prepared "
            f"folder by hand, run {SCRIPT} there, and copy {MEASUREMENTS} back"
        ) from None


def _run(command: Sequence[str], failure: str, shown: bool = False) -> str:
    """What a program prints.

    Raises:
        UserError: with ``failure``, and the last line of its errors, where it fails.
    """
    done = _call(command, shown)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout or "").splitlines()]
        said = next((line for line in reversed(lines) if line), f"exit code {done.returncode}")
        raise UserError(f"{failure}: {said.removeprefix('error: ')}")
    return done.stdout or ""


def measure_over_adb(folder: Path, serial: str = "", program: Path | None = None) -> None:
    """Times a folder prepared for LiteRT on an Android device, by LiteRT's ``benchmark_model``.

    Visits are made in the same turns as everywhere, each by one start of the program: an inference
    that warms up, then inferences for 30 ms, two at least. Their mean is taken where the program
    prints no median.

    Args:
        folder: prepared; ``measurements.jsonl`` is written into it, and gone on with.
        serial: of the device, as ``adb devices`` lists it; empty for the only one.
        program: ``benchmark_model`` for the device, to be copied there; None if it is there.

    Raises:
        UserError: if adb, the device or the program is missing, or the folder is not for
            LiteRT on a CPU.
    """
    plan = read_json(folder / PLAN, "plan")
    if plan["engine"] != "litert" or plan["device"] != "cpu":
        raise UserError(
            f"'{folder}' is prepared for {plan['engine']} on {plan['device']}; --adb runs LiteRT "
            "on the CPU: prepare with --engine litert"
        )
    adb = ["adb", "-s", serial or _only_device()]
    place = f"{ANDROID_FOLDER}/spnas-{plan_id(folder)[:12]}"
    path = folder / MEASUREMENTS
    if program:
        _run([*adb, "push", str(program), f"{ANDROID_FOLDER}/{BENCHMARK}"], "cannot copy by adb")
        _shell(adb, f"chmod 755 {ANDROID_FOLDER}/{BENCHMARK}", "cannot copy by adb")
    facts = _facts_over_adb(adb, folder, plan)
    known, made = read_visits(path)
    if known and any(known.get(name) != facts[name] for name in ("plan", "device", "threads")):
        raise UserError(f"'{path}' is of another device or plan; delete it to begin anew")
    if not made:
        _shell(adb, f"mkdir -p {place}", "cannot write to the device")
        models = [str(model) for model in sorted(folder.glob("*.model"))]
        _run([*adb, "push", *models, f"{place}/"], "cannot copy the models by adb")
    append_line(path, facts)
    done = {(key, round_) for key, round_, *_ in made}
    turns = in_turns(plan["models"], plan["reference"], plan["rounds"], plan["every"])
    left = [turn for turn in turns if turn[::-1] not in done]
    start = datetime.datetime.now()
    for round_, key in tqdm(left, "benchmark_model over adb", unit="visit"):
        command = benchmark_command(f"{place}/{key}.model", plan["threads"])
        text = _shell(adb, command, f"{BENCHMARK} has failed on '{key}'")
        append_line(path, [key, round_, benchmark_runtime(text)])
    minutes = (datetime.datetime.now() - start).total_seconds() / 60
    append_line(path, {"minutes": round(minutes, 1)})
    _shell(adb, f"rm -r {place}", "cannot remove the models from the device")


def _only_device() -> str:
    lines = _run(["adb", "devices"], "adb has failed").splitlines()[1:]
    found = [line.split("\t") for line in lines if "\t" in line]
    ready = [serial for serial, state in found if state.strip() == "device"]
    if len(ready) == 1:
        return ready[0]
    if ready:
        raise UserError(f"adb has {len(ready)} devices, {', '.join(ready)}; name one: --adb SERIAL")
    states = ", ".join(f"{serial} is {state.strip()}" for serial, state in found)
    raise UserError(
        f"adb has no device that is ready{f' ({states})' if states else ''}; connect one, switch "
        "USB debugging on, and allow this computer on its screen"
    )


def _facts_over_adb(adb: Sequence[str], folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """As ``board.measure`` writes them; Android's properties name the device."""
    there = f"test -x {ANDROID_FOLDER}/{BENCHMARK} && echo found || echo missing"
    if _shell(adb, there, "the device does not answer").strip() != "found":
        raise UserError(
            f"the device has no {ANDROID_FOLDER}/{BENCHMARK}; build or download LiteRT's "
            f"{BENCHMARK} for Android, and name it: --benchmark-model FILE"
        )
    names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model", "ro.build.version.sdk")
    maker, model, chip, level = (
        _shell(adb, f"getprop {name}", "the device does not answer").strip() for name in names
    )
    cores = _shell(adb, "nproc", "the device does not answer").strip()
    board = " ".join(part for part in (maker, model) if part)
    return {
        "plan": plan_id(folder),
        "device": {"board": board, "processor": chip or "unknown processor", "machine": "Android"},
        "versions": {BENCHMARK: "unknown", "android": level},
        "threads": plan["threads"],
        "cores": int(cores) if cores.isdigit() else plan["threads"],
        "date": datetime.date.today().isoformat(),
    }


def benchmark_command(model: str, threads: int) -> str:
    """The command that makes one visit on an Android device."""
    seconds = VISIT_MILLISECONDS / 1e3
    options = {
        "graph": model,
        "num_threads": threads,
        "use_xnnpack": "true",
        "warmup_runs": 1,
        "warmup_min_secs": 0,
        "num_runs": FEWEST,
        "min_secs": seconds,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    return " ".join([f"{ANDROID_FOLDER}/{BENCHMARK}", *words])


def benchmark_runtime(text: str) -> float:
    """Ms of one inference, by what ``benchmark_model`` prints in µs.

    Raises:
        UserError: if it is not there.
    """
    number = r"([\d.]+(?:e[+-]?\d+)?)"
    medians = re.findall(rf"\bmedian={number}", text)
    means = re.findall(rf"Inference \(avg\): {number}", text)
    if not means:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raise UserError(
            f"{BENCHMARK} printed no 'Inference (avg)' but '{lines[-1] if lines else ''}'; take "
            "one of LiteRT's own releases"
        )
    # one line of statistics for the warm-up, and one for what counts
    return float(medians[-1] if medians else means[-1]) / 1e3


def _shell(adb: Sequence[str], command: str, failure: str) -> str:
    done = _call([*adb, "shell", command])
    text = f"{done.stdout}\n{done.stderr}" if done.stderr else done.stdout
    if done.returncode:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raise UserError(f"{failure}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return text
