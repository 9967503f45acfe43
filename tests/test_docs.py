"""README.md and the pages of docs/ say what is there: tables, files, links, examples, commands."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import importlib.util
import io
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import get_cfg

from backbones import UserError
from detection.config import add_spnas_config
from detection.engine.cli import load_config
from search.command_line.registry import TOOLS
from search.config import add_search_config
from search.studies.pages import RESULTS, pages, render_pages

ROOT = Path(__file__).resolve().parent.parent
OTHERS = ("CHANGELOG.md", "CONTRIBUTING.md")
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in pages(ROOT)}
PAGES |= {name: (ROOT / name).read_text(encoding="utf-8") for name in OTHERS}
README = PAGES["README.md"]
FOLDERS = ("backbones", "configs", "detection", "docs", "search", "tests", "tools")
DETECTOR_TOOLS = ("train_net.py", "compare_backbones.py")
"""Tools whose --config-file is of a detector alone; all others know the keys of a search."""

PIP_FILES = ("requirements.lock",)
PIP_OPTIONS = {"--editable", "--no-deps", "--requirement"}

of_pages = pytest.mark.parametrize("name", PAGES)


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Those that GitHub makes of a page's titles."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_tables_are_those_of_the_studies() -> None:
    made = {str(path.relative_to(ROOT)): text for path, text in render_pages(ROOT).items()}
    assert made == {name: text for name, text in PAGES.items() if name not in OTHERS}


@of_pages
def test_named_files_exist(name: str) -> None:
    """Words that begin with a folder of the checkout, as far as they name no placeholder."""
    words = re.findall(
        rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[^\s`'\"(){{}}\[\]#|,;]*", PAGES[name]
    )
    paths = {word.rstrip(".:") for word in words if not re.search(r"[<>*…]", word)}
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


@of_pages
def test_links_lead_somewhere(name: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[name]) if "://" not in link]
    for link in links:
        file, _, anchor = link.partition("#")
        target = (ROOT / name).parent / file if file else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@of_pages
def test_named_keys_exist(name: str) -> None:
    """Words such as SEARCH.TARGET: every one is a key of the configuration, or a section of it."""
    cfg = get_cfg()
    add_search_config(cfg)
    keys = re.findall(r"(?<![\w.])[A-Z][A-Z_]+(?:\.[A-Z0-9_]+)+(?![\w.]*[a-z])", PAGES[name])
    for key in sorted(set(keys)):
        node = cfg
        for part in key.split("."):
            assert part in node, key
            node = node[part]


def test_the_readme_leads_to_every_page() -> None:
    assert {page for page in PAGES if page != "README.md"} <= set(
        re.findall(r"\]\(([^)#]+)\)", README)
    )


@pytest.mark.parametrize(
    "code", [block for text in PAGES.values() for block in blocks("python", text)]
)
def test_python_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the top of a checkout; a user's own file is replaced."""
    monkeypatch.chdir(ROOT)
    code = code.replace("output/search_digits/architecture.json", "spnas_100")
    exec(compile(code, "example", "exec"), {})


def commands() -> Iterator[str]:
    """What is typed: lines of bash blocks, commands in the text, and those behind the results."""
    for text in PAGES.values():
        for block in blocks("bash", text):
            yield from block.replace("\\\n", " ").splitlines()
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        yield from re.findall(r"`((?:python|make|pip|spnas)\s[^`]+)`", prose)
    for path in sorted((ROOT / RESULTS).glob("*.json")):
        yield from recorded(json.loads(path.read_text()))


def recorded(result: Any) -> Iterator[str]:
    """The values of every key ``command``."""
    if isinstance(result, dict) and isinstance(result.get("command"), str):
        yield result["command"]
    children = result.values() if isinstance(result, dict) else result
    for child in children if isinstance(result, dict | list) else ():
        yield from recorded(child)


@cache
def parser_of(tool: str) -> Callable[[], argparse.Namespace]:
    parse: Callable[[], argparse.Namespace] = runpy.run_path(str(ROOT / tool))["parse"]
    return parse


OWN_CONFIGS = {"auto.py": {"config_file": "configs/search/mask_rcnn_pretrained.yaml"}}
"""Of tools whose keys are those of configurations that they choose themselves."""


def check_tool(tool: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses a tool's command, and merges its pairs into its configurations.

    Raises:
        AssertionError: if the parser refuses it.
        UserError: if a configuration is missing, or a pair is none of its keys.
    """
    monkeypatch.setattr(sys, "argv", [tool, *words])
    # argparse takes the beginnings of options as well; pages spell them out
    monkeypatch.setattr(argparse.ArgumentParser, "_get_option_tuples", lambda *_: [])
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            args = parser_of(tool)()
    except SystemExit:
        raise AssertionError(errors.getvalue()) from None
    options = getattr(args, "opts", [])
    named = {key: value for key, value in vars(args).items() if "config" in key and value}
    named |= OWN_CONFIGS.get(Path(tool).name, {})
    for key, value in named.items():
        detector = Path(tool).name in DETECTOR_TOOLS and key == "config_file"
        for file in value if isinstance(value, list) else [value]:
            load_config(
                argparse.Namespace(config_file=file, opts=options),
                add_spnas_config if detector else add_search_config,
            )
    assert named or not options, f"{options} are keys of no configuration"


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks a command of a page as far as it goes without running it."""
    program, *words = shlex.split(command, comments=True)
    if program in ("torchrun", "srun"):  # what they start
        tool = next(index for index, word in enumerate(words) if word.startswith("tools/"))
        program, words = "python", words[tool:]
    if program == "python" and words[0] == "-m":
        (module,) = words[1:]
        assert importlib.util.find_spec(f"{module}.__main__")
    elif program == "python":
        check_tool(words[0], words[1:], monkeypatch)
    elif program == "spnas":
        scripts = [TOOLS[word].script for word in words[:1]]
        if words[1:] not in ([], ["--help"]):
            check_tool(f"tools/{scripts[0]}", words[1:], monkeypatch)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words if not word.startswith("PYTHON=")} <= set(targets)
    else:
        assert program == "pip"
        setup = configparser.ConfigParser(interpolation=None)
        setup.read(ROOT / "setup.cfg", encoding="utf-8")
        extras = "|".join(setup.options("options.extras_require"))
        command, *named = [word for word in words if not word.startswith("--")]
        assert command in ("install", "wheel")
        wheel = f"spnas-{setup['metadata']['version']}-py3-none-any.whl"
        files = "|".join(map(re.escape, (".", wheel)))
        some = rf"({files})(\[({extras})(,({extras}))*\])?"
        assert all(word in PIP_FILES or re.fullmatch(some, word) for word in named)
        assert not set(words) - {command, *named} - PIP_OPTIONS


TYPED = list(
    dict.fromkeys(
        line for line in (" ".join(c.split()) for c in commands()) if line and line[0] != "#"
    )
)


@pytest.mark.parametrize("command", TYPED)
def test_commands_are_accepted(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check(command, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "python tools/search_net.py --config-files configs/search/digits.yaml",
        "python tools/search_net.py --config configs/search/digits.yaml",
        "python tools/search_net.py --config-file configs/search/nowhere.yaml",
        "python tools/search_net.py --config-file configs/search/digits.yaml SEARCH.TARGT 80.0",
        "python tools/search_net.py --config-file configs/search/digits.yaml SEARCH.TARGET",
        "python tools/train_net.py SEARCH.TARGET 80.0",
        "python tools/tune_lambda.py --target 80",
        "spnas serch --config-file search/digits.yaml",
        "spnas search --config-file search/digits.yaml SEARCH.TARGT 80.0",
        "pip install spnas-0.1.0-py3-none-any.whl",
        "make dem",
        "pip install '.[tun]'",
        "pip install spnas",
        "pip install 'spnas[tune]'",
    ],
)
def test_wrong_commands_are_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, KeyError, UserError)):
        check(command, monkeypatch)
