"""Completion of commands, options and configurations in a shell, without importing PyTorch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any, NoReturn

import argcomplete
from argcomplete.completers import FilesCompleter
from argcomplete.lexers import split_line

from backbones.paths import config_names
from search.command_line.launcher import start
from search.command_line.registry import TOOLS

__all__ = ["complete"]


def complete() -> NoReturn:
    """Prints what may stand at the cursor, and ends the process.

    The shell says by ``COMP_LINE`` and ``COMP_POINT`` what is typed. Behind the name of a command
    its own parser is asked: the script runs as far as to where it would parse its arguments.
    """
    line = os.environ["COMP_LINE"]
    _, _, _, before, _ = split_line(line, int(os.environ.get("COMP_POINT", len(line))))
    if len(before) > 1 and before[1] in TOOLS:
        os.environ["_ARGCOMPLETE"] = "2"  # the word that stands for the program
        argparse.ArgumentParser.parse_args = _complete_with  # type: ignore[method-assign,assignment]
        start(TOOLS[before[1]], [])
    _complete_with(_commands())


def complete_config(prefix: str, **_: Any) -> list[str]:
    """Configurations by their names below ``configs/``, and YAML files of the present folder."""
    files = FilesCompleter(allowednames=("yaml",))(prefix)
    return [*(name for name in config_names() if name.startswith(prefix)), *files]


def _commands() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spnas")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for tool in TOOLS.values():
        commands.add_parser(tool.name, help=tool.summary)
    return parser


def _complete_with(parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
    for action in _actions(parser):
        if any(option.endswith("config-file") for option in action.option_strings):
            vars(action)["completer"] = complete_config
    argcomplete.autocomplete(parser)
    raise SystemExit(0)  # autocomplete has ended the process before, as it was asked to complete


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a parser and those below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
