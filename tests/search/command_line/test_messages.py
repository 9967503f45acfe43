"""Messages and help name commands as they are typed where the user is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from backbones.errors import UserError
from search.command_line.registry import TOOLS, tool_command
from search.profiling.setting import MeasuredWith
from search.report.runs import read_all, read_run
from search.studies.comparison.runs import load_run

ROOT = Path(__file__).resolve().parents[3]
REGISTRY = ROOT / "search" / "command_line" / "registry.py"
"""Where scripts become commands."""


def texts(path: Path) -> Iterator[str]:
    """Every text of a module that may be shown: of docstrings those of tools, which are help."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    if path.parent.name == "tools":
        statements.remove(tree.body[0].value)  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in statements and type(node.value) is str:
            yield node.value


@pytest.mark.parametrize("folder", ["backbones", "detection", "search", "tools"])
def test_no_message_names_a_script(folder: str) -> None:
    """A user of the wheel has no ``tools/``; ``tool_command`` says what can be typed instead."""
    paths = [path for path in (ROOT / folder).rglob("*.py") if path != REGISTRY]
    assert paths
    wrong = [(path, text) for path in paths for text in texts(path) if "tools/" in text]
    assert not wrong


def test_no_configuration_names_a_script() -> None:
    """Their comments are read by users of the wheel, too."""
    paths = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "configs").rglob("*.py")]
    assert not [path for path in paths if "tools/" in path.read_text(encoding="utf-8")]


def test_a_command_is_what_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for tool in TOOLS.values():
        command = tool_command(tool.script, "--help", "a b")
        assert command == f"python tools/{tool.script} --help 'a b'"
    monkeypatch.chdir(tmp_path)
    for tool in TOOLS.values():
        assert tool_command(tool.script, "--help", "a b") == f"spnas {tool.name} --help 'a b'"


def test_away_from_the_checkout_messages_name_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("results.json").write_text("{}")
    with pytest.raises(UserError, match=r"'\.' is not a run of 'spnas train'; its"):
        load_run(Path())
    with pytest.raises(UserError, match=r"of spnas compare-backbones or spnas compare-search$"):
        read_all([Path("results.json")])
    assert MeasuredWith("a", "b", {}, 1, "fp32", 1, 16, 1.0).command == "spnas profile"


def test_a_report_repeats_a_run_from_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log names a script without its folder."""
    Path(tmp_path, "config.yaml").write_text("SEED: 1\n")
    logged = ("search_net.py --config-file a.yaml", "spnas search --resume", "my_own.py A")
    Path(tmp_path, "log.txt").write_text(
        "".join(f"[11/27 01:55:43] detection.engine.run_folder INFO: {c}\n" for c in logged)
    )
    monkeypatch.chdir(ROOT)
    there = read_run(tmp_path).commands
    monkeypatch.chdir(tmp_path)
    here = read_run(Path()).commands
    assert there[:2] == ["python tools/search_net.py --config-file a.yaml", "spnas search --resume"]
    assert here[:2] == ["spnas search --config-file a.yaml", "spnas search --resume"]
