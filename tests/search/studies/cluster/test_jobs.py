"""Runs of a study as jobs: what they leave, what is said when one fails, and the next command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit

from backbones import UserError
from search.studies.cluster import jobs
from search.studies.cluster.jobs import Call, on_cluster
from search.studies.cluster.options import Cluster
from search.studies.trials import PendingTrial, run_trials
from search.studies.workers import Workers
from tests.search.studies.cluster.trial import processes, run, wait_for

ROOT = Path(__file__).resolve().parents[4]

PARENT = """
import sys
from functools import partial
from pathlib import Path
from search.studies.cluster.jobs import Call, on_cluster
from search.studies.cluster.options import Cluster
from tests.search.studies.cluster.trial import run
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    list(on_cluster([Call("waits", partial(run, folder, 0))], 1, Cluster("local", folder / "jobs")))
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find this project, wherever the tests are started."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def ask(folder: Path, *wanted: str) -> None:
    for name in wanted:
        (folder / name).touch()


def study(folder: Path, workers: Workers, trials: int) -> dict[str, Any]:
    pending: list[PendingTrial] = [
        ({"number": number}, partial(run, folder, number)) for number in range(trials)
    ]

    def summary(rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"sum": sum(row["score"] for row in rows)}]

    return run_trials(pending, folder / "study.json", {"recipe": "one"}, summary, workers)


@pytest.mark.slow
def test_a_study_whose_jobs_fail_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(2, Cluster("local", tmp_path / "jobs", {"cpus_per_task": 2}))
    ask(tmp_path, "0.kill", "1.fail", "2.mistake")
    with pytest.raises(UserError, match="3 of 4 jobs failed, as said above; .* same command"):
        study(tmp_path, workers, 4)
    kept = json.loads((tmp_path / "study.json").read_text())
    assert kept["trials"] == [{"number": 3, "score": 1.5, "threads": "2"}]
    assert kept["summary"] == [{"sum": 1.5}]
    said = sorted(r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    expected = (
        ("number 0: ended without a result; see '", "Starting with JobEnvironment"),
        ("number 1: ValueError: no such thing; see '", "at all"),
        ("number 2: SEED is 'x'; expected a number; see '", "Traceback"),
    )
    for line, (start, in_its_log) in zip(said, expected, strict=True):
        assert line.startswith(start)
        assert in_its_log in Path(line.removeprefix(start).removesuffix("'")).read_text()
    for name in ("0.kill", "1.fail", "2.mistake"):
        (tmp_path / name).unlink()
    found = study(tmp_path, workers, 4)
    assert sorted(row["score"] for row in found["trials"]) == [0, 0.5, 1, 1.5]
    assert [len(processes(tmp_path, number)) for number in range(4)] == [2, 2, 2, 1]
    assert json.loads((tmp_path / "jobs" / "jobs.json").read_text()) == {}


def test_jobs_of_this_machine_end_with_a_killed_command(tmp_path: Path) -> None:
    ask(tmp_path, "0.wait")
    (tmp_path / "parent.py").write_text(PARENT)
    command = [sys.executable, tmp_path / "parent.py", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        job = wait_for(tmp_path, 0)
        with pytest.raises(UserError, match=rf"process {parent.pid} on .* is waiting for the jobs"):
            list(on_cluster(calls(tmp_path, 0), 1, Cluster("local", tmp_path / "jobs")))
        parent.kill()
        parent.communicate()  # the pipe ends when its last holder, the job's controller, does
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


def calls(folder: Path, *numbers: int) -> list[Call]:
    return [Call(f"trial {number}", partial(run, folder, number)) for number in numbers]


def states(slurm: Path) -> list[Path]:
    return sorted(slurm.glob("*.state"))


def test_a_command_finds_the_jobs_of_the_one_before(
    tmp_path: Path, slurm: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"partition": "gpu", "gpus_per_node": 1, "timeout_min": 7, "cpus_per_task": 3}
    options |= {"mem_gb": 2.0, "setup": "export MARK=1", "reservation": "mine"}
    cluster = Cluster("slurm", tmp_path / "jobs", options)
    ask(tmp_path, "0.wait", "1.wait")
    first = on_cluster(calls(tmp_path, 0, 1, 2), 9, cluster)
    assert next(first) == (2, {"score": 1.0, "threads": "3"})
    first.close()
    assert "2 jobs go on: the same command waits for them, 'scancel " in caplog.text
    script = next(slurm.glob("*.sh")).read_text()
    for flag in ("partition=gpu", "gpus-per-node=1", "time=7", "cpus-per-task=3", "mem=2GB"):
        assert f"#SBATCH --{flag}\n" in script
    assert "#SBATCH --reservation=mine\n" in script and "\nexport MARK=1\n" in script
    # one comes to its end while no command is there, the other is under way for the next one
    first_done = wait_for(tmp_path, 0)
    (tmp_path / "0.wait").unlink()
    until_gone(first_done)
    wait_for(tmp_path, 1)
    second = on_cluster(calls(tmp_path, 0, 1), 9, cluster)
    assert next(second) == (0, {"score": 0.0, "threads": "3"})
    (tmp_path / "1.wait").unlink()
    assert list(second) == [(1, {"score": 0.5, "threads": "3"})]
    assert [len(processes(tmp_path, number)) for number in range(3)] == [1, 1, 1]
    assert len(states(slurm)) == 3
    # what was taken is made anew when it is asked for again
    assert dict(on_cluster(calls(tmp_path, 0), 9, cluster))[0]["score"] == 0
    assert len(processes(tmp_path, 0)) == 2


def between_looks(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """What happens while the command waits for its jobs."""

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        happens()

    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    monkeypatch.setattr(jobs, "time", clock)


def until_gone(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(process, 0)
            time.sleep(0.05)


@pytest.mark.parametrize("state", ["OUT_OF_MEMORY", "TIMEOUT", "PREEMPTED"])
def test_a_job_that_slurm_ended(
    tmp_path: Path,
    slurm: Path,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for patience in ("_VISIBLE_S", "_REQUEUED_S"):
        monkeypatch.setattr(jobs, patience, 0.0)
    ask(tmp_path, "0.wait")
    cluster = Cluster("slurm", tmp_path / "jobs")

    def end() -> None:
        if (found := processes(tmp_path, 0)) and "RUNNING" in states(slurm)[0].read_text():
            states(slurm)[0].write_text(state)
            os.kill(found[0], signal.SIGKILL)

    between_looks(monkeypatch, end)
    with pytest.raises(UserError, match="1 of 1 jobs failed"):
        list(on_cluster(calls(tmp_path, 0), 9, cluster))
    assert f"trial 0: ended without a result ({state}); see '" in caplog.text
    # it does not come back beside the one that the next command sends
    assert (slurm / "cancelled").read_text().split() == [states(slurm)[0].stem]


def test_a_preempted_job_that_is_started_again(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm takes it from its machine, where it fails, and has it in the queue again later."""
    ask(tmp_path, "0.wait")
    seen: list[str] = []

    def preempt() -> None:
        found = processes(tmp_path, 0)
        if found and not seen:
            seen.append("preempted")
            states(slurm)[0].write_text("PREEMPTED")
            os.kill(found[0], signal.SIGTERM)
            ask(tmp_path, "0.fail")
            (tmp_path / "0.wait").unlink()
            until_gone(found[0])
            (tmp_path / "0.fail").unlink()
        elif seen == ["preempted"] and known_state(slurm) == "PREEMPTED":
            seen.append("started again")
            states(slurm)[0].write_text("RUNNING")
            environment = {**os.environ, "SLURM_JOB_ID": states(slurm)[0].stem}
            script = states(slurm)[0].with_suffix(".sh")
            subprocess.run(["sh", script], env={**environment, "SLURM_PROCID": "0"}, check=True)

    between_looks(monkeypatch, preempt)
    cluster = Cluster("slurm", tmp_path / "jobs")
    assert dict(on_cluster(calls(tmp_path, 0), 9, cluster)) == {0: {"score": 0.0, "threads": "1"}}
    assert seen == ["preempted", "started again"]
    assert "--signal=USR1@90" in next(slurm.glob("*.sh")).read_text()


def known_state(slurm: Path) -> str:
    return str(submitit.SlurmJob.watcher.get_state(states(slurm)[0].stem))


def test_a_cluster_that_takes_no_job(tmp_path: Path, slurm: Path) -> None:
    (slurm / "full").touch()
    with pytest.raises(UserError) as refused:
        list(on_cluster(calls(tmp_path, 0), 9, Cluster("slurm", tmp_path / "jobs")))
    message = str(refused.value)
    assert message.startswith("slurm takes no job for trial 0: sbatch: error: invalid partition")
    assert message.endswith("check --cluster-options") and "\n" not in message
