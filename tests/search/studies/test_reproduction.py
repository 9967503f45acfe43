"""What the paper's tables and figures take, counted again from its own figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from search.studies.reproduction import WORKS, Work, gpu_hours, hours_section, se_section

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
IMAGES = 1_281_167
STEP = {"seconds": 0.036}
SEARCH = dict.fromkeys(("supernet", "multi_path", "largest"), STEP)
REPORT = {
    "parts": {
        name: {"figures": {setting: {"steps": steps}}, "command": command, "hardware": "a GPU"}
        for name, setting, steps, command in (
            ("b", "float32", SEARCH, "one"),
            ("c", "float32", {"spnas": STEP}, "one"),
            ("d", "training, float32, batch 16", {"spnas_100": STEP}, "two"),
        )
    }
}
"""Every step takes a hundred-thousandth of an hour."""


@pytest.mark.parametrize("kind", ["searched", "multi_path", "trained", "largest"])
def test_an_epoch_is_imagenet_once(kind: str) -> None:
    """In batches of 128, a GPU's part of the paper's 1,024."""
    work = Work("a", "b", **{kind: 2.0})  # type: ignore[arg-type]
    assert gpu_hours(work, REPORT) == pytest.approx(2 * IMAGES / 128 * 1e-5, rel=1e-4)


def test_a_detector_is_the_1x_schedule_on_one_gpu() -> None:
    assert gpu_hours(Work("a", "b", detectors=2), REPORT) == pytest.approx(2 * 90_000 * 1e-5)


def test_works_are_those_of_the_paper() -> None:
    """Sec. V and VII: 8 epochs a search, 350 a training, 20 searches, five times 400 epochs."""
    works = {work.of: work for work in WORKS}
    assert works["Table I, random search"].trained == 10 * 350
    assert works["Fig. 8"].searched == 3 * 20 * 8
    grid = 8 * (2 + 3 + 4 + 5 + 6 + 7 + 8)
    assert works["Fig. 9"].searched == 3 * 5 * 400 + grid


def test_sections_name_where_their_figures_are_from() -> None:
    text = hours_section(REPORT)
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 1 + len(WORKS)
    assert "`one`; a GPU." in text and "`two`; a GPU." in text
    assert text.count("`one`") == 1


def test_se_factors_of_early_and_of_late_layers() -> None:
    """Those of a table's own file, averaged by hand."""
    path = ROOT / "docs" / "results" / "latency-xeon_litert_224.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    means = {ratio: [mean for _, mean, _ in rows] for ratio, rows in report["se_factors"].items()}
    text = se_section({"se_factors": {}}, report)
    *_, row = text.splitlines()
    assert len(text.splitlines()) == 3
    cells = [float(x) for x in re.findall(r"([\d.]+) ×", row)]
    expected = [
        *(sum(means[r][:16]) / 16 for r in ("0.25", "0.5")),
        *(sum(means[r][16:]) / 4 for r in ("0.25", "0.5")),
    ]
    assert cells == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    ("of", "title"),
    [
        *((f"Table {number}", f"Table {number}") for number in ("I", "II", "III")),
        *((f"Figs. {pair}", f"Figs. {pair}") for pair in ("2 and 3",)),
        *((f"Fig. {number}", f"Fig. {number}") for number in (4, 8, 9)),
        *((f"Fig. {number}", "Figs. 1 and 7") for number in (1, 7)),
        *((f"Fig. {number}", "Figs. 5 and 6") for number in (5, 6)),
    ],
)
def test_every_table_and_figure_has_its_part(of: str, title: str) -> None:
    """A row of the first table leads to its command at full size, and to what was run here."""
    anchor = title.lower().replace(".", "").replace(" ", "-")
    assert PAGE.count(f"\n| [{of}](#{anchor}): ") == 1
    part = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert "```bash\npython tools/" in part
    assert "\n- **In small**: " in part
