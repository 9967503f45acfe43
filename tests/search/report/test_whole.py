"""The page of a ``spnas auto``: its answer, its front in one plot, data, files and stages."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from backbones import UserError, load_architecture
from search.auto.outcome import OUTCOME_FILE, Outcome
from search.report.charts import SERIES
from search.report.targets import Network, targets_chart
from search.report.whole import Whole, size, took
from tests.search.report.run_files import WHOLE, write_detector
from tests.search.report.test_page import page_of

FOUND = [name for name, row in WHOLE.items() if row[0] == "found"]


def without(folder: Path, tmp_path: Path, *names: str) -> Path:
    """A copy of the folder that lacks some rows."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / OUTCOME_FILE).read_text())
    content["rows"] = [row for row in content["rows"] if row["folder"] not in names]
    (copy / OUTCOME_FILE).write_text(json.dumps(content))
    return copy


def test_the_answer_stands_first(whole: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, whole)
    assert page.texts[2] == "spnas_around_efficientnet_lite0_15ms"
    assert page.texts[3] == (
        "Found for 15 ms on a processor with onnxruntime, images of 320×320. The baseline is "
        "baseline_network: efficientnet_lite0 narrowed to 74 % of its channels. The start is "
        "start_network."
    )
    assert page.after("box AP") == "40.0"
    assert page.after("40.0") == "+1.2 to the baseline, -4.5 to the start, small 20.0, medium 41.0"
    assert page.after("predicted") == "14.90 ms"
    assert page.after("14.90 ms") == "target 15 ms (-0.7 %), by table my_cpu"
    assert page.after("measured") == "15.60 ms"
    assert page.after("files") == "6.2 MB"
    assert page.after("time for all") == "37 min"
    assert page.after("37 min") == "budget 1 h 30 min"
    assert page.titles[:3] == ["The networks of one search", "Files for the device", "The network"]


def test_all_networks_are_in_one_table_with_their_targets(whole: Path, tmp_path: Path) -> None:
    texts = page_of(tmp_path, whole).texts
    rows = texts[texts.index("params (M)") :]
    for number, (name, row) in enumerate(WHOLE.items(), start=1):
        role, target, ap, predicted, measured = row
        place = next(i for i, text in enumerate(rows) if text == str(number))
        cells = rows[place + 1 :]
        if target:
            assert cells[0].endswith(f"_{target:g}ms")
            assert cells[1] == f"{role} for {target:g} ms"
            off = 100 * (predicted / target - 1)
            assert cells[3] == f"{off:+.1f} % of {target:g}"
            del cells[3]
        else:
            assert cells[:2] == [f"{name}_network", role]
        small = ap - 20
        assert cells[2:6] == [f"{predicted:.2f}", f"{measured:.2f}", f"{ap:.1f}", f"{small:.1f}"]
        rows = rows[place + 1 :]


def test_differences_are_to_the_baseline_whatever_the_folders_are_called(
    whole: Path, tmp_path: Path
) -> None:
    page = page_of(tmp_path, whole)
    assert "Small figures: difference to baseline_network, auto/baseline." in page.texts
    assert page.texts.count("+1.2") == 14  # by scale and class, of boxes and masks
    other = write_detector(tmp_path / "other", name="other_net")
    page = page_of(tmp_path, whole, baseline=other)
    assert any(text.startswith("Small figures: difference to other_net") for text in page.texts)
    alone = page_of(tmp_path, without(whole, tmp_path, "baseline"))
    assert alone.after("40.0") == "-4.5 to the start, small 20.0, medium 41.0"


def test_files_data_stages_and_commands(whole: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, whole)
    for folder in FOUND:
        place = page.texts.index(f"export/onnx/{folder}.onnx")
        assert page.texts[place + 2 : place + 5] == ["onnx image", "5.3 MB", "16.10 ms"]
        assert f"export/onnx/{folder}.boxes.onnx" in page.texts
    assert page.titles.count("The data") == 1
    place = page.texts.index("cat", page.texts.index("Objects by class and scale"))
    assert page.texts[place + 1 : place + 9] == ["20", "4", "10", "6", "6", "1", "2", "3"]
    place = page.texts.index("dog", place)
    assert page.texts[place + 5 : place + 9] == ["–"] * 4
    for text in (
        "3 × boxes outside, first 'a.jpg'",
        "photos/val: nothing.",
        "a tenth of the objects are below 19 px",
        "spnas auto --data photos --targets 15ms 10ms 20ms --budget 90m",
        "Profile onnxruntime: 12 min (planned 11 min)",
        "spnas profile --output t.json",
        "Train a published backbone: not run yet (planned 15 min)",
    ):
        assert text in page.texts


def test_without_data_the_logs_say_what_they_were(whole: Path, tmp_path: Path) -> None:
    copy = without(whole, tmp_path)
    (copy / "data.json").unlink()
    page = page_of(tmp_path, copy)
    assert "Training on train: 12 images, 34 objects" in page.texts
    assert "What they are trained with" not in page.texts


def test_networks_are_drawn_also_where_the_folder_was_moved(whole: Path, tmp_path: Path) -> None:
    copy = without(whole, tmp_path)
    for target in (10, 20):
        file = copy / "search" / "family" / str(target) / "architecture.json"
        file.parent.mkdir(parents=True)
        load_architecture("mnasnet_b1" if target == 10 else "spnas_100").save(file)
        config = copy / f"found_{target}ms" / "config.yaml"
        gone = f"/gone/auto/search/family/{target}/architecture.json"
        config.write_text(config.read_text().replace("ARCH: mnasnet_b1", f"ARCH: {gone}"))
    titles = page_of(tmp_path, copy).titles
    drawn = [title for title in titles if title.startswith("The network: ")]
    assert drawn == [
        "The network: mnasnet_b1, copy/search",
        "The network: spnas_100, copy/found_20ms",
    ]


def test_an_unfinished_one_is_said_to_be(whole: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, without(whole, tmp_path, *FOUND))
    assert page.texts[2:4] == ["Not finished yet", "3 of 4 stages done."]
    assert "The networks of one search" in page.titles


def test_text_is_no_markup(whole: Path, tmp_path: Path) -> None:
    copy = without(whole, tmp_path)
    evil = "<script>alert(1)</script>"
    for file in (OUTCOME_FILE, "data.json"):
        text = (copy / file).read_text().replace("photos", evil).replace("start_network", evil)
        (copy / file).write_text(text)
    page = page_of(tmp_path, copy)
    assert page.tags.count("script") == 1
    assert any(evil in text for text in page.texts)


def test_a_machine_of_another_pace_is_said_to_be(whole: Path, tmp_path: Path) -> None:
    """Measured three times as slow: the plot has runtimes of one pace, the table both."""
    before = page_of(tmp_path, whole)
    assert not any("times as slow" in text for text in before.texts)
    copy = without(whole, tmp_path)
    content = json.loads((copy / OUTCOME_FILE).read_text())
    for row in content["rows"]:
        row["measured"] *= 3
        if row["role"] == "baseline":
            row["predicted"] = None
    (copy / OUTCOME_FILE).write_text(json.dumps(content))
    texts = page_of(tmp_path, copy).texts
    pace = 3 * 23.9 / 22.6
    said = f"on a machine {pace:.2g} times as slow as by the table"
    assert texts[texts.index("46.80 ms") + 1].endswith(said)
    assert f"{3 * 15 / pace:.2f}" in texts[: texts.index("beside the start")][-1]
    assert any(text.startswith(f"Measured {said}: the plots have") for text in texts)
    found = Whole.read(copy)
    assert found is not None
    filled = [mark for mark in markers(found.charts[0].svg) if mark[0] == "var(--c5)" and mark[1]]
    assert len(filled) == 2  # the baseline, and the legend's


def test_a_damaged_file_is_named(whole: Path, tmp_path: Path) -> None:
    copy = without(whole, tmp_path)
    content = json.loads((copy / OUTCOME_FILE).read_text())
    del content["rows"][0]["scores"]
    (copy / OUTCOME_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"auto\.json: rows\[0\]: the key 'scores' is missing"):
        page_of(tmp_path, copy)


def markers(svg: str) -> list[tuple[str, bool, float, float]]:
    """Colour, whether filled, x and y of every marker."""
    uses = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="([^"]*)"', svg)
    drawn = [(x, y, style, re.search(r"stroke: (var\(--c\d\))", style)) for x, y, style in uses]
    return [
        (colour[1], "fill-opacity: 0" not in style, float(x), float(y))
        for x, y, style, colour in drawn
        if colour
    ]


def test_the_plot_has_all_networks_and_targets() -> None:
    """Filled at the prediction and hollow at the measurement, on one height; the baseline too."""
    networks = [
        Network(1, "found", 30.0, 10.0, 11.0),
        Network(2, "found", 35.0, 15.0, 16.0),
        Network(3, "found", 38.0, 20.0, None),
        Network(4, "start", 40.0, 22.0, 23.0),
        Network(5, "baseline", 33.0, None, 15.5),
        Network(6, "found", 50.0, None, None),  # without a runtime it has no place
    ]
    chart = targets_chart("box AP", "runtime (ms)", networks, [10.0, 15.0, 20.0])
    assert len(SERIES) >= 5
    drawn = markers(chart.svg)
    by_colour = {
        colour: [mark for mark in drawn if mark[0] == f"var(--c{colour})"] for colour in (1, 2, 5)
    }
    for drawn_so in by_colour.values():  # the legend is below all of the plot
        drawn_so.remove(max(drawn_so, key=lambda mark: mark[3]))
    filled, hollow = ([m for m in by_colour[1] if m[1] is f] for f in (True, False))
    assert (len(filled), len(hollow)) == (3, 2)
    assert [len(by_colour[c]) for c in (2, 5)] == [2, 1]
    places = sorted((x, y) for _, _, x, y in filled)
    hollows = sorted((x, y) for _, _, x, y in hollow)
    scale = (places[1][0] - places[0][0]) / 5.0  # units of the drawing for a millisecond
    assert places[2][0] - places[1][0] == pytest.approx(5 * scale, rel=1e-3)
    for (x, y), (other, height) in zip(places, hollows, strict=False):
        assert height == pytest.approx(y)
        assert other - x == pytest.approx(scale, rel=1e-2)
    lines = re.findall(
        r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n"[^>]*stroke-dasharray: 0', chart.svg
    )
    vertical = sorted(float(a) for a, b in lines if a == b)
    assert [x for x, _ in places] == pytest.approx(vertical, abs=0.01)
    assert all(f">{name}<" in chart.svg for name in ("predicted", "measured", "targets"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12.4, "12 s"),
        (99.0, "99 s"),
        (100.0, "2 min"),
        (3599.0, "1 h 0 min"),
        (5040.0, "1 h 24 min"),
    ],
)
def test_times(value: float, expected: str) -> None:
    assert took(value) == expected


def test_sizes() -> None:
    assert [size(count) for count in (640_400, 18_249_000)] == ["640 kB", "18.2 MB"]


def test_a_folder_of_runs_is_none(runs: Path, whole: Path) -> None:
    assert Whole.read(runs) is None
    found = Whole.read(whole)
    assert found is not None
    assert Outcome.load(whole) == found.outcome
    assert [folder.name for folder in found.found] == FOUND
    assert [folder.name for folder in found.compared][:3] == ["found_15ms", "baseline", "start"]
