"""Truths and searches resume after a kill, and searches are judged by the truth alone."""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode

from backbones import UserError
from backbones.files import read_json
from detection.engine.cli import load_config
from search import known_answer as module
from search.config import add_search_config
from search.known_answer import all_networks, run_searches, train_truth
from search.readme import known_answer_section
from search.space import SearchSpace
from search.truth import Truth

ROOT = Path(__file__).resolve().parent.parent.parent
FACTS = {"command": "python tools/known_answer.py", "hardware": "made up"}
TARGETS = (0.7, 0.9)

Call = Callable[..., Any]


def configs(*options: str) -> tuple[CfgNode, CfgNode]:
    """Of search and classifier."""
    search, classifier = (
        load_config(
            argparse.Namespace(config_file=f"{stage}/digits_small.yaml", opts=list(options)),
            add_search_config,
        )
        for stage in ("search", "classification")
    )
    return search, classifier


def made_up_scores(_: CfgNode, network: Any, seed: int) -> dict[str, float]:
    rng = random.Random(network.name)
    top1 = rng.uniform(50, 90) + random.Random(seed).gauss(0, 1)
    return {"top1": top1, "loss": 2 - top1 / 50}


def found_in_turns(cfg: CfgNode, method: str, target: float, seed: int) -> dict[str, Any]:
    """``single-path`` always ends with one network, ``random`` with another a seed."""
    fast = ("skip 3x3-1 skip", "skip 3x3-1 3x3-1", "skip 5x5-1 3x3-1")
    layers = fast[0] if method == "single-path" else fast[seed % 3]
    return {"layers": layers, "cpu_seconds": 1.0 + seed}


def in_this_process(monkeypatch: pytest.MonkeyPatch, call: Call, stop_after: int = 10**6) -> list[Any]:
    """Replaces the worker processes by ``call``, and what interrupts them; the calls made."""
    calls: list[Any] = []

    def run(_: Call, arguments: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Any]:
        for index, args in enumerate(arguments):
            if len(calls) == stop_after:
                raise KeyboardInterrupt
            calls.append(args)
            yield index, call(*args)

    monkeypatch.setattr(module, "in_processes", run)
    return calls


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    """A made-up one of the small space."""
    with monkeypatch.context() as patch:
        in_this_process(patch, made_up_scores)
        train_truth(*configs(), 3, 1, tmp_path / "whole.json", FACTS)
    return Truth.load(tmp_path / "whole.json")


def test_an_interrupted_truth_goes_on(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "truth.json"
    in_this_process(monkeypatch, made_up_scores, 130)
    with pytest.raises(KeyboardInterrupt):
        train_truth(*configs(), 3, 1, output, FACTS)
    with pytest.raises(UserError, match="130 trainings of 100 networks"):
        Truth.load(output)
    calls = in_this_process(monkeypatch, made_up_scores)
    train_truth(*configs(), 3, 1, output, FACTS)
    assert len(calls) == 300 - 130
    assert read_json(output, "truth") == read_json(tmp_path / "whole.json", "truth")
    assert len(truth.networks) == 100


def test_another_recipe_is_refused(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="another SOLVER"):
        train_truth(*configs("SOLVER.BASE_LR", "0.5"), 3, 1, tmp_path / "whole.json", FACTS)
    with pytest.raises(UserError, match=r"another input_size, CLASSIFICATION"):
        other = configs("SEARCH.DEPLOY_SIZE", "[64, 64]", "CLASSIFICATION.INPUT_SIZE", "64")
        train_truth(*other, 3, 1, tmp_path / "whole.json", FACTS)


def test_searches_go_on_and_are_judged(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, _ = configs("SEARCH.TOLERANCE", "0.3")
    output = tmp_path / "study.json"
    trials = [(m, t, s) for s in range(3) for t in TARGETS for m in ("single-path", "random")]
    in_this_process(monkeypatch, found_in_turns, 5)
    with pytest.raises(KeyboardInterrupt):
        run_searches(search, truth, trials, 1, output, FACTS)
    calls = in_this_process(monkeypatch, found_in_turns)
    study = run_searches(search, truth, trials, 1, output, FACTS)
    assert [args[1:] for args in calls] == trials[5:]
    assert read_json(output, "study") == study
    mine, chance, exact = (
        next(row for row in study["summary"] if row["method"] == name)
        for name in ("single-path", "random", "chance")
    )
    expected = [truth.regret("skip 3x3-1 skip", target) for target in TARGETS]
    assert mine["regret_top1_mean"] == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert mine["regret_top1_std"] == 0
    assert mine["regret_top1"] == pytest.approx({"0.7": expected[0], "0.9": expected[1]}, abs=1e-4)
    assert chance["regret_top1_std"] > 0
    assert chance["cpu_seconds"] == 2
    assert exact["regret_top1"]["0.7"] == truth.chance(0.7, 0.3)
    section = known_answer_section(study)
    assert "| `single-path` |" in section
    assert "chance, exactly" in section


def test_what_cannot_be_judged(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, _ = configs()
    output = tmp_path / "study.json"
    with pytest.raises(UserError, match="unknown method 'multipath'"):
        run_searches(search, truth, [("multipath", 0.7, 0)], 1, output, FACTS)
    foreign = {"layers": "7x7-6 skip skip", "cpu_seconds": 1.0}
    in_this_process(monkeypatch, lambda *_: foreign)
    with pytest.raises(UserError, match="no network '7x7-6 skip skip'"):
        run_searches(search, truth, [("random", 0.7, 0)], 1, output, FACTS)
    assert not output.exists()
    in_this_process(monkeypatch, found_in_turns)
    run_searches(search, truth, [("random", 0.7, 0)], 1, output, FACTS)
    other, _ = configs("SEARCH.INITIAL_LOGIT", "1.0")
    with pytest.raises(UserError, match="another SEARCH"):
        run_searches(other, truth, [("random", 0.7, 1)], 1, output, FACTS)


def test_a_space_too_large_to_train(space: SearchSpace) -> None:
    with pytest.raises(UserError, match="more than 1024 networks"):
        all_networks(space)


def test_real_searches_end_in_the_truth(truth: Truth, images: Path) -> None:
    """A few steps of every kind, found again by the names of their layers."""
    search, classifier = configs(
        *("CLASSIFICATION.DATASET", str(images), "CLASSIFICATION.NUM_CLASSES", "2"),
        *("CLASSIFICATION.EPOCHS", "1.0", "SOLVER.IMS_PER_BATCH", "4"),
    )
    for method in ("single-path", "random"):
        found = module.search_network(search, method, 1.0, 0)
        assert truth.lookup(found["layers"]).runtime <= 1.0
        assert found["cpu_seconds"] > 0
    architecture = next(iter(all_networks(SearchSpace.load("digits_small")).values()))
    scores = module.train_network(classifier, architecture, 0)
    assert 0 <= scores["top1"] <= 100
    assert scores == module.train_network(classifier, architecture, 0)


@pytest.mark.slow
def test_a_killed_command_goes_on(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "truth.json"
    command = [sys.executable, "tools/known_answer.py", "train", "--seeds", "1", "--workers", "2"]
    command += ["--truth", str(output), "CLASSIFICATION.DATASET", str(images)]
    command += ["CLASSIFICATION.NUM_CLASSES", "2", "SOLVER.IMS_PER_BATCH", "4"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for(output.exists)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = read_json(output, "truth")
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = read_json(output, "truth")
    assert 0 < len(before["networks"]) < len(after["networks"]) == 100
    kept = {row["layers"]: row for row in after["networks"]}
    assert all(kept[row["layers"]] == row for row in before["networks"])


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
