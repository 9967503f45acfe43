"""What the study of the demo's repetitions runs, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backbones import UserError
from search.studies.commands import Command
from search.studies.demo_repeats import Repeat, demo_repeats, demo_repeats_section, repeats
from search.studies.workers import Workers
from tests.search.auto.stand_ins import small_plan


@pytest.fixture(autouse=True)
def planned(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the miniature, in place of the digits."""
    folder = tmp_path_factory.mktemp("plan")
    plan = small_plan(folder / "photos", folder, profiles=False)
    monkeypatch.setattr("search.studies.demo.demo_plan", lambda: plan)
    monkeypatch.setattr("search.studies.demo.DEMO", plan.request)


ROOT = Path(__file__).resolve().parents[3]
LAYERS = {(0, 1): "a b c d", (0, 2): "a b c d", (1, 1): "a b x y", (1, 2): "a b x d"}


def write_results(repeat: Repeat, folder: Path, layers: str, box: float) -> None:
    """As the stages of a finished demo leave them."""

    def scored(box: float) -> dict[str, Any]:
        return {"scores": {"digits_val": {"bbox": {"AP": box}, "segm": {"AP": box - 1}}}}

    found = {"layers": layers.split(), "predicted_runtime": 79.5, "unit": "ms"}
    parts: list[dict[str, Any]] = [
        {"detection": scored(90.0)},
        {"search": found, "detection": scored(1.0)},
        {"detection": scored(box)},
    ]
    for command, part in zip(repeat.commands(folder), parts, strict=False):
        command.folder.mkdir(parents=True)
        (command.folder / "results.json").write_text(json.dumps(part))
        (command.folder / "config.yaml").write_text(command.config().dump())


def test_seeds_threads_and_layout_are_those_asked_for(tmp_path: Path) -> None:
    wanted = repeats(2, [1, 2])
    assert [(r.seed, r.threads, r.by_channel, r.whole) for r in wanted] == [
        (0, 1, False, True),
        (1, 1, False, True),
        (0, 2, False, False),
        (1, 2, False, False),
        (0, 1, True, False),
        (1, 1, True, False),
    ]
    assert len({repeat.name for repeat in wanted}) == 6
    for repeat in wanted:
        commands = repeat.commands(tmp_path)
        assert len(commands) == (3 if repeat.whole else 2)
        for command in commands:
            cfg = command.config()
            assert repeat.seed == cfg.SEED
            assert cfg.MODEL.SPNAS.CHANNELS_LAST is not repeat.by_channel
            assert command.threads == repeat.threads


def test_what_is_finished_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for repeat in repeats(2, [1, 2]):
        layers = LAYERS[repeat.seed, repeat.threads]
        write_results(repeat, tmp_path, layers, 48.0 + repeat.seed)

    def run_beside(jobs: list[list[Command]], workers: Workers) -> list[int]:
        assert jobs == []
        return []

    monkeypatch.setattr("search.studies.demo_repeats.run_beside", run_beside)
    study = demo_repeats(2, [1, 2], tmp_path, Workers(1))
    lines = demo_repeats_section(study).splitlines()  # type: ignore[arg-type]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # the mean of 48 and 49, its deviation with n - 1, and both
    assert ["box AP", "48.50 ± 0.71", "48.00", "49.00"] in cells
    assert ["mask AP", "47.50 ± 0.71", "47.00", "48.00"] in cells
    # one network is the same with one thread and two, the other differs in the last layer
    assert ["the number of threads", "2", "1", "3.5 of 4", "3 of 4"] in cells
    assert ["the layout in memory", "2", "2", "4.0 of 4", "4 of 4"] in cells
    # seeds 0 and 1: two layers apart on one thread (twice) and one apart on two
    assert ["the seed", "3", "0", "2.3 of 4", "2 of 4"] in cells


def test_a_folder_of_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    first, second = Repeat(0, 1), Repeat(1, 1)
    write_results(first, tmp_path, "a b", 48.0)
    (tmp_path / first.name).rename(tmp_path / second.name)
    with pytest.raises(UserError, match="SEED is 0, not 1"):
        demo_repeats(2, [1], tmp_path, Workers(1))
