"""The commands of ``spnas``: their names, the scripts behind them, and what each does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backbones.paths import tools_folder

__all__ = ["GROUPS", "TOOLS", "Tool", "tool_command", "tool_words", "typed"]

_LAUNCHER = str(Path(__file__).resolve().with_name("__main__.py"))


@dataclass(frozen=True)
class Tool:
    """A command.

    Attributes:
        name: behind ``spnas``.
        script: below ``tools/``.
        summary: what it does, in half a line.
    """

    name: str
    script: str
    summary: str


GROUPS: dict[str, tuple[Tool, ...]] = {
    "all in one": (
        Tool("auto", "auto.py", "from a folder of photos to detectors for a device"),
        Tool("demo", "demo.py", "the same on handwritten digits, in minutes"),
    ),
    "search and train": (
        Tool("search", "search_net.py", "search a backbone at a target runtime"),
        Tool("train-classifier", "train_classifier.py", "train a network on a folder of images"),
        Tool("train", "train_net.py", "train and evaluate a detector on a backbone"),
    ),
    "your data": (
        Tool("check-data", "check_data.py", "say what data sets are, and what is odd in them"),
        Tool("pack-images", "pack_images.py", "pack a folder of images into tar files"),
        Tool("prepare-digits", "prepare_digits.py", "make the embedded digits data set"),
    ),
    "your device": (
        Tool("profile", "profile_latency.py", "make a latency table, or time networks"),
        Tool("evaluate-latency", "evaluate_latency.py", "judge a latency table on networks"),
    ),
    "use and share": (
        Tool("report", "report.py", "write one HTML page about runs"),
        Tool("export", "export_model.py", "write a network as a file for a device"),
        Tool("predict", "predict.py", "find objects or classes on photos"),
        Tool("publish", "publish_model.py", "make a folder of a run that others can load"),
    ),
    "set-up": (
        Tool("doctor", "doctor.py", "check this installation and this machine"),
        Tool("install-detectron2", "install_detectron2.py", "build and install Detectron2"),
        Tool("completion", "completion.py", "print the completion of a shell: bash, zsh, fish"),
    ),
    "studies": (
        Tool("compare-backbones", "compare_backbones.py", "backbones under one detector"),
        Tool("compare-precisions", "compare_precisions.py", "networks in int8 and in float"),
        Tool("compare-search", "compare_search.py", "search methods, over targets and seeds"),
        Tool("compare-starts", "compare_starts.py", "searches from trained weights and from none"),
        Tool("known-answer", "known_answer.py", "search methods where the answer is known"),
        Tool("tune-lambda", "tune_lambda.py", "find the lambda that lands at a target"),
        Tool("ablate-subsets", "ablate_subsets.py", "3x3 kernels inside of 5x5 kernels"),
        Tool("repeat-demo", "repeat_demo.py", "how much of the demo's outcome is chance"),
        Tool("kill-runs", "kill_runs.py", "runs that are killed, and go on"),
        Tool("try-weights", "try_weights.py", "weights in every form that people have"),
        Tool("benchmark", "benchmark.py", "what a step, a loader or an evaluation costs"),
    ),
    "in a checkout": (
        Tool("check-lock", "check_lock.py", "whether requirements.lock has all wheels"),
        Tool("update-docs", "update_docs.py", "make the tables and plots of the pages"),
    ),
}
"""By what they are for; a script of ``tools/`` that is in none of them is no command."""

TOOLS: dict[str, Tool] = {tool.name: tool for tools in GROUPS.values() for tool in tools}


def tool_words(script: str) -> list[str]:
    """What follows ``python`` to start a tool from the present folder.

    At the top of the checkout that is its script. Elsewhere it is the launcher by its path, so that
    no file of the present folder is taken for a module.

    Args:
        script: below ``tools/``.
    """
    if Path("tools").resolve() == tools_folder().resolve():
        return [f"tools/{script}"]
    (name,) = (tool.name for tool in TOOLS.values() if tool.script == script)
    return [_LAUNCHER, name]


def typed(words: Sequence[str]) -> str:
    """The command that a user types for the same.

    Args:
        words: what follows ``python``; the first ones by :func:`tool_words`.
    """
    return shlex.join(["spnas", *words[1:]] if words[0] == _LAUNCHER else ["python", *words])


def tool_command(script: str, *words: str) -> str:
    """How a user who is where this process is types a tool; for messages and records.

    Args:
        script: below ``tools/``.
        words: behind it, such as ``--resume``.
    """
    return typed([*tool_words(script), *words])
