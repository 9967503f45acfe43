"""Stages run once each, in order, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backbones import UserError
from search.auto import run as module
from search.auto.outcome import Outcome
from search.auto.plan import Plan
from search.auto.run import known_plan, run_stages
from search.auto.running import Times, locked, seconds_left
from search.auto.stages import jobs
from search.command_line import registry
from tests.search.auto.stand_ins import (
    small_facts,
    small_plan,
    the_baseline,
    write_tools,
)

STAGES = (
    "latency_onnxruntime_320.json",
    "start",
    "search",
    "found_15ms",
    "baseline",
    "export/onnx/15ms.onnx",
    "measured.json",
)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A planned run whose tools are stand-ins."""
    monkeypatch.setattr(registry, "tools_folder", lambda: tmp_path / "tools")
    monkeypatch.setattr(module, "choose_baseline", the_baseline)
    monkeypatch.chdir(tmp_path)
    output = Path("output")
    plan = small_plan(tmp_path / "photos", output)
    write_tools(tmp_path, plan, output)
    output.mkdir()
    plan.save(output)
    small_facts().save(output)
    return output


def calls() -> list[list[str]]:
    return [json.loads(line) for line in Path("tools/calls.jsonl").read_text().splitlines()]


def targets() -> list[str]:
    """What each call was for, below the folder of the whole."""
    found = []
    for _, *words in calls():
        at = words.index("OUTPUT_DIR" if "OUTPUT_DIR" in words else "--output")
        found.append(words[at + 1].removeprefix("output/"))
    return found


def run_all(output: Path) -> str:
    """As ``spnas auto`` does when the folder has a plan."""
    plan = Plan.load(output)
    assert plan is not None
    with locked(output) as lock:
        return run_stages(plan, output, lock)


def in_a_process(run: Callable[[], Any]) -> int:
    """Runs something in a copy of this process; what ended it, as ``os.waitstatus`` has it."""
    process = os.fork()
    if not process:
        try:
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def test_stages_run_in_order_and_once(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_all(output) == ""
    assert targets() == list(STAGES)
    said = capfd.readouterr().out
    for number in range(1, len(STAGES) + 1):
        assert f"[{number}/{len(STAGES)}] " in said
    assert "$ python tools/search_net.py --config-file configs/search/mask_rcnn_pret" in said
    assert "left in all" in said
    assert run_all(output) == ""
    assert targets() == list(STAGES)  # nothing is done again


@pytest.mark.parametrize("both", [True, False], ids=["with its stage", "alone"])
def test_killed_in_every_stage(output: Path, both: bool) -> None:
    """Where the stage lives on, its work is waited for, and not done twice."""
    for stage in STAGES:
        Path("tools/kill.json").write_text(json.dumps([f"output/{stage}", both]))
        assert in_a_process(lambda: run_all(output)) == -signal.SIGKILL
    assert in_a_process(lambda: run_all(output)) == 0
    repeats = 2 if both else 1
    assert targets() == [stage for stage in STAGES for _ in range(repeats)]
    first = {tuple(words) for words in calls()}
    assert len(first) == len(STAGES)  # each time by the same command
    for job in jobs(Plan.load(output), output):  # type: ignore[arg-type]
        assert job.done()


def test_decisions_are_kept(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The baseline is chosen once."""
    run_all(output)
    monkeypatch.setattr(module, "choose_baseline", lambda *_: pytest.fail("chosen again"))
    (output / "baseline" / "results.json").unlink()
    run_all(output)
    plan = Plan.load(output)
    assert plan is not None
    assert plan.baseline == the_baseline()
    assert targets()[-1] == "baseline"


def test_a_stage_that_fails_ends_the_whole(output: Path) -> None:
    Path("tools/train_net.py").write_text("raise SystemExit(2)")
    with pytest.raises(UserError, match="stage 2 of 7 ended with exit code 2"):
        run_all(output)
    assert targets() == list(STAGES[:1])


def test_an_export_that_fails_is_told_at_the_end(output: Path) -> None:
    Path("tools/export_model.py").write_text("raise SystemExit(2)")
    assert "stage 6 of 7 ended with exit code 2" in run_all(output)
    assert targets() == [stage for stage in STAGES if not stage.startswith("export")]


def test_a_target_out_of_reach_is_told_after_the_profile(output: Path) -> None:
    """Before anything is trained; the table stays, and another target takes it."""
    plan = Plan.load(output)
    assert plan is not None
    content = json.loads((output / "plan.json").read_text())
    content["request"]["targets"] = [1.0]
    (output / "plan.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"--target is 1 ms, but the smallest .* \(kept as 'output"):
        run_all(output)
    assert targets() == list(STAGES[:1])
    assert known_plan(plan.request, output) is None  # a new plan may be made there


def test_another_command_on_the_same_folder(output: Path) -> None:
    plan = Plan.load(output)
    assert plan is not None
    assert known_plan(plan.request, output) == plan
    run_all(output)
    other = small_plan(Path("more"), output, 10.0, 15.0).request
    with pytest.raises(UserError, match=r"--data was .*photos, not more.*--target was 15, not 10"):
        known_plan(other, output)


def test_what_is_left_follows_what_stages_took(output: Path) -> None:
    plan = Plan.load(output)
    assert plan is not None
    stages, times = jobs(plan, output), Times(output)
    whole = sum(plan.schedule.seconds[job.kind] for job in stages)
    whole += plan.schedule.seconds["report"]
    assert seconds_left(plan, stages, times) == pytest.approx(whole)
    run_all(output)
    stages = jobs(Plan.load(output), output)  # type: ignore[arg-type]
    for job in stages:
        times.set(job.name, 2 * plan.schedule.seconds[job.kind])
    assert seconds_left(plan, stages, times) == plan.schedule.seconds["report"]
    (output / "baseline" / "results.json").unlink()
    times.set("baseline", 0.0)
    left = seconds_left(plan, stages, times) - plan.schedule.seconds["report"]
    assert left == pytest.approx(2 * plan.schedule.seconds["baseline"], rel=1e-3)


def test_a_whole_run_is_on_one_page(
    output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = Plan.load(output)
    assert plan is not None
    module.run_auto(plan.request, output)
    outcome = Outcome.load(output)
    assert [row.role for row in outcome.rows] == ["found", "start", "baseline"]
    (found, *_) = outcome.rows
    assert found.off_target == pytest.approx(100 * (14.95 / 15 - 1))
    assert [row.measured for row in outcome.rows] == [10.0, 11.0, 12.0]
    assert [file.file for file in found.exports] == ["export/onnx/15ms.onnx"]
    assert all(stage.seconds is not None for stage in outcome.stages[1:])
    assert all(stage.command.startswith("python tools/") for stage in outcome.stages)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "found_15ms" in page
    said = capfd.readouterr().out
    assert "the published network nearest to 15 ms" in said
    assert "-0.3" in said
    assert "odd: one is odd" in said
