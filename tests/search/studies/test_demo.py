"""The demo is a command of ``spnas auto``, and the pages show what it wrote."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from backbones.files import read_json
from backbones.latency import LatencyTable
from search.auto.outcome import Outcome, Row, Stage
from search.auto.request import Request
from search.command_line.registry import typed
from search.studies import demo as module
from search.studies.demo import DEMO, demo_request, demo_section, run_demo
from tests.search.auto.stand_ins import LITE0, TABLE, small_plan, write_run

ROOT = Path(__file__).resolve().parents[3]
SCORES = {task: dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 41.25) for task in
          ("bbox", "segm")}  # fmt: skip


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What ``spnas auto`` leaves, as far as the pages show it."""
    output = tmp_path / "demo"
    small_plan(tmp_path / "photos", output, profiles=False).save(output)
    write_run(output / "search", "", "search")
    found = Row("found", "found", "found_15ms", SCORES, 3_910_000, 15.0, 14.9, 15.2)
    start = Row(LITE0, "start", "start", SCORES, 4_650_000, None, 22.62)
    stages = (Stage("Train", "python tools/train_net.py", "start", 300.0),)
    Outcome(
        "make demo", "digits_val", TABLE, "a processor", "onnxruntime", (320, 320), (found, start),
        stages,
    ).save(output)  # fmt: skip
    return output


def test_what_is_printed_asks_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed by hand, it is the same request."""
    words = demo_request(3).words(Path("output/demo"))
    assert typed(words).startswith("python tools/auto.py --data digits --targets ")
    monkeypatch.setattr("sys.argv", words)
    args = runpy.run_path(str(ROOT / "tools" / "auto.py"))["parse"]()
    assert Request.of(args) == demo_request(3)
    assert args.output == Path("output/demo")


def test_the_table_comes_with_the_package() -> None:
    DEMO.check()
    table = LatencyTable.load(DEMO.table)
    assert table.input_size == (DEMO.size, DEMO.size)


def test_what_the_pages_show(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    monkeypatch.setattr(module, "run_auto", lambda *arguments: calls.append(arguments))
    run_demo(finished)
    assert calls == [(DEMO, finished)]
    assert "The demo took 5.0 minutes." in capsys.readouterr().out
    text = demo_section(read_json(finished / "auto.json", "outcome"))
    assert "| found" in text and "14.90" in text and "41.25" in text
    assert f"Target 15 ms by `{TABLE}`; 5.0 minutes in all." in text
    assert "`make demo`" in text
