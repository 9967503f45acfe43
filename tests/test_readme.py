"""The README says what is there: its tables, its commands, its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.studies.pages import render

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_tables_are_those_of_the_studies() -> None:
    assert render(README, ROOT / "docs" / "results") == README


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tools|configs)/[\w/.]+\.\w+", README))))
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    files = [link for link in links if not link.startswith("#")]
    assert files
    assert all((ROOT / link).exists() for link in files)


def test_linked_sections_exist() -> None:
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    linked = set(re.findall(r"\]\(#([^)]+)\)", README))
    assert linked
    assert linked <= anchors


def test_python_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of Python, from the top of a checkout; a user's own file is replaced."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        code = block.replace("output/search_digits/architecture.json", "spnas_100")
        exec(compile(code, "README.md", "exec"), {})
