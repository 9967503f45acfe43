"""The report as a whole: what it says, that it holds all of it, and what it refuses."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from backbones import LatencyTable, UserError, load_architecture
from backbones.latency import predict_runtime
from search.report.page import report_run, write_report
from tests.search.report.run_files import NETWORK, SCORES, write_detector, write_run, write_search

TOOL = Path(__file__).parents[3] / "tools" / "report.py"
EMPTY = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Titles, texts, tags and addresses of a page; insists that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = ("src", "href", "xlink:href", "data", "action")
        self.addresses += [value or "" for name, value in attrs if name in names]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)
        if self.open and self.open[-1] not in ("style", "script") and data.strip():
            self.texts.append(" ".join(data.split()))

    def after(self, text: str) -> str:
        return self.texts[self.texts.index(text) + 1]


def page_of(tmp_path: Path, *runs: Path, baseline: Path | None = None) -> Page:
    path = write_report(runs, tmp_path / "report.html", baseline)
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_of_a_search_and_a_detector(runs: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, runs)
    assert page.texts[2] == NETWORK
    assert page.after("box AP") == "40.0"
    assert page.after("mask AP") == "35.0"
    assert page.after("predicted") == "74.25 ms"
    assert page.after("74.25 ms") == "by table pixel1; target 75 ms (-1.0 %)"
    assert page.titles == [
        "The network",
        "Where the milliseconds go",
        "AP on photos",
        "Predictions on photos",
        "The course of the search, study/search",
        "The course of the detector, study/detection",
        "The data",
        "How to make it again",
    ]
    for text in (
        "best.png: 1 found, 2 missed, 0 wrong, F1 0.50",
        "Training on train: 12 images, 34 objects",
        "data set 'train': 3 × boxes outside",
        "python tools/search_net.py --config-file s.yaml",
        "a processor, 2 threads; commit 0123456789ab",
        "2.14.1+cu130",
    ):
        assert text in page.texts


def test_milliseconds_add_up_to_the_prediction_of_the_table(runs: Path, tmp_path: Path) -> None:
    runtime = predict_runtime(load_architecture(NETWORK), LatencyTable.load("pixel1"))
    page = page_of(tmp_path, runs / "search")
    assert f"By latency table pixel1: {runtime:.2f} ms in all." in page.texts


def test_a_page_needs_no_network(runs: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, runs)
    outside = [a for a in page.addresses if not a.startswith(("data:", "#"))]
    assert len(page.addresses) > 2 and not outside
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)|@import", text)


def test_text_of_runs_is_no_markup(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    run = write_search(tmp_path / "search")
    scores = {"bbox": {**SCORES["bbox"], f"AP-{evil}": 1.0}}
    other = write_detector(tmp_path / "detection", scores, name=f"{evil} $x_")
    (run / "log.txt").write_text(
        f"[11/27 01:55:43] detection.engine.run_folder INFO: search_net.py {evil}\n"
    )
    second = write_detector(tmp_path / "second", name="$a^")
    page = page_of(tmp_path, run, other, second)
    assert page.tags.count("script") == 1
    assert f"python tools/search_net.py {evil}" in page.texts
    assert evil in page.texts  # the class
    assert any(evil in text and "$x_" in text for text in page.texts)


def test_a_baseline_has_differences_by_scale_and_class(runs: Path, tmp_path: Path) -> None:
    better = {task: {k: v and v - 1.5 for k, v in found.items()} for task, found in SCORES.items()}
    other = write_detector(tmp_path / "other", better, name="other_net")
    page = page_of(tmp_path, runs, baseline=other)
    assert page.after("40.0") == "+1.5 to the baseline, small 20.0, medium 41.0"
    assert "Differences are to other_net" in page.texts[3]
    # all figures of both tasks but the two that no object is of, by scale and by class
    assert page.texts.count("+1.5") == 2 * 5 + 2 * 2
    by_order = page_of(tmp_path, runs, other)
    assert by_order.texts.count("+1.5") == 14
    assert any(title == "Beside other networks" for title in by_order.titles)


def test_an_unfinished_run_is_said_to_be(tmp_path: Path) -> None:
    run = write_run(tmp_path / "begun", "train_classifier.py", {"CLASSIFICATION": {"EPOCHS": 1}})
    page = page_of(tmp_path, run)
    assert page.texts[2] == "Not finished yet"
    assert "nothing logged yet" in page.texts[3]
    rows = [{"iteration": 19, "total_loss": 2.0, "eta_seconds": 240.0, "train/top1": 10.0}]
    (run / "metrics.json").write_text(json.dumps(rows[0]) + '\n{"iteration": 39, "tot')
    page = page_of(tmp_path, run)
    assert "20 iterations done, 4 minutes left by its last line" in page.texts[3]
    assert "How to make it again" in page.titles


def test_a_study_alone(tmp_path: Path) -> None:
    trials = [
        {"method": "random", "seed": seed, "runtime": 80.0 + seed, "top1": 70.0 + seed}
        for seed in range(2)
    ]
    study = {"trials": trials, "command": "python tools/compare_search.py", "hardware": "a board"}
    (tmp_path / "methods.json").write_text(json.dumps(study))
    page = page_of(tmp_path, tmp_path / "methods.json")
    assert page.titles == ["Beside other networks", "How to make it again"]
    assert page.after("random, seed 1") == "81.00"


def damaged_results(run: Path) -> None:
    (run / "results.json").write_text('{"search": {')


def other_results(run: Path) -> None:
    (run / "results.json").write_text("[]")


def results_without_a_runtime(run: Path) -> None:
    content = json.loads((run / "results.json").read_text())
    del content["search"]["predicted_runtime"]
    (run / "results.json").write_text(json.dumps(content))


def damaged_config(run: Path) -> None:
    (run / "config.yaml").write_text("SEED: [")


def damaged_architecture(run: Path) -> None:
    (run / "architecture.json").write_text("{}")


def no_config(run: Path) -> None:
    (run / "config.yaml").unlink()


def nothing(run: Path) -> None:
    for file in run.iterdir():
        file.unlink()


def a_study_of_something_else(run: Path) -> None:
    nothing(run)
    run.rmdir()
    run.write_text(json.dumps({"seconds": [1.0]}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damaged_results, r"results file '.*results\.json' is not valid JSON"),
        (other_results, r"results file '.*' holds a list, not a JSON object"),
        (results_without_a_runtime, r"KeyError: 'predicted_runtime'.*; repeat the run's command"),
        (damaged_config, r"config\.yaml' is not the configuration of a run"),
        (damaged_architecture, r"architecture\.json"),
        (no_config, r"has no config\.yaml: repeat its run's command"),
        (nothing, r"is no run; expected the OUTPUT_DIR of a search"),
        (a_study_of_something_else, r"is no study that a report shows"),
    ],
)
def test_one_line_for_what_is_no_run(
    spoil: Callable[[Path], None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = write_search(tmp_path / "search")
    spoil(run)
    output = tmp_path / "report.html"
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(run), "--output", str(output)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOL), run_name="__main__")
    assert stop.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and re.search(message, line)
    assert not output.exists()


def test_the_tool_writes_into_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = write_search(tmp_path / "search")
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(run)])
    runpy.run_path(str(TOOL), run_name="__main__")
    assert capfd.readouterr().out.strip() == f"The report: {run / 'report.html'}"
    assert Page((run / "report.html").read_text(encoding="utf-8")).texts[2] == NETWORK


def test_a_baseline_without_scores_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="search' has no detector's scores"):
        write_report([runs / "detection"], tmp_path / "report.html", runs / "search")


def test_a_run_does_not_fail_with_its_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_search(tmp_path / "search")
    damaged_results(run)
    report_run(run)
    assert "The report could not be written: the results file" in caplog.text
    assert not (run / "report.html").exists()


def test_a_cut_configuration_of_an_old_run_is_enough(tmp_path: Path) -> None:
    """Keys that later versions have may be missing."""
    run = write_search(tmp_path / "search")
    (run / "config.yaml").write_text(yaml.safe_dump({"VERSION": 2}))
    assert "The network" in page_of(tmp_path, run).titles
