"""The commands of search and classifier, as a user mistypes them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.search.conftest import SHORT, overrides

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search_net.py", ["--config-file", "nowhere.yaml"], "nowhere.yaml"),
        ("search_net.py", ["SEARCH.TARGT", "70"], "SEARCH.TARGET"),
        (
            "search_net.py",
            ["--config-file", "search/digits.yaml", "CLASSIFICATION.DATASET", "/nowhere"],
            "no folder '/nowhere'",
        ),
        ("train_classifier.py", ["MODEL.SPNAS.ARCH", "resnet"], "unknown architecture 'resnet'"),
        ("train_classifier.py", ["MODEL.WEIGHTS", "none.pth"], "no checkpoint at 'none.pth'"),
        ("train_classifier.py", ["--eval-only", *SHORT], "--eval-only needs MODEL.WEIGHTS"),
        ("train_classifier.py", ["MODEL.SPNAS.RUNTIME_ENGINE", "torch"], "to MODEL.SPNAS.ENGINE"),
        ("train_classifier.py", ["MODEL.SPNAS.LATENCY_TABLE", "pixel9"], "latency table 'pixel9'"),
        (
            "search_net.py",
            ["--config-file", "search/digits.yaml", "--eval-only"],
            "--eval-only: there is no search in OUTPUT_DIR",
        ),
    ],
)
def test_tools_answer_mistakes_in_one_line(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tool: str,
    arguments: list[str],
    message: str,
) -> None:
    options = [a for a in arguments if a.startswith("--") or a.endswith(".yaml")]
    keys = [a for a in arguments if a not in options]
    command = [tool, *options, *overrides(images, tmp_path / "out"), *keys]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    assert ending.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
