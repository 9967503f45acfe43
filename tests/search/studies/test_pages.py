"""Sections of the pages stand between their markers, each in one page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backbones import UserError
from search.studies import pages as module
from search.studies.pages import CodeSection, Section, render, render_pages


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a section of one study, one of several with their plots, one of the code."""
    sections = {
        "one": Section("one", lambda study: f"one is {study['figure']}"),
        "many": Section("many-*", lambda *studies: f"{len(studies)} of many", "a plot"),
        "code": CodeSection(lambda: "what there is"),
    }
    monkeypatch.setattr(module, "SECTIONS", sections)
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    for name in ("one", "many-a", "many-b"):
        (results / f"{name}.json").write_text(json.dumps({"figure": 7}))
    (tmp_path / "README.md").write_text(
        "# Top\n\n<!-- one -->\nold\n<!-- /one -->\nend\n<!-- code -->\n<!-- /code -->\n"
    )
    (tmp_path / "docs" / "page.md").write_text("<!-- many -->\n<!-- /many -->\n")
    return tmp_path


def test_every_page_gets_its_sections_and_plots_relative_to_it(root: Path) -> None:
    assert render_pages(root) == {
        root / "README.md": (
            "# Top\n\n<!-- one -->\none is 7\n<!-- /one -->\nend\n"
            "<!-- code -->\nwhat there is\n<!-- /code -->\n"
        ),
        root / "docs" / "page.md": (
            "<!-- many -->\n2 of many\n\n![a plot](results/many-a.png)\n\n"
            "![a plot](results/many-b.png)\n<!-- /many -->\n"
        ),
    }
    text = render("<!-- many -->\n<!-- /many -->", root / "README.md", root / "docs" / "results")
    assert "(docs/results/many-a.png)" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- three -->\n<!-- /three -->\n", "unknown section 'three'; expected one of one, many"),
        ("<!-- one -->\nold\n", "expected <!-- /one --> after one <!-- one -->"),
        ("<!-- one -->\n<!-- many -->\n<!-- /many -->\n<!-- /one -->\n", "expected <!-- /one -->"),
        ("<!-- /one -->\n<!-- one -->\n", "expected <!-- /one --> after one <!-- one -->"),
        (2 * "<!-- one -->\n<!-- /one -->\n", "the section 'one' is there 2 times"),
    ],
)
def test_markers_go_together(root: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        render(text, root / "README.md", root / "docs" / "results")
    assert "README.md" in str(error.value)


def test_a_section_stands_in_one_page(root: Path) -> None:
    page = root / "docs" / "page.md"
    page.write_text(page.read_text() + "<!-- one -->\n<!-- /one -->\n")
    with pytest.raises(UserError, match="the section 'one' stands in 2 pages"):
        render_pages(root)
    page.write_text("nothing\n")
    with pytest.raises(UserError, match="the section 'many' stands in 0 pages"):
        render_pages(root)


def test_a_missing_study_is_named(root: Path) -> None:
    (root / "docs" / "results" / "one.json").unlink()
    with pytest.raises(UserError, match=r"no 'one\.json' in"):
        render_pages(root)
