"""Every stage is a command that its tool understands, and hands its files to the next."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from search.auto.plan import Plan
from search.auto.stages import Job, jobs, measured_networks, rows_of
from tests.search.auto.stand_ins import LITE0, small_plan, the_baseline

ROOT = Path(__file__).resolve().parents[3]
TARGETS = (15.0, 12.5)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """With a baseline, so that all commands are known."""
    plan = small_plan(tmp_path / "photos", tmp_path / "auto", *TARGETS, profiles=False)
    return replace(plan, baseline=the_baseline())


def options(job: Job) -> dict[str, str]:
    """The configuration's keys of a command."""
    assert job.command
    return dict(zip(job.command.options[::2], job.command.options[1::2], strict=True))


def test_tools_understand_all_commands(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    plan = replace(plan, work=replace(plan.work, profiles=True))
    plan = replace(plan, table=str(ROOT / "configs" / "latency" / f"{plan.table}.json"))
    for job in jobs(plan, tmp_path / "auto"):
        tool, *words = job.words
        monkeypatch.setattr("sys.argv", [tool, *words])
        args = runpy.run_path(str(ROOT / tool))["parse"]()
        if job.command:
            assert args.resume
            assert str(tmp_path / "auto" / job.name) == job.command.config().OUTPUT_DIR
        elif job.kind == "export":
            assert (args.kind, args.model) == ("detector", str(tmp_path / "auto" / job.model))
        else:
            assert (args.task, args.input_size, args.fpn_channels) == ("detection", "320x320", 64)


def test_files_are_handed_on(plan: Plan, tmp_path: Path) -> None:
    output = tmp_path / "auto"
    by_name = {job.name: job for job in jobs(plan, output)}
    search = options(by_name["search"])
    assert search["MODEL.WEIGHTS"] == str(output / "start" / "model_final.pth")
    assert (search["SEARCH.TARGET"], search["SEARCH.FAMILY"]) == ("15", "[12.5]")
    for name, folder in (("found_15ms", "search"), ("found_12.5ms", "search/family/12.5")):
        keys = options(by_name[name])
        assert keys["MODEL.SPNAS.ARCH"] == str(output / folder / "architecture.json")
        assert keys["MODEL.WEIGHTS"] == str(output / folder / "detector.pth")
        assert by_name[f"export/onnx/{name.removeprefix('found_')}"].model == name
    assert options(by_name["baseline"])["MODEL.SPNAS.ARCH"] == LITE0


def test_the_baseline_has_as_many_steps_as_a_network_found_in_all(
    plan: Plan, tmp_path: Path
) -> None:
    plan = replace(plan, schedule=replace(plan.schedule, epochs={
        "start": 12.0, "adapt": 2.0, "tune": 12.0, "baseline": 26.0}))  # fmt: skip
    steps = {
        job.name: job.command.config().SOLVER.MAX_ITER
        for job in jobs(plan, tmp_path / "auto")
        if job.command
    }
    found = steps["start"] + steps["search"] + steps["found_15ms"]
    assert abs(steps["baseline"] - found) <= 2  # each is rounded by itself


def test_networks_are_measured_in_the_order_of_the_rows(plan: Plan, tmp_path: Path) -> None:
    rows = rows_of(plan)
    networks = measured_networks(plan, tmp_path)
    assert [role for _, role, _ in rows] == ["found", "found", "start", "baseline"]
    assert networks[:2] == [
        str(tmp_path / "search" / "architecture.json"),
        str(tmp_path / "search" / "family" / "12.5" / "architecture.json"),
    ]
    assert networks[2:] == [LITE0, LITE0]
    narrow = replace(the_baseline(), width_mult=0.5)
    other = measured_networks(replace(plan, baseline=narrow), tmp_path)
    assert other[3] == str(tmp_path / "baseline_network" / "architecture.json")


def test_every_format_has_a_folder_of_its_own(plan: Plan, tmp_path: Path) -> None:
    """Their contracts would have one name."""
    plan = replace(plan, request=replace(plan.request, formats=("onnx", "litert", "torch")))
    files = [job.file for job in jobs(plan, tmp_path) if job.kind == "export"]
    assert [file.relative_to(tmp_path).as_posix() for file in files if file] == [
        *("export/onnx/15ms.onnx", "export/litert/15ms.tflite", "export/torch/15ms.pt2"),
        *("export/onnx/12.5ms.onnx", "export/litert/12.5ms.tflite", "export/torch/12.5ms.pt2"),
    ]
