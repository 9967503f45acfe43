"""Whether a table is of the space that is searched, and reaches the targets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backbones import UserError, load_architecture
from backbones.inference.hardware import device_name
from backbones.latency import LatencyTable, predict_runtime
from detection.deployment import Deployment
from search.auto import tables as module
from search.auto.request import Request
from search.auto.tables import check_reachable, check_table, misfit, shipped_table
from search.space import SearchSpace
from search.start.around import Options, space_around
from tests.search.auto.stand_ins import LITE0, TABLE

DEPLOYED = Deployment("detection", (320, 320), fpn_channels=64)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return space_around(load_architecture(LITE0), Options())[0]


def test_the_table_that_comes_with_the_package_fits(space: SearchSpace) -> None:
    assert misfit(LatencyTable.load(TABLE), space, DEPLOYED) == ""
    assert check_table(TABLE, space, DEPLOYED).name == TABLE


@pytest.mark.parametrize(
    ("name", "deployed", "reason"),
    [
        ("epyc_onnxruntime_lite0_224", DEPLOYED, "is for classifiers"),
        (TABLE, replace(DEPLOYED, input_size=(256, 256)), "is for 320×320 images, not 256×256"),
        (TABLE, replace(DEPLOYED, fpn_channels=128), "is for a pyramid of 64 channels, not 128"),
        ("xeon_onnxruntime_fpn64_320", DEPLOYED, "does not have all layers of search space"),
    ],
)
def test_a_table_of_something_else(
    space: SearchSpace, name: str, deployed: Deployment, reason: str
) -> None:
    with pytest.raises(UserError, match=f"--table is '{name}', but that {reason}"):
        check_table(name, space, deployed)


def test_a_table_of_this_very_device_takes_the_place_of_a_profile(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Request("photos", (15.0,))
    monkeypatch.setattr(module, "device_name", lambda device: LatencyTable.load(TABLE).device)
    assert shipped_table(asked, space, DEPLOYED) == TABLE
    assert shipped_table(asked, space, replace(DEPLOYED, input_size=(256, 256))) == ""
    assert shipped_table(replace(asked, engine="torch"), space, DEPLOYED) == ""
    monkeypatch.setattr(module, "device_name", lambda device: f"not {device_name(device)}")
    assert shipped_table(asked, space, DEPLOYED) == ""


def test_targets_between_the_smallest_and_the_largest_network(space: SearchSpace) -> None:
    """Their runtimes are those of the networks themselves; what is named can be reached."""
    table = LatencyTable.load(TABLE)
    low, high = (predict_runtime(n, table) for n in (space.smallest(), space.largest()))
    check_reachable([low * 1.001, high * 0.999], LITE0, space, table)
    with pytest.raises(UserError, match=rf"takes {low:.2f} ms at 320×320") as small:
        check_reachable([15.0, low / 2], LITE0, space, table)
    named = float(str(small.value).split("ask for ")[1].split("ms")[0])
    assert low <= named <= low * 1.01
    check_reachable([named], LITE0, space, table)
    with pytest.raises(UserError, match=f"is 900 ms, but the largest network .* {high:.2f}"):
        check_reachable([900.0], LITE0, space, table)


def test_a_table_that_is_kept_is_named(space: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"table 'epyc.*' \(kept as 'x'\); ask for"):
        check_reachable([1.0], LITE0, space, LatencyTable.load(TABLE), " (kept as 'x')")
