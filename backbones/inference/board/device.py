"""What a device says of itself."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_BOARD_FILES = ("/proc/device-tree/model", "/sys/class/dmi/id/product_name")
_ANDROID = ("ro.product.manufacturer", "ro.product.model")
"""Properties of Android, which shows its programs neither of these files."""


def available_cores() -> int:
    """Cores that this process may use: fewer than the machine has in a cpuset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_facts(device: str = "cpu") -> dict[str, Any]:
    """What tells this device from others; ``backbones.inference.hardware.title`` words it.

    Args:
        device: ``cpu`` or ``cuda``.

    Returns:
        What is known of ``processor`` (what it calls itself), ``parts`` (Arm's implementer and part
        of every kind of core), ``board``, ``gpu``, and ``machine``, its instruction set.
    """
    facts: dict[str, Any] = {"machine": platform.machine()}
    if device == "cuda":
        facts["gpu"] = _answer("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if platform.system() == "Darwin":
        facts["processor"] = _answer("sysctl", "-n", "machdep.cpu.brand_string")
        facts["board"] = _answer("sysctl", "-n", "hw.model")
    elif platform.system() == "Windows":
        facts["processor"] = _windows_processor() or platform.processor()
    else:
        facts.update(_linux_facts())
    return {key: value for key, value in facts.items() if value}


def _linux_facts() -> dict[str, Any]:
    lines = [line.partition(":") for line in _text("/proc/cpuinfo").splitlines()]
    entries = [(name.strip(), value.strip()) for name, _, value in lines]
    first = dict(reversed(entries))
    if "CPU part" not in first and "model name" in first:
        return {"processor": first["model name"]}
    implementers = [value for name, value in entries if name == "CPU implementer"]
    numbers = [value for name, value in entries if name == "CPU part"]
    parts = {f"{implementer} {part}" for implementer, part in zip(implementers, numbers)}
    # what Arm has under "model name" is the version of its instruction set
    processor = "" if parts else first.get("uarch") or platform.processor()
    return {"processor": processor, "parts": sorted(parts), "board": _board()}


def _board() -> str:
    for path in _BOARD_FILES:
        found = _text(path).strip("\0\n ")
        if found:
            return found
    answers = [_answer("getprop", name) for name in _ANDROID]
    return " ".join(filter(None, answers))


def _windows_processor() -> str:
    if sys.platform != "win32":
        return ""
    import winreg

    place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
        return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _answer(*command: str) -> str:
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return next(iter(found.stdout.strip().splitlines()), "").strip()
