"""Completion, as a shell asks for it: in a process of ``spnas``, by the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from search.command_line.registry import TOOLS

ROOT = Path(__file__).resolve().parents[3]
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}


def complete(line: str, cwd: Path) -> tuple[set[str], set[str]]:
    """What may follow, and the top-level names of all modules imported for it."""
    answer, imports = cwd / "answer", cwd / "imports"
    with imports.open("w", encoding="utf-8") as file:
        subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "search.command_line"],
            env={
                **ENVIRON,
                "_ARGCOMPLETE": "1",
                "_ARGCOMPLETE_IFS": "\n",
                "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
                "COMP_LINE": line,
                "COMP_POINT": str(len(line)),
            },
            stderr=file,
            cwd=cwd,
            check=True,
        )
    lines = imports.read_text(encoding="utf-8").splitlines()
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    words = answer.read_text(encoding="utf-8").split("\n")
    return {word.strip() for word in words if word}, modules


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("spnas train", {"train", "train-classifier"}),
        ("spnas search --ev", {"--eval-only"}),
        ("spnas benchmark coco", {"coco-scoring"}),
        ("spnas known-answer train --tr", {"--truth"}),
        ("spnas install-detectron2 --wheel", {"--wheel-dir", "--wheel-only"}),
        ("spnas profile --task ", {"classification", "detection"}),
    ],
)
def test_words(line: str, expected: set[str], tmp_path: Path) -> None:
    found, modules = complete(line, tmp_path)
    assert found == expected
    assert "argcomplete" in modules
    assert not modules & {"torch", "numpy", "detectron2", "yaml"}


def test_all_commands(tmp_path: Path) -> None:
    found, _ = complete("spnas ", tmp_path)
    assert {word for word in found if not word.startswith("-")} == set(TOOLS)


def test_configurations_are_those_of_the_project_and_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "digits_mine.yaml").touch()
    found, _ = complete("spnas search --config-file search/digits", tmp_path)
    known = {path.name for path in (ROOT / "configs" / "search").glob("digits*.yaml")}
    assert found == {f"search/{name}" for name in known | {"digits_mine.yaml"}}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_code_of_a_shell(shell: str) -> None:
    command = [sys.executable, "-m", "search.command_line", "completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRON, check=True)
    assert "_ARGCOMPLETE" in done.stdout
    assert "spnas" in done.stdout
    if path := shutil.which(shell):
        subprocess.run([path, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path: Path) -> None:
    """The code is run, and its function asked as bash asks it."""
    program = tmp_path / "spnas"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m search.command_line "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(spnas completion bash)"
        COMP_LINE="spnas search --re" COMP_POINT=17 COMP_TYPE=9
        COMP_WORDS=(spnas search --re) COMP_CWORD=2
        _python_argcomplete spnas
        echo "${COMPREPLY[@]}"
    """
    environ = {**ENVIRON, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [str(shutil.which("bash")), "-c", script], capture_output=True, text=True, env=environ
    )
    assert done.stdout.split() == ["--resume"], done.stderr
