"""The pages of ``make api``: every module by Sphinx, linked as the code itself resolves names."""

from __future__ import annotations

import sys
import warnings
from configparser import ConfigParser
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from sphinx.addnodes import pending_xref
from sphinx.errors import ExtensionError
from sphinx.ext.autosummary import autosummary_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docutils.nodes import Element, document
    from sphinx.application import Sphinx
    from sphinx.domains import Domain

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("backbones", "detection", "search")
FOLDER = "modules"
"""Of the pages; Sphinx has a page of its own named search."""
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, when they are imported

_setup = ConfigParser(interpolation=None)
_setup.read(ROOT / "setup.cfg", encoding="utf-8")

project = "spnas"
version = release = _setup["metadata"]["version"]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
autosummary_generate = False
autodoc_preserve_defaults = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
nitpicky = True
html_theme = "furo"
html_title = f"spnas {version}"
html_show_copyright = False
html_copy_source = False

INTRODUCTION = """\
What code of your own imports. How the commands are used is in the pages of ``docs/``. A name that
is missing here is in a module below its package.
"""
COLON = "\N{PRESENTATION FORM FOR VERTICAL COLON}"
"""Of no docstring."""


def write_pages(app: Sphinx) -> None:
    """Writes what Sphinx reads: a first page of what packages offer, and one for each module."""
    folder = Path(app.srcdir, FOLDER)
    folder.mkdir(exist_ok=True)
    parts = [_title("spnas"), INTRODUCTION]
    for name in PACKAGES:
        package = import_module(name)
        parts += [_title(name, "-"), f"{(package.__doc__ or '').strip()}\n"]
        parts += [_table(name, getattr(package, "__all__", None) or _modules(name))]
        _write_module(folder, name)
    parts += [".. toctree::\n   :hidden:\n", *(f"   /{FOLDER}/{name}" for name in PACKAGES), ""]
    Path(app.srcdir, "index.rst").write_text("\n".join(parts), encoding="utf-8")


def _write_module(folder: Path, name: str) -> None:
    module, below = import_module(name), _modules(name)
    if not module.__doc__:
        raise ExtensionError(f"the module {name} has no docstring")
    offered = getattr(module, "__all__", ())
    elsewhere = [public for public in offered if _home(module, public) != name]
    own = ", ".join(public for public in offered if public not in elsewhere)
    members = f"   :members: {own}\n" if own or not offered else ""
    parent = name.rpartition(".")[0]
    # with all modules in every page's sidebar, pages take longer than what is on them
    parts = [":orphan:\n", _title(name), f"In :mod:`{parent}`.\n"] if parent else [_title(name)]
    parts += [f".. automodule:: {name}\n{members}   :show-inheritance:\n"]
    if elsewhere:
        parts += [".. rubric:: Offered here\n", _table(name, elsewhere)]
    if below:
        parts += [".. rubric:: Modules\n", _table(name, below)]
    Path(folder, f"{name}.rst").write_text("\n".join(parts), encoding="utf-8")
    for child in below:
        _write_module(folder, f"{name}.{child}")


def _home(module: ModuleType, name: str) -> str:
    """The module that defines a name of another one; data do not say, and count as its own."""
    value = getattr(module, name)
    return value.__module__ if isinstance(value, type | FunctionType) else module.__name__


def _modules(package: str) -> list[str]:
    """What is right below a package; nothing below a module."""
    found = iter_modules(getattr(import_module(package), "__path__", ()))
    return [module.name for module in found if not module.name.startswith("_")]


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def _table(module: str, names: Sequence[str]) -> str:
    """Names of a module with the first sentences of their docstrings."""
    lines = [f".. currentmodule:: {module}\n", ".. autosummary::\n"]
    return "\n".join([*lines, *(f"   {name}" for name in names), ""])


def name_in_full(app: Sphinx, doctree: document) -> None:
    """Makes names that a module has from another one those of where they are defined."""
    summaries = {id(node) for table in doctree.findall(autosummary_table) for node in _names(table)}
    for node in _names(doctree):
        if name := _defined(node):
            node["reftarget"] = name
        elif id(node) in summaries and node["reftype"] != "obj":
            # a sentence of another module, which means its own names; its page has the link
            node.replace_self(node.children)


def _names(node: Element) -> list[pending_xref]:
    return [found for found in node.findall(pending_xref) if found.get("refdomain") == "py"]


def _defined(node: pending_xref) -> str | None:
    """Where something is defined that a text names as its class, its module or Python knows it."""
    module, target = node.get("py:module"), node["reftarget"]
    names = (f"{module}:{node.get('py:class')}.{target}", f"{module}:{target}", target)
    for name in (*names, f"builtins:{target}"):
        with suppress(AttributeError, ImportError, ValueError):
            found = resolve_name(name)
            return f"{found.__module__}.{found.__qualname__}"
    return None


def excuse(app: Sphinx, domain: Domain | None, node: pending_xref) -> bool | None:
    """Lets signatures and other libraries name what is not here; texts name what is."""
    top, dot, _ = node["reftarget"].partition(".")
    other = top not in PACKAGES and (dot or top in sys.stdlib_module_names)
    return True if "refexplicit" not in node or other else None


def hide_colons(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keeps Napoleon from taking what is before a colon for the type of an attribute."""
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", COLON) for line in lines]


def show_colons(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Takes back what :func:`hide_colons` did."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out what Python says of the fields of named tuples."""
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field nu") else None


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", name_in_full)
    app.connect("warn-missing-reference", excuse)
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", show_colons, priority=600)
    app.connect("autodoc-skip-member", skip)
