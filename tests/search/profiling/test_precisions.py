"""Tables in int8: made, kept apart from others, judged, searched on, and compared with float."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import Architecture, LatencyTable, UserError, predict_runtime
from backbones.architecture import HeadSpec, LayerSpec, StemSpec
from backbones.files import write_json
from backbones.inference import make_engine
from detection.deployment import Deployment, measured_with
from search.profiling import profiler
from search.profiling.evaluation import evaluate_table, table_engine
from search.profiling.networks import measure_architectures
from search.profiling.profiler import profile_space
from search.profiling.report import latency_section
from search.profiling.workload import constant_items, layer_items, network_item
from search.runs.classification import SearchTrainer
from search.space import SearchSpace, Stage
from tests.search.conftest import SHORT, make_cfg
from tests.search.profiling.conftest import KnownEngine

DEPLOYMENT = Deployment("classification", (64, 64))
ROOT = Path(__file__).resolve().parents[3]


def tables(space: SearchSpace, folder: Path) -> list[LatencyTable]:
    """Of the engine with known runtimes, in single precision and in int8."""
    return [
        profile_space(
            space, KnownEngine(precision=precision), DEPLOYMENT, folder / f"{precision}.json", 5, 12
        )
        for precision in ("fp32", "int8")
    ]


def test_a_table_says_its_precision(
    small_space: SearchSpace, engine: KnownEngine, tmp_path: Path
) -> None:
    for table in tables(small_space, tmp_path):
        again = LatencyTable.load(tmp_path / f"{table.name}.json")
        assert again == table
        assert table_engine(again).precision == table.name
    assert (tmp_path / "int8.json").read_text().count('"precision": "int8"') == 1
    data = json.loads((tmp_path / "fp32.json").read_text())
    assert data.pop("precision") == "float32"
    (tmp_path / "older.json").write_text(json.dumps(data))
    assert table_engine(LatencyTable.load(tmp_path / "older.json")).precision == "fp32"


def test_a_table_is_judged_in_its_own_precision(
    small_space: SearchSpace, engine: KnownEngine, tmp_path: Path
) -> None:
    """The other precision's runtimes would be far off."""
    _, table = tables(small_space, tmp_path)
    report = evaluate_table(table, small_space, tmp_path / "report.json", 6, rounds=5)
    assert report["precision"] == "int8"
    assert report["scores"]["all"]["mean_error"] < 0.1
    in_float = dataclasses.replace(table, precision="float32")
    wrong = evaluate_table(in_float, small_space, tmp_path / "wrong.json", 6, rounds=5)
    assert wrong["scores"]["as measured"]["mean_error"] > 30
    text = latency_section({**report, "table_source": "here"})
    assert "| `int8`: classification, 64×64, int8 |" in text


def test_precisions_are_not_mixed(
    small_space: SearchSpace, engine: KnownEngine, tmp_path: Path
) -> None:
    table = dataclasses.replace(tables(small_space, tmp_path)[1], name="mine")
    network = small_space.largest()
    with pytest.raises(UserError, match="'mine' is in int8, and --precision is fp32; measure with"):
        measure_architectures([network], engine, DEPLOYMENT, 2, table)
    (row,) = measure_architectures([network], KnownEngine(precision="int8"), DEPLOYMENT, 2, table)
    assert row["error"] == pytest.approx(0, abs=0.1)
    with pytest.raises(UserError, match="'mine' was measured in int4; only tables in float32, flo"):
        table_engine(dataclasses.replace(table, precision="int4"))
    assert measured_with(table_engine(table), DEPLOYMENT).startswith("known int8, ")
    partial = tmp_path / "again.partial"
    partial.mkdir()
    setting = profiler._setting(small_space, engine, DEPLOYMENT, 5)
    write_json(partial / "setting.json", setting)
    (partial / "visits.jsonl").write_text('["stem", 0, 1.0]\n')
    with pytest.raises(UserError, match="unfinished profile with another precision"):
        profile_space(
            small_space, KnownEngine(precision="int8"), DEPLOYMENT, tmp_path / "again.json", 5, 12
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("torch", "int8"), "--precision is int8; PyTorch has fp32 on cpu: use --precision fp32, "),
        (("onnxruntime", "int4"), "invalid choice: 'int4'"),
    ],
)
def test_what_an_engine_lacks_ends_with_code_2(arguments: tuple[str, str], message: str) -> None:
    engine, precision = arguments
    options = ["--engine", engine, "--precision", precision, "--output", "t.json"]
    command = [sys.executable, str(ROOT / "tools/profile_latency.py"), *options]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def test_where_parts_are_in_a_network(small_space: SearchSpace) -> None:
    detection = Deployment("detection", (64, 96), fpn_channels=16)
    assert {item.place for item in layer_items(small_space, DEPLOYMENT)} == {"middle"}
    places = [
        {item.key: item.place for item in constant_items(small_space, deployment)}
        for deployment in (DEPLOYMENT, detection)
    ]
    assert places[0] == {"stem": "first", "tail": "last"}
    assert places[1] == {"stem": "first", "tail": "middle", "fpn": "last"}
    assert network_item(small_space.largest(), DEPLOYMENT).place == "whole"


TINY = SearchSpace(
    "tiny",
    StemSpec(8),
    (LayerSpec(8, op="ds"), LayerSpec(8, op="ds", stride=2), LayerSpec(8, op="ds", stride=2)),
    (Stage(8, 1, 2),),
    (LayerSpec(8, op="ds", stride=2),),
    HeadSpec(16),
    kernel_sizes=(3,),
    expansions=(3,),
    se_ratios=(0, 0.5),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
def test_a_profile_in_int8(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two candidates, stem and tail, all converted, quantised and timed."""
    deployment = Deployment("classification", (64, 64), num_classes=4)
    pace = dataclasses.replace(constant_items(TINY, deployment)[0], key="pace")
    monkeypatch.setattr(profiler, "reference_item", lambda _: pace)
    output = tmp_path / "tiny.json"
    engine = make_engine(name, precision="int8")
    profile_space(TINY, engine, deployment, output, 1, correction_networks=0)
    table = LatencyTable.load(output)
    assert (table.engine, table.precision) == (name, "int8")
    (row,) = table.layers
    assert len(row.runtimes) == 2
    assert min(row.runtimes.values()) > 0


def test_a_search_ends_at_a_target_in_int8(
    small_space: SearchSpace,
    engine: KnownEngine,
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    _, table = tables(small_space, tmp_path)
    write_json(tmp_path / "space.json", small_space.to_dict())
    target = 0.8 * predict_runtime(small_space.largest(), table)
    options = ("SEARCH.SPACE", str(tmp_path / "space.json"), "SEARCH.TARGET", str(target))
    options += ("SEARCH.LATENCY_TABLE", str(tmp_path / "int8.json"), "SEARCH.DEPLOY_SIZE", "64,64")
    cfg = make_cfg("search/digits_small.yaml", images, tmp_path / "run", *options, *SHORT)
    SearchTrainer(cfg).train()
    results = json.loads((tmp_path / "run" / "results.json").read_text())["search"]
    assert results["precision"] == "int8"
    assert "latency table 'int8' of networks in int8" in caplog.text
    assert results["measured_with"].startswith("known int8, ")
    found = Architecture.load(tmp_path / "run" / "architecture.json")
    network = network_item(found, DEPLOYMENT)
    measured = KnownEngine(precision="int8").compile(network.build, network.inputs()).runtime
    assert measured == pytest.approx(target, rel=0.1)
    assert measured <= target * 1.001
