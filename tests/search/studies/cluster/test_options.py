"""Where jobs can go and what they can ask for, and what is said to a command that is mistaken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backbones import UserError
from search.studies.arguments import add_workers, study_parser
from search.studies.cluster.options import OPTIONS, submitit_parameters
from search.studies.workers import HERE, Workers, workers_of


def workers(output: Path, *arguments: str, default: int = 1) -> Workers:
    parser = study_parser("")
    add_workers(parser, "runs at a time")
    return workers_of(parser.parse_args(arguments), output, default)


def test_on_this_machine(tmp_path: Path) -> None:
    assert workers(tmp_path) == HERE and HERE.here
    assert workers(tmp_path, default=4) == workers(tmp_path, "--workers", "4") == Workers(4)
    assert not Workers(4).here


def test_on_a_cluster(tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--cluster-options", "partition=gpu", "cpus_per_task=4", "gres=gpu:a100:1")
    found = workers(tmp_path / "study.json", "--cluster", "slurm", *options)
    assert found.count > 1000 and not found.here
    assert found.cluster is not None and found.cluster.folder == tmp_path / "study_jobs"
    shown = "jobs of slurm (partition=gpu cpus_per_task=4 gres=gpu:a100:1)"
    assert found.facts()["hardware"] == shown
    assert submitit_parameters(found.cluster) == {
        "name": "spnas",
        "stderr_to_stdout": True,
        "slurm_additional_parameters": {"signal": "USR1@90"},
        "timeout_min": 1440,
        "cpus_per_task": 4,
        "slurm_partition": "gpu",
        "slurm_gres": "gpu:a100:1",
    }
    assert workers(tmp_path, "--cluster", "slurm", "--workers", "1").count == 1
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    found = workers(tmp_path, "--cluster", "local")
    assert found.count == 6
    assert str(found.facts()["hardware"]).endswith(", 6 processes of 1 thread")


def test_options_are_submitits() -> None:
    from submitit import AutoExecutor, SlurmExecutor

    generic = AutoExecutor._typed_parameters()
    assert {*OPTIONS["local"]} < {*generic}
    known = {*generic, *SlurmExecutor._valid_parameters()}
    assert {*OPTIONS["slurm"]} - known == {"reservation"}  # that one is sbatch's alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--workers 0", "--workers is 0; expected 1 or more"),
        ("--cluster pbs", "--cluster is 'pbs'; expected slurm or local"),
        ("--cluster-options partition=a", "'partition', but no cluster is named; add --cluster"),
        ("--cluster local --cluster-options SEED", "has 'SEED'; expected a name and a value"),
        (
            "--cluster local --cluster-options partition=a",
            "has 'partition', which jobs of local do not have; expected some of timeout_min, cpus",
        ),
        ("--cluster slurm --cluster-options nodes=2", "has 'nodes', which jobs of slurm do not"),
        (
            "--cluster local --cluster-options timeout_min=1h",
            "has timeout_min=1h; expected an integer of 1 or more",
        ),
        ("--cluster local --cluster-options cpus_per_task=0", "cpus_per_task=0; expected an int"),
        ("--cluster slurm --cluster-options mem_gb=nan", "mem_gb=nan; expected a number of 1"),
        ("--cluster slurm", "is slurm, but this machine has no 'sbatch'; start it on a machine"),
    ],
)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as mistake:
        workers(tmp_path, *arguments.split())
    assert message in str(mistake.value) and "\n" not in str(mistake.value)


def test_without_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'submitit' is not installed; .*install 'submitit>=1.5'"):
        workers(tmp_path, "--cluster", "local")
    assert workers(tmp_path, "--workers", str(os.cpu_count())).cluster is None
