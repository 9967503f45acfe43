"""``make api`` ends where a page would be wrong; tried on a small package, as all take long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONF = Path(__file__).resolve().parents[1] / "docs" / "api" / "conf.py"
MODULE = '''"""Things of every kind."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIMIT", "Thing", "make"]

LIMIT = 3
"""How many: no more than these."""


@dataclass
class Thing:
    """One thing.

    Attributes:
        size: in pixels.
    """

    size: int


def make(size: int) -> Thing:
    """Makes a :class:`Thing`, at most :data:`LIMIT`.

    Returns:
        The thing: a new one.

    Raises:
        ValueError: if it is too large.
    """
    return Thing(size)
'''
PACKAGE = '''"""What is offered."""

from made_up.things import Thing, make

__all__ = ["Thing", "make"]
'''


def built(folder: Path, builder: str, module: str = MODULE) -> subprocess.CompletedProcess[str]:
    """The pages of a package ``made_up``, in ``pages`` of a folder."""
    package, source = folder / "made_up", folder / "source"
    package.mkdir()
    source.mkdir()
    (package / "__init__.py").write_text(PACKAGE)
    (package / "things.py").write_text(module)
    # what make api reads, for another package
    (folder / "conf.py").write_text(
        f"__file__ = {str(CONF)!r}\nexec(compile(open(__file__).read(), __file__, 'exec'))\n"
        f"PACKAGES = ('made_up',)\nsys.path.insert(0, {str(folder)!r})\n"
    )
    options = ("-c", str(folder), "-b", builder, "-qEW", "--keep-going")
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(source), str(folder / "pages")],
        capture_output=True,
        text=True,
    )


def test_pages_of_a_package(tmp_path: Path) -> None:
    """What it offers stands on the first page, with a link to where it is defined."""
    run = built(tmp_path, "html")
    assert run.returncode == 0, run.stderr
    first = (tmp_path / "pages" / "index.html").read_text(encoding="utf-8")
    assert "What is offered." in first
    for name in ("Thing", "make"):
        assert f'href="modules/made_up.things.html#made_up.things.{name}"' in first
    page = (tmp_path / "pages" / "modules" / "made_up.things.html").read_text(encoding="utf-8")
    assert "How many: no more than these." in page
    assert page.count('href="#made_up.things.Thing"') > 1  # its heading, and what makes it


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":class:`Thing`", ":class:`Think`", "py:class reference target not found: Think"),
        (":data:`LIMIT`", ":data:`made_up.LIMITS`", "reference target not found: made_up.LIMITS"),
        ("ValueError:", "ValeError:", "py:exc reference target not found: ValeError"),
        ("One thing.", "One *thing.", "Inline emphasis start-string without end-string"),
        ("from dataclasses import", "from no_such_library import", "No module named 'no_such_lib"),
        ('"""Things of every kind."""', "", "made_up.things has no docstring"),
        ('"make"]', '"makes"]', "makes"),
    ],
)
def test_what_is_wrong_ends_the_build(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert MODULE.count(old) == 1
    run = built(tmp_path, "dummy", MODULE.replace(old, new))
    assert run.returncode != 0
    assert message in run.stderr
