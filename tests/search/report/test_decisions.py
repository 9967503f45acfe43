"""When decisions fell, by the metrics of a search."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from search.report.charts import Heat
from search.report.decisions import Fall, histories
from search.report.runs import read_run
from tests.search.report.run_files import write_metrics, write_run


def test_the_last_change_of_every_decision(runs: Path) -> None:
    kernel, keep = histories(read_run(runs / "search"))
    assert (kernel.kind, keep.kind) == ("kernel", "keep")
    assert kernel.falls() == []
    assert keep.falls() == [Fall(59, 2, "layer or skip", "keep", "skip")]
    assert list(keep.weights) == [2]  # layer 1 cannot be skipped
    assert np.allclose(kernel.weights[2][0], [0.6, 0.4])


def test_options_are_in_the_order_of_their_sizes(tmp_path: Path) -> None:
    """A decision that comes and goes counts once, with its last change."""
    weights = [(0.7, 0.2, 0.1), (0.1, 0.2, 0.7), (0.7, 0.2, 0.1), (0.2, 0.5, 0.3)]
    run = write_run(tmp_path / "run", "search_net.py", {})
    write_metrics(run, [
        {"iteration": index, "decisions/layer01_se_0.5": large, "decisions/layer01_se_0": none,
         "decisions/layer01_se_0.25": middle}
        for index, (none, middle, large) in enumerate(weights)
    ])  # fmt: skip
    (history,) = histories(read_run(run))
    assert history.options[1] == ("0", "0.25", "0.5")
    assert history.falls() == [Fall(3, 1, "squeeze-and-excitation", "0", "0.25")]


def test_paths_of_a_supernet_of_many_paths(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "search_net.py", {})
    write_metrics(run, [
        {"iteration": index, "decisions/layer01_3x3-6": 1 - share, "decisions/layer01_skip": share}
        for index, share in enumerate((0.2, 0.9))
    ])  # fmt: skip
    (history,) = histories(read_run(run))
    assert history.falls() == [Fall(1, 1, "type", "3x3-6", "skip")]
    assert history.chart().svg.count("<image") == 1


def test_steps_that_were_repeated_count_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "search_net.py", {})
    rows = [{"iteration": i, "decisions/layer01_kernel_3": 0.4, "decisions/layer01_kernel_5": 0.6}
            for i in (19, 39, 39, 59)]  # fmt: skip
    write_metrics(run, rows)
    (history,) = histories(read_run(run))
    assert history.iterations == (19, 39, 59)


@pytest.mark.parametrize("count", [0, 1])
def test_no_course_of_one_moment(tmp_path: Path, count: int) -> None:
    run = write_run(tmp_path / "run", "search_net.py", {})
    write_metrics(run, [{"iteration": 19, "decisions/layer01_kernel_3": 1.0}][:count])
    assert histories(read_run(run)) == []


def test_a_picture_has_the_shades_of_the_values() -> None:
    """Of Matplotlib's own map, on white, with nothing cut off at its edges."""
    values = np.array([[0.0] * 8, [1.0] * 8, [np.nan] * 8])
    note = "pale: the smallest kernel, dark: the largest; a dot: the decision fell the other way, "
    heat = Heat("kernel size", range(19, 179, 20), values, [(0, 4)], note + "for the last time")
    pixels = heat.picture()
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    shades = {tuple(colour): count for colour, count in zip(colours.tolist(), counts, strict=True)}
    ends = (mpl.colormaps["PuBu"](value, bytes=True)[:3] for value in (0.0, 1.0))
    pale, dark = (tuple(map(int, colour)) for colour in ends)
    assert shades[pale] == pytest.approx(shades[dark], rel=0.03)  # less the dot
    assert shades[dark] > 0.1 * counts.sum() and (209, 73, 91) in shades
    edges = np.concatenate([pixels[:2].reshape(-1, 3), pixels[:60, :2].reshape(-1, 3),
                            pixels[:60, -2:].reshape(-1, 3)])  # fmt: skip
    assert (edges == 255).all()
