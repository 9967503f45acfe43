"""Lists the commands and starts one: its script runs as if Python had been started with it."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from types import ModuleType

from backbones.paths import tools_folder
from backbones.version import project_version
from search.command_line.registry import GROUPS, TOOLS, Tool

__all__ = ["listing", "main", "start"]

EXIT_USER_ERROR = 2
_FRAMEWORKS = ("detectron2", "torch", "torchvision")


def main(words: Sequence[str] | None = None) -> int:
    """Runs ``spnas``.

    Args:
        words: behind ``spnas``; those of this process by default.

    Returns:
        The exit code; a tool that ends with one of its own raises ``SystemExit`` with it.
    """
    if "_ARGCOMPLETE" in os.environ:
        from search.command_line.completion import complete

        complete()
    first, *rest = [*(sys.argv[1:] if words is None else words)] or [""]
    if first == "help" and rest:
        first, rest = rest[0], ["--help"]
    if first in ("", "help", "-h", "--help"):
        print(listing())
        return 0
    if first in ("-V", "--version"):
        print(f"spnas {project_version()}")
        return 0
    if first not in TOOLS:
        print(_unknown(first), file=sys.stderr)
        return EXIT_USER_ERROR
    return start(TOOLS[first], rest)


def listing() -> str:
    """All commands in their groups, a line for each."""
    width = max(map(len, TOOLS))
    lines = ["usage: spnas COMMAND ...", ""]
    for title, tools in GROUPS.items():
        lines += [f"{title}:", *(f"  {tool.name:{width}}  {tool.summary}" for tool in tools), ""]
    return "\n".join([*lines, "spnas COMMAND --help explains a command; spnas --version"])


def _unknown(name: str) -> str:
    scripts = {tool.script.removesuffix(".py"): tool.name for tool in TOOLS.values()}
    known = {**scripts, **{name: name for name in TOOLS}}
    near = difflib.get_close_matches(name.removesuffix(".py"), known, n=1)
    hint = f"did you mean '{known[near[0]]}'? " if near else ""
    return f"error: unknown command '{name}'; {hint}'spnas' lists all of them"


def start(tool: Tool, arguments: Sequence[str]) -> int:
    """Runs a tool's script as ``__main__``, in which new processes look for its functions.

    Args:
        tool: of the registry.
        arguments: behind its name.

    Returns:
        The exit code; a tool that ends with one of its own raises ``SystemExit`` with it.
    """
    path = str(tools_folder() / tool.script)
    sys.argv = [f"spnas {tool.name}", *arguments]
    module = ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = module
    try:
        SourceFileLoader("__main__", path).exec_module(module)
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _FRAMEWORKS:
            raise
        print(_unusable(name, error), file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


def _unusable(name: str, error: ImportError) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "detectron2":
        return "error: Detectron2 is not installed; install it with: spnas install-detectron2"
    return f"error: '{name}' cannot be imported ({error}); what is wrong says: spnas doctor"
