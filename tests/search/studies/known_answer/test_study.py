"""Truths and searches resume after a kill, and searches are judged by the truth alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import CfgNode

from backbones import Architecture, UserError
from backbones.files import read_json
from backbones.latency import LatencyTable, predict_runtime
from search.config import load_search_config
from search.runs.build import build_latency_table
from search.space import SearchSpace
from search.studies.known_answer import study as module
from search.studies.known_answer.study import all_networks, run_searches, train_truth
from search.studies.known_answer.tables import known_answer_section
from search.studies.known_answer.truth import Truth
from search.studies.methods.study import Method
from search.studies.workers import HERE

ROOT = Path(__file__).resolve().parents[4]
FACTS = {"command": "python tools/known_answer.py", "hardware": "made up"}
SPACE = SearchSpace.load("digits_small")
NETWORKS = ("3x3-1 3x3-1 skip", "3x3-1 5x5-1 skip", "5x5-1 3x3-1 skip")
"""Fast ones, so that every target has them all."""
TARGETS = (0.3, 0.5)
COUNT = len(all_networks(SPACE))


def configs(*options: str) -> tuple[CfgNode, CfgNode]:
    """Of search and classifier."""
    search, classifier = (
        load_search_config(f"{stage}/digits_small.yaml", options)
        for stage in ("search", "classification")
    )
    return search, classifier


def made_up_scores(_: CfgNode, network: Any, table: LatencyTable, seed: int) -> dict[str, float]:
    rng = random.Random(network.name)
    top1 = rng.uniform(50, 90) + random.Random(seed).gauss(0, 1)
    return {"runtime": predict_runtime(network, table), "top1": top1, "loss": 2 - top1 / 50}


class FoundInTurns:
    """Finds one network with ``single-path``, and with ``random`` another a seed."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.calls: list[Any] = []
        self.stop_after = stop_after

    def __call__(
        self, cfg: CfgNode, method: Method, target: float, seed: int, folder: Path
    ) -> Architecture:
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((method.name, target, seed))
        return all_networks(SPACE)[NETWORKS[0 if method.name == "single-path" else seed % 3]]


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    """A made-up one of the small space."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_network", made_up_scores)
        train_truth(*configs(), 3, HERE, tmp_path / "whole.json", FACTS)
    return Truth.load(tmp_path / "whole.json")


def test_an_interrupted_truth_goes_on(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "truth.json"
    calls = []

    def interrupted(*args: Any) -> dict[str, float]:
        calls.append(args)
        if len(calls) == 31:
            raise KeyboardInterrupt
        return made_up_scores(*args)

    monkeypatch.setattr(module, "train_network", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_truth(*configs(), 3, HERE, output, FACTS)
    with pytest.raises(UserError, match=f"30 trainings of 30 networks, and the space has {COUNT}"):
        Truth.load(output)
    train_truth(*configs(), 3, HERE, output, FACTS)
    assert len(calls) == 3 * COUNT + 1
    assert read_json(output, "truth") == read_json(tmp_path / "whole.json", "truth")
    assert len(truth.networks) == COUNT


def test_another_recipe_is_refused(truth: Truth, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"recipe SOLVER.BASE_LR 0.02, and this is SOLVER.BASE_LR 0.5;"
    ):
        train_truth(*configs("SOLVER.BASE_LR", "0.5"), 3, HERE, tmp_path / "whole.json", FACTS)
    other = configs("SEARCH.DEPLOY_SIZE", "[64, 64]", "CLASSIFICATION.INPUT_SIZE", "64")
    with pytest.raises(
        UserError, match=r"CLASSIFICATION.INPUT_SIZE 32, and this is .*CLASSIFICATION.INPUT_SIZE 64"
    ):
        train_truth(*other, 3, HERE, tmp_path / "whole.json", FACTS)


def test_searches_go_on_and_are_judged(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, _ = configs("SEARCH.TOLERANCE", "0.3")
    output = tmp_path / "study.json"
    trials = [(m, t, s) for s in range(3) for t in TARGETS for m in ("single-path", "random")]
    monkeypatch.setattr(module, "find_architecture", FoundInTurns(stop_after=5))
    with pytest.raises(KeyboardInterrupt):
        run_searches(search, truth, trials, HERE, output, FACTS)
    found = FoundInTurns()
    monkeypatch.setattr(module, "find_architecture", found)
    study = run_searches(search, truth, trials, HERE, output, FACTS)
    assert found.calls == trials[5:]
    assert read_json(output, "study") == study
    mine, chance, exact = (
        next(row for row in study["summary"] if row["method"] == name)
        for name in ("single-path", "random", "chance")
    )
    expected = [truth.regret(NETWORKS[0], target) for target in TARGETS]
    assert mine["regret_top1_mean"] == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert mine["regret_top1_std"] == 0
    assert list(mine["regret_top1"].values()) == pytest.approx(expected, abs=1e-4)
    assert chance["regret_top1_std"] > 0
    low = f"{TARGETS[0]:g}"
    assert exact["regret_top1"][low] == truth.chance(TARGETS[0], 0.3)
    other = {network.layers: network for network in truth.networks.values()}
    other[NETWORKS[0]].scores["top1"][0] += 30.0
    again = run_searches(search, truth, trials, HERE, output, FACTS)
    assert found.calls == trials[5:]  # none was run anew: they are judged anew
    assert again["trials"] == study["trials"]
    better = truth.regret(NETWORKS[0], TARGETS[0])
    assert again["summary"][0]["regret_top1"][low] == pytest.approx(better)
    assert better < expected[0]
    section = known_answer_section(study)
    assert "`single-path`" in section
    assert "chance, exactly" in section


def test_what_cannot_be_judged(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, _ = configs()
    output = tmp_path / "study.json"
    with pytest.raises(UserError, match="unknown method 'multipath'"):
        run_searches(search, truth, [("multipath", TARGETS[0], 0)], HERE, output, FACTS)
    monkeypatch.setattr(module, "find_architecture", FoundInTurns())
    known = truth.networks.pop(NETWORKS[1])
    with pytest.raises(UserError, match=f"no network '{NETWORKS[1]}'"):
        run_searches(search, truth, [("random", TARGETS[0], 1)], HERE, output, FACTS)
    by_params, _ = configs("SEARCH.LATENCY_TABLE", "params")
    with pytest.raises(UserError, match=r"MMACs in the truth .*, and .* by .*TABLE 'params'"):
        run_searches(by_params, truth, [("random", TARGETS[0], 0)], HERE, output, FACTS)
    assert not output.exists()
    truth.networks[NETWORKS[1]] = known
    run_searches(search, truth, [("random", TARGETS[0], 0)], HERE, output, FACTS)
    other, _ = configs("SEARCH.INITIAL_LOGIT", "1.0")
    with pytest.raises(
        UserError, match=r"SEARCH.INITIAL_LOGIT 2.0, and this is SEARCH.INITIAL_LOGIT 1.0"
    ):
        run_searches(other, truth, [("random", TARGETS[0], 1)], HERE, output, FACTS)


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
        found = module.search_network(search, method, TARGETS[1], 0)
        assert truth.regret(found["layers"], TARGETS[1]) >= 0
        runtime = truth.lookup(found["layers"]).runtime
        assert (1 - search.SEARCH.TOLERANCE) * TARGETS[1] <= runtime <= TARGETS[1] + 1e-4
        assert found["cpu_seconds"] > 0
    table = build_latency_table(search, SPACE)
    architecture = next(iter(all_networks(SPACE).values()))
    scores = module.train_network(classifier, architecture, table, 0)
    assert scores["top1"] in [100 * right / 16 for right in range(17)]
    assert scores["runtime"] == round(predict_runtime(architecture, table), 4)
    assert scores == module.train_network(classifier, architecture, table, 0)
    assert scores["loss"] != module.train_network(classifier, architecture, table, 1)["loss"]


@pytest.mark.slow
def test_a_killed_command_goes_on(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "truth.json"
    command = [sys.executable, "tools/known_answer.py", "train", "--seeds", "1", "--workers", "2"]
    command += ["--truth", str(output), "CLASSIFICATION.DATASET", str(images)]
    command += ["CLASSIFICATION.NUM_CLASSES", "2", "SOLVER.IMS_PER_BATCH", "4"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for(lambda: output.exists() or run.poll() is not None)
    assert run.poll() is None
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = read_json(output, "truth")
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = read_json(output, "truth")
    assert 0 < len(before["trials"]) < len(after["trials"]) == COUNT
    assert after["trials"][: len(before["trials"])] == before["trials"]


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
