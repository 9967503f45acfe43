"""``spnas``: what it lists, how it starts tools, and what it says of names that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import version as project
from backbones.paths import tools_folder
from search.command_line import launcher
from search.command_line.launcher import listing, main
from search.command_line.registry import GROUPS, TOOLS, Tool, tool_words, typed

ROOT = Path(__file__).resolve().parents[3]

SCRIPT = """
import argparse, pickle, sys

def add(number):
    return number + 1

print(__name__, __file__, sys.argv[1:], argparse.ArgumentParser().prog)
print(pickle.loads(pickle.dumps(add))(1))
sys.exit(7)
"""


@pytest.fixture
def one_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tools with a script ``add``; its ``__main__`` does not outlive the test."""
    monkeypatch.setattr(launcher, "tools_folder", lambda: tmp_path)
    monkeypatch.setitem(TOOLS, "add", Tool("add", "add.py", "adds"))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", ["spnas"])
    script = tmp_path / "add.py"
    script.write_text(SCRIPT)
    return script


def spnas(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "search.command_line", *words]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environ)


def test_every_script_is_one_command() -> None:
    scripts = sorted(tool.script for tools in GROUPS.values() for tool in tools)
    assert scripts == sorted(path.name for path in (ROOT / "tools").glob("*.py"))
    assert len(TOOLS) == len(scripts)


def test_listing(tmp_path: Path) -> None:
    """At once, from any folder: without PyTorch, and without a parser of any tool."""
    done = spnas(cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"{listing()}\n"
    assert not {"torch", "numpy", "argparse"} & {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines()
    }
    lines = listing().splitlines()
    for tool in TOOLS.values():
        (line,) = (line for line in lines if line.startswith(f"  {tool.name} "))
        assert line.endswith(f"  {tool.summary}")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_ways_to_ask_for_the_listing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == f"{listing()}\n"


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "version", {"spnas": "1.2.3"}.__getitem__)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "spnas 1.2.3\n"


def test_the_version_of_a_checkout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise project.PackageNotFoundError(name)

    monkeypatch.setattr(project, "version", missing)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "spnas of a checkout that is not installed\n"


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("serch", "did you mean 'search'? "),
        ("search_net.py", "did you mean 'search'? "),
        ("profile_latency", "did you mean 'profile'? "),
        ("docter", "did you mean 'doctor'? "),
        ("--config-file", ""),
        ("zzz", ""),
    ],
)
def test_an_unknown_command(word: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word, "--resume"]) == 2
    out, err = capsys.readouterr()
    assert err == f"error: unknown command '{word}'; {near}'spnas' lists all of them\n"
    assert not out


def test_a_tool_runs_as_its_script_would(
    one_tool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Functions of ``__main__`` can be pickled, which starting processes takes."""
    with pytest.raises(SystemExit) as ended:
        main(["add", "--flag", "a b"])
    assert ended.value.code == 7
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"__main__ {one_tool} ['--flag', 'a b'] spnas add"
    assert second == "2"


def test_help_of_a_command(one_tool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["help", "add"])
    assert "['--help'] spnas add" in capsys.readouterr().out


def test_processes_find_the_functions_of_a_tool(tmp_path: Path) -> None:
    """Processes that are spawned import the script again."""
    (tmp_path / "tool.py").write_text(
        "import multiprocessing\n"
        "def double(number):\n    return 2 * number\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(double, (21,)))\n"
    )
    code = (
        "import pathlib, sys; from search.command_line import launcher;"
        f"launcher.tools_folder = lambda: pathlib.Path({str(tmp_path)!r});"
        "launcher.TOOLS['tool'] = launcher.Tool('tool', 'tool.py', '');"
        "sys.exit(launcher.main(['tool']))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environ)
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import detectron2", "error: Detectron2 is not installed; install it with: spnas install"),
        ("import detectron2.utils", "error: Detectron2 is not installed; install it with: spnas i"),
        ("raise ImportError('libcudart.so', name='torch._C')",
         "error: 'torch' cannot be imported (libcudart.so); what is wrong says: spnas doctor"),
    ],
)  # fmt: skip
def test_a_framework_that_is_missing_or_broken(
    code: str,
    message: str,
    one_tool: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)  # as if it were not installed
    one_tool.write_text(code)
    assert main(["add"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_other_import_errors_are_faults_of_the_project(one_tool: Path) -> None:
    one_tool.write_text("import no_such_module_of_ours")
    with pytest.raises(ModuleNotFoundError):
        main(["add"])


def test_commands_of_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the top of the checkout the script, as the pages write it; elsewhere the command."""
    monkeypatch.chdir(ROOT)
    assert tool_words("train_net.py") == ["tools/train_net.py"]
    assert typed(["tools/train_net.py", "A", "b c"]) == "python tools/train_net.py A 'b c'"
    (tmp_path / "tools").mkdir()  # of somebody else, such as Detectron2's own
    (tmp_path / "tools" / "train_net.py").touch()
    monkeypatch.chdir(tmp_path)
    words = tool_words("train_net.py")
    assert typed([*words, "A", "b c"]) == "spnas train A 'b c'"
    done = subprocess.run(
        [sys.executable, *words, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.startswith("usage: spnas train "), done.stderr
    assert "spnas train --config-file configs/detection/custom.yaml DATA.ROOT photos" in done.stdout


def test_torchrun_starts_a_command_as_a_program() -> None:
    """It takes its first word for a script of Python otherwise."""
    done = spnas("search", "--help")
    assert "torchrun --nproc-per-node 8 --no-python spnas search --config-file" in done.stdout
    script = [sys.executable, str(tools_folder() / "search_net.py"), "--help"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    text = subprocess.run(script, capture_output=True, text=True, env=environ).stdout
    assert "torchrun --nproc-per-node 8 search_net.py --config-file" in text
