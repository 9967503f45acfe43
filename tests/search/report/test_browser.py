"""The page in a real browser: nothing fails, nothing is cut off, layers answer when pointed at."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from backbones import UserError
from search.report import browser
from search.report.page import write_report

needs_browser = pytest.mark.skipif(
    browser.find_browser() is None, reason="there is no Chromium or Chrome on this machine"
)


@needs_browser
@pytest.mark.parametrize("kind", ["runs", "whole"])
def test_nothing_fails_and_nothing_is_cut_off(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = write_report([request.getfixturevalue(kind)], tmp_path / "report.html")
    narrow, wide = browser.look(page, tmp_path, schemes=("dark",))
    for view in (narrow, wide):
        assert view.errors == ()
        assert view.scroll_width <= view.width
        assert view.picture and view.whole
        with Image.open(view.whole) as picture, Image.open(view.picture) as first:
            assert picture.width == first.width == view.width
            assert picture.height > 1000 > first.height
            shades = picture.convert("L").getextrema()
            assert shades[0] < 60 and shades[1] > 150  # dark, with something on it
    assert (narrow.width, wide.width) == browser.WIDTHS


@needs_browser
def test_errors_and_cut_pages_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<body><div style='width: 700px'>wide</div><script>undefined.x; </script>"
        "<script>console.error('said')</script><img src='gone.png'>"
    )
    (view,) = browser.look(page, widths=(390,), schemes=("light",))
    assert view.scroll_width >= 700
    assert view.picture is None
    assert len(view.errors) == 3


def test_without_a_browser_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install Chromium or Chrome"):
        browser.look(tmp_path / "page.html")
