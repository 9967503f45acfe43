"""A Slurm of shell scripts: as far as submitit speaks with one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SBATCH = """#!/bin/sh
for word; do script=$word; done
if [ -e "$SLURM_FAKE/full" ]; then
    echo "sbatch: error: invalid partition specified: none" >&2
    exit 1
fi
id=$$
cp "$script" "$SLURM_FAKE/$id.sh"
echo RUNNING > "$SLURM_FAKE/$id.state"
(
    SLURM_JOB_ID=$id SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 \\
        sh "$SLURM_FAKE/$id.sh" > /dev/null 2>&1 &
    echo $! > "$SLURM_FAKE/$id.pid"
    if wait $!; then end=COMPLETED; else end=FAILED; fi
    if grep -q RUNNING "$SLURM_FAKE/$id.state"; then echo $end > "$SLURM_FAKE/$id.state"; fi
) > /dev/null 2>&1 &
echo "Submitted batch job $id"
"""

SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do
    if [ "$1" = --output ]; then log=$2; shift; fi
    shift
done
log=$(echo "$log" | sed "s/%j/$SLURM_JOB_ID/; s/%t/0/")
exec "$@" >> "$log" 2>&1
"""

SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
for file in "$SLURM_FAKE"/*.state; do
    [ -e "$file" ] && echo "$(basename "$file" .state)|$(cat "$file")|here"
done
exit 0
"""


SCANCEL = """#!/bin/sh
echo "$1" >> "$SLURM_FAKE/cancelled"
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On the PATH; the folder has a script, a state and a process of every job."""
    programs, folder = tmp_path / "bin", tmp_path / "slurm"
    for made in (programs, folder):
        made.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", SCANCEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_FAKE", str(folder))
    monkeypatch.delenv("SUBMITIT_PREEMPT_SIGNAL", raising=False)
    return folder
