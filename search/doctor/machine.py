"""The machine: disk, shared memory, cores and threads, and whether runs can be written here."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from search.doctor.finding import Finding

__all__ = ["machine_findings"]

GIB = 2**30
LEAST_DISK, ENOUGH_DISK = 1 * GIB, 10 * GIB
ENOUGH_SHARED = 1 * GIB
SHARED_MEMORY = Path("/dev/shm")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def machine_findings(threads: int | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What there is to say of the machine.

    Args:
        threads: that PyTorch would take; None where it does not work.
        environ: of the process.
    """
    yield writing()
    yield disk("disk space here", Path())
    yield disk("disk space for temporary files", Path(tempfile.gettempdir()))
    yield shared_memory()
    yield cores(threads, environ.get("OMP_NUM_THREADS", ""))


def writing() -> Finding:
    """Whether this process may make files in the present folder."""
    subject = "writing here"
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            return Finding("ok", subject, f"'{here}' can be written")
    except OSError as error:
        text = f"'{here}' cannot be written ({error.strerror or error}), and runs go below it"
        return Finding("broken", subject, text, "cd to a folder of yours, or OUTPUT_DIR FOLDER")


def disk(subject: str, folder: Path) -> Finding:
    """Room for runs; a checkpoint of a detector takes some hundred megabytes."""
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB free in '{folder.resolve()}'"
    if free >= ENOUGH_DISK:
        return Finding("ok", subject, text)
    least = ENOUGH_DISK // GIB
    fix = f"free {least} GiB or more there, or OUTPUT_DIR on another disk"
    if folder != Path():
        fix = f"export TMPDIR=FOLDER, one with {least} GiB or more"
    return Finding("broken" if free < LEAST_DISK else "note", subject, text, fix)


def shared_memory() -> Finding:
    """Room for the images that loader processes hand over; Docker gives 64 MB by default."""
    subject = "shared memory"
    if not SHARED_MEMORY.is_dir():
        return Finding("ok", subject, "not limited by this system")
    free = shutil.disk_usage(SHARED_MEMORY).free
    text = f"{free / GIB:.1f} GiB free in '{SHARED_MEMORY}'"
    if free >= ENOUGH_SHARED:
        return Finding("ok", subject, text)
    text += "; loader processes may be killed (SIGBUS)"
    fix = "docker run --shm-size=8g in a container; or DATALOADER.NUM_WORKERS 0 for every run"
    return Finding("note", subject, text, fix)


def cores(threads: int | None, named: str) -> Finding:
    """Threads against the cores that this process may use.

    Args:
        threads: that PyTorch would take, if it is known.
        named: what ``OMP_NUM_THREADS`` says; empty if it is not set.
    """
    subject = "cores and threads"
    allowed = allowed_cores()
    fix = f"export OMP_NUM_THREADS={allowed}"
    first = named.partition(",")[0].strip()
    if named and not (first.isdigit() and int(first)):
        text = f"OMP_NUM_THREADS is '{named}'; expected a number, here 1 to {allowed}"
        return Finding("note", subject, text, fix)
    taken = int(first) if first else threads
    text = f"{_count(allowed, 'core')} of {os.cpu_count() or 1} may be used"
    if taken is None:
        return Finding("ok", subject, text)
    text += f", and runs take {_count(taken, 'thread')}"
    text += " (OMP_NUM_THREADS)" if first else ""
    if taken > allowed:
        return Finding("note", subject, f"{text}: they wait for each other", fix)
    return Finding("ok", subject, text)


def allowed_cores() -> int:
    """Cores that this process may use, by its affinity and by the time that a container gives."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):  # none, or "max"
        return count


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
