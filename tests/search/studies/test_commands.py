"""Stages run as commands: in turns, side by side, and what is said when one fails."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backbones import UserError, load_architecture
from search.command_line import registry
from search.studies.cluster.options import Cluster
from search.studies.commands import (
    Command,
    check_folders,
    command_threads,
    machine_shares,
    run_beside,
    run_in_order,
    run_quietly,
)
from search.studies.workers import Workers

TOOL = """
import json, os, signal, sys, time
from pathlib import Path

values = dict(zip(sys.argv[4::2], sys.argv[5::2]))
folder = Path(values["OUTPUT_DIR"])
folder.mkdir(parents=True)
if "FAIL" in values:
    print("doing it")
    sys.exit("error: no table 'nine'")
for _ in range(600 if "WAIT" in values else 0):
    if Path(values["WAIT"]).exists():
        break
    time.sleep(0.05)
else:
    if "WAIT" in values:
        sys.exit("nobody beside me")
if "SAVE" in values:
    signal.signal(signal.SIGTERM, lambda *_: (folder.joinpath("saved").touch(), sys.exit(143)))
    folder.joinpath("ready").touch()
    signal.pause()
wandb = {key: value for key, value in os.environ.items() if key.startswith("WANDB_")}
(folder / "wandb.json").write_text(json.dumps(wandb))
keys = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
(folder / "results.json").write_text(json.dumps([os.environ[key] for key in keys]))
"""


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one tool, two GPUs and four cores."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "tool.py").write_text(TOOL)
    monkeypatch.setattr(registry, "tools_folder", lambda: tmp_path / "tools")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    return tmp_path


def command(name: str, *options: str) -> Command:
    return Command("tool.py", "c.yaml", Path("out", name), options)


def test_shares_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = machine_shares(3)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4", "6", ""]
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"1"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in machine_shares(2)] == ["0,2", "1,3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert machine_shares(1)[0]["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(
    ("given", "workers", "expected"),
    [("", 2, 4), ("", 3, 2), ("", 9, 1), ("3", 2, 3), ("3,2", 2, 3), ("many", 2, 4)],
)
def test_threads_of_commands_beside_each_other(
    monkeypatch: pytest.MonkeyPatch, given: str, workers: int, expected: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert command_threads(workers) == expected
    assert {share["OMP_NUM_THREADS"] for share in machine_shares(workers)} == {str(expected)}


def test_jobs_run_at_once_with_a_share_each() -> None:
    """Each of the two waits for the folder that the other makes."""
    jobs = [[command("a", "WAIT", "out/b")], [command("b", "WAIT", "out/a"), command("c")]]
    assert sorted(run_beside(jobs, Workers(2))) == [0, 1]
    a, b, c = (json.loads(Path("out", name, "results.json").read_text()) for name in "abc")
    assert sorted([a, b]) == [["2", "4"], ["2", "6"]]
    assert c == b


def test_a_failed_command_says_why_and_those_beside_it_end() -> None:
    jobs = [
        [command("a", "WAIT", "out/b")],
        [command("b", "WAIT", "out/a"), command("c", "FAIL", "1"), command("d")],
    ]
    with pytest.raises(UserError, match=r"'out/c' ended with exit code 1: no table 'nine' \(all"):
        list(run_beside(jobs, Workers(2)))
    assert Path("out/a/results.json").exists()
    assert not Path("out/d").exists()
    assert "doing it" in Path("out/c.log").read_text()


def test_commands_in_turns(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with pytest.raises(UserError, match="command 2 of 3 ended with exit code 1"):
        run_in_order([command("a"), command("b", "FAIL", "1"), command("c")], ["A", "B", "C"])
    assert json.loads(Path("out/a/results.json").read_text())[0] == "3"
    assert not Path("out/c").exists()
    out, err = capfd.readouterr()
    assert "[2/3] B\n$ python tools/tool.py --config-file c.yaml --resume OUTPUT_DIR out/b" in out
    assert "no table 'nine'" in err


def test_every_command_is_a_wandb_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RUN_ID", "abc"), ("NAME", "mine"), ("PROJECT", "ours")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    commands = [replace(command(name), study=Path("out")) for name in ("a/seed0", "b/seed0")]
    run_in_order(commands[:1], ["A"])
    list(run_beside([commands[1:]], Workers(1)))
    for run, name in zip(commands, ("a/seed0", "b/seed0"), strict=True):
        own = json.loads((run.folder / "wandb.json").read_text())
        own.pop("WANDB_MODE", None)
        assert own == {"WANDB_NAME": name, "WANDB_RUN_GROUP": "mine", "WANDB_PROJECT": "ours"}


def leave_run(run: Command, *options: str) -> None:
    """What a run of the command leaves, as far as a second one looks at it."""
    run.folder.mkdir(parents=True)
    other = replace(run, options=(*run.options, *options))
    (run.folder / "config.yaml").write_text(other.config().dump())
    (run.folder / "last_checkpoint").touch()


@pytest.mark.parametrize(
    ("script", "config", "key", "shown"),
    [
        ("search_net.py", "search/digits.yaml", "SEARCH.TARGET", "SEARCH.TARGET is 9.5, not 80.0"),
        (
            "train_classifier.py",
            "classification/digits.yaml",
            "CLASSIFICATION.EPOCHS",
            "CLASSIFICATION.EPOCHS is 9.5, not ",
        ),
        (
            "train_net.py",
            "detection/mask_rcnn_spnas_fpn_digits.yaml",
            "SOLVER.BASE_LR",
            "SOLVER.BASE_LR is 9.5, not ",
        ),
    ],
)
def test_folders_of_other_commands_are_refused(
    script: str, config: str, key: str, shown: str
) -> None:
    same = Command(script, config, Path("out/same"), ("SEED", "3"), ("--num-gpus", "0"))
    other = replace(same, folder=Path("out/other"))
    check_folders([same, other])
    leave_run(same)
    check_folders([same, other])
    leave_run(other, key, "9.5")
    with pytest.raises(UserError, match=f"'out/other' holds .*{shown}.*--output"):
        check_folders([same, other])


def test_a_classifier_of_a_network_that_was_searched_anew() -> None:
    """The path is the same, and what it names is another network."""
    network = load_architecture("mnasnet_b1")
    network.save("found.json")
    options = ("MODEL.SPNAS.ARCH", "found.json")
    run = Command("train_classifier.py", "classification/digits.yaml", Path("out/c"), options)
    leave_run(run)
    network.save(run.folder / "architecture.json")
    check_folders([run])
    network.scaled(0.5).save("found.json")
    with pytest.raises(UserError, match=r"'out/c/architecture.json' is of another run"):
        check_folders([run])


def test_threads_of_a_command_are_its_own() -> None:
    jobs = [[replace(command("two"), threads=2)], [command("share")]]
    assert sorted(run_beside(jobs, Workers(1))) == [0, 1]
    threads = [json.loads(job[0].folder.joinpath("results.json").read_text())[0] for job in jobs]
    assert threads == ["2", "4"]


@pytest.mark.slow
def test_commands_as_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job's commands run in order, with the threads of the job; a failure stops no other job."""
    root = Path(__file__).resolve().parents[3]
    (tmp_path / "sitecustomize.py").write_text(  # a job knows this test's checkout as well
        "from pathlib import Path\nfrom search.command_line import registry\n"
        f"registry.tools_folder = lambda: Path({str(tmp_path / 'tools')!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(root)]))
    jobs = [[command("a"), command("b", "FAIL", "1"), command("c")], [command("d")]]
    workers = Workers(2, Cluster("local", tmp_path / "jobs", {"cpus_per_task": 2}))
    done = run_beside(jobs, workers)
    assert next(done) == 1
    with pytest.raises(UserError, match="1 of 2 jobs failed"):
        next(done)
    assert "out/c: 'out/b' ended with exit code 1: no table 'nine' (all of it in" in caplog.text
    for name in "ad":
        assert json.loads(Path("out", name, "results.json").read_text())[0] == "2"
    assert not Path("out/c").exists()


class Left(BaseException):
    """What ends a job from outside."""


def test_a_job_that_ends_lets_its_command_leave_a_checkpoint() -> None:
    """As submitit's handler does before the end of a job's time: it raises an exception."""

    def leave(*_: object) -> None:
        raise Left

    def signal_when_ready() -> None:
        while not Path("out/a/ready").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, leave)
    thread = threading.Thread(target=signal_when_ready)
    thread.start()
    try:
        with pytest.raises(Left):
            run_quietly([command("a", "SAVE", "1"), command("b")])
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)
    assert Path("out/a/saved").exists()
    assert not Path("out/b").exists()
