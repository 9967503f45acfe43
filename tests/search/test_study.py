"""Studies resume, and their summaries are means and spreads over seeds."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

from backbones.files import read_json
from search import study as module
from search.space import SearchSpace
from search.study import Variant, live_thresholds, run_study, summarize

VARIANTS = (Variant("a", ()), Variant("b", ("SEARCH.IMPORTANCE", "norm")))


def fake_trial(search: Any, classifier: Any, variant: Variant, seed: int) -> dict[str, Any]:
    value = 10.0 * seed + len(variant.overrides)
    return {"variant": variant.name, "seed": seed, "top1": value, "loss": 1.0, "runtime": 80.0}


def test_an_interrupted_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def trial(*arguments: Any) -> dict[str, Any]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(arguments[2:])
        return fake_trial(*arguments)

    monkeypatch.setattr(module, "run_trial", trial)
    output = tmp_path / "study.json"
    none: Any = None
    with pytest.raises(KeyboardInterrupt):
        run_study(none, none, VARIANTS, range(3), output, {"command": "x"})
    assert len(read_json(output, "study")["trials"]) == 3
    monkeypatch.setattr(module, "run_trial", fake_trial)
    whole = run_study(none, none, VARIANTS, range(3), output, {"command": "x"})
    seen = [(trial["seed"], trial["variant"]) for trial in whole["trials"]]
    assert seen == [(seed, name) for seed in range(3) for name in "ab"]
    assert read_json(output, "study") == whole


def test_summary_is_mean_and_sample_deviation() -> None:
    trials = [fake_trial(None, None, VARIANTS[0], seed) for seed in range(4)]
    summary = summarize(trials)["a"]
    values = [0.0, 10.0, 20.0, 30.0]
    assert summary["top1_mean"] == statistics.mean(values)
    assert summary["top1_std"] == pytest.approx(statistics.stdev(values))
    assert summary["seeds"] == 4
    assert summarize(trials[:1])["a"]["top1_std"] == 0


def test_thresholds_alive_at_full_width(space: SearchSpace) -> None:
    assert live_thresholds(space, "relative") > 0.95
    assert live_thresholds(space, "norm") > 0.95
    assert live_thresholds(space, "literal") < 0.5
