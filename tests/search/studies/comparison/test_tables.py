"""Finished runs become rows: means and deviations over seeds, of one recipe only."""

from __future__ import annotations

import csv
import io
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from backbones import UserError
from backbones.zoo import load_architecture
from search.studies.comparison.runs import check_recipe, load_run
from search.studies.comparison.tables import (
    classification_table,
    comma_separated,
    compare,
    comparison_figure,
    comparison_summary,
    detection_table,
    markdown,
    paper_results,
    write_comparison,
)
from search.studies.workers import Workers

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COST = {
    "backbone": "spnas_100",
    "params_detector": 9_000_000,
    "params_backbone": 2_700_000,
    "params_classifier": 4_421_616,
    "macs_backbone": 240_000_000,
    "macs_classifier": 345_000_000,
    "input_size": [192, 224],
    "latency_table": "pixel1",
    "runtime": 80.44,
    "runtime_of": "classifier at 224×224",
    "measured_runtime": 9.87,
    "detector_runtime": 120.0,
}


def write_run(
    folder: Path,
    box: float,
    seed: int = 0,
    lr: float = 0.02,
    arch: str = "spnas_100",
    width: float = 1.0,
    builder: str = "build_spnas_fpn_backbone",
    **cost: Any,
) -> tuple[Path, dict[str, Any]]:
    """A folder such as ``tools/train_net.py`` leaves, without having trained."""
    scores = {task: {m: box + i for i, m in enumerate(METRICS)} for task in ("bbox", "segm")}
    config = {
        "SEED": seed,
        "OUTPUT_DIR": str(folder),
        "SOLVER": {"IMS_PER_BATCH": 4, "BASE_LR": lr},
        "MODEL": {
            "BACKBONE": {"NAME": builder},
            "SPNAS": {"ARCH": arch, "WIDTH_MULT": width},
            "WEIGHTS": f"{folder}/x.pth",
        },
    }
    results = {"detection": {"cost": {**COST, **cost}, "scores": {"digits_val": scores}}}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "results.json").write_text(json.dumps(results))
    lines = [{"time": seconds, "iteration": 20} for seconds in (9.0, 0.5, 0.4, 0.5)]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, [*lines, {"bbox/AP": box}])))
    return folder, results


def test_a_comparison_names_tables_that_are_not_to_be_trusted(tmp_path: Path) -> None:
    rough = {"latency_table": "mine", "table_warning": "rough, as it was measured in 2 rounds"}
    folders = [write_run(tmp_path / name, 40.0, **rough)[0] for name in ("a", "b")]
    folders.append(write_run(tmp_path / "c", 41.0)[0])
    runs = [load_run(folder) for folder in folders]
    line = "Predicted by latency table 'mine', which is rough, as it was measured in 2 rounds."
    assert write_comparison(runs, tmp_path / "out").count(line) == 1
    study = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert study["warnings"] == [line]
    write_comparison(runs[2:], tmp_path / "trusted")
    assert "warnings" not in json.loads((tmp_path / "trusted" / "comparison.json").read_text())


def test_a_scale_without_objects(tmp_path: Path) -> None:
    """Of one run or of all, and no masks in one row: a dash in every table, and no point."""
    folders = [write_run(tmp_path / f"a/seed{n}", 40.0 + n, n)[0] for n in range(2)]
    folders.append(write_run(tmp_path / "b", 30.0)[0])
    for folder, metrics in zip(folders, (("APl",), ("APl",), METRICS), strict=True):
        path = folder / "results.json"
        results = json.loads(path.read_text())
        (scores,) = results["detection"]["scores"].values()
        scores["bbox"] |= dict.fromkeys(metrics)
        if folder == folders[-1]:
            del scores["segm"]
        path.write_text(json.dumps(results))
    runs = [load_run(folder) for folder in folders]
    first, second = rows = compare(runs)
    assert first["scores"]["bbox"]["APl"] is None
    assert first["scores"]["bbox"]["APs"][0] == 43.5
    assert second["scores"]["bbox"] == dict.fromkeys(METRICS)
    text = write_comparison(runs, tmp_path / "out")
    assert re.search(r"\| a +\| 2 +\| box +\|( \d[^|]+\|){5} – ", text)
    assert re.search(r"\| b +\| 1 +\| box +\|( – +\|){6}", text)
    (line, other) = csv.DictReader(io.StringIO(comma_separated(rows)))
    assert line["scores.bbox.APl.mean"] == other["scores.bbox.AP.mean"] == ""
    study = {"rows": rows, "hardware": "a machine"}
    assert re.search(r"\| b +\| 1 +\| – +\| – ", comparison_summary(study))
    left, right = comparison_figure(rows).axes
    assert [len(panel.containers) for panel in (left, right)] == [1, 1]
    assert comparison_figure(rows[1:]).axes[0].get_ylabel() == "box AP"


def test_rows_are_means_over_seeds(tmp_path: Path) -> None:
    boxes = [41.0, 43.5, 40.1]
    folders = [write_run(tmp_path / f"a/seed{i}", box, i)[0] for i, box in enumerate(boxes)]
    folders.append(write_run(tmp_path / "b", 30.0, params_backbone=1, runtime=70.0)[0])
    runs = [load_run(folder) for folder in folders]
    check_recipe(runs)
    rows = compare(runs)
    first, second = rows
    assert (first["name"], first["seeds"], second["name"]) == ("a", [0, 1, 2], "b")
    mean, spread = first["scores"]["segm"]["APs"]
    assert mean == pytest.approx(statistics.mean(boxes) + 3)
    assert spread == pytest.approx(statistics.stdev(boxes))
    assert second["scores"]["bbox"]["AP"] == [30.0, 0.0]
    assert first["train_images"] == pytest.approx(4 / 0.5)
    assert first["search_steps"] is None

    text = markdown(detection_table(rows, paper_results()))
    assert "| a " in text
    assert f"{statistics.mean(boxes):.2f} ± {statistics.stdev(boxes):.2f}" in text
    assert "| 30.00 " in text  # one run has no spread
    assert "4.42" in text  # parameters of the classifier
    assert "Single-Path NAS with SE †" in text
    assert "33.03" in text
    assert "†" not in markdown(detection_table(rows, None))

    (line, other) = csv.DictReader(io.StringIO(comma_separated(rows)))
    assert float(line["scores.bbox.AP.mean"]) == pytest.approx(statistics.mean(boxes))
    assert float(line["scores.bbox.AP.std"]) == pytest.approx(statistics.stdev(boxes))
    assert other["cost.runtime (cost.runtime_unit)"] == "70.0"
    assert other["cost.runtime_unit"] == "ms"
    assert other["cost.macs_backbone (at cost.input_size)"] == "240000000.0"

    figure = comparison_figure(rows)
    left, right = figure.axes
    (legend,) = figure.legends
    assert left.get_xlabel() == "predicted (ms)"
    assert figure.get_suptitle() == "Predicted: pixel1, classifier at 224×224, ms."
    assert right.get_ylabel() == "mask AP"
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_a_run_knows_its_network(tmp_path: Path) -> None:
    network = load_architecture("mnasnet_b1")
    file = tmp_path / "searched.json"
    replace(network, provenance={"iterations": 1020}).save(file)
    scaled = network.scaled(0.5).name
    folder, _ = write_run(tmp_path / "a", 30.0, arch=str(file), width=0.5, backbone=scaled)
    searched = load_run(folder)
    assert searched.architecture is not None
    assert searched.architecture.layers == network.scaled(0.5).layers
    (row,) = compare([searched])
    assert row["search_steps"] == 1020
    file.unlink()
    assert load_run(folder).architecture is None
    timm = "build_timm_fpn_backbone"
    other, _ = write_run(tmp_path / "b", 30.0, builder=timm, backbone="resnet50")
    assert load_run(other).architecture is None
    own, _ = write_run(tmp_path / "c", 30.0, builder="build_my_own_pyramid")
    assert load_run(own).architecture == load_architecture("spnas_100")


def test_accuracy_of_the_classifier_stands_beside(tmp_path: Path) -> None:
    detector, _ = write_run(tmp_path / "run", 30.0)
    classifier = tmp_path / "classifier"
    classifier.mkdir()
    val = {"top1": 96.5, "top5": 99.75, "loss": 0.1}
    (classifier / "results.json").write_text(json.dumps({"classification": {"val": val}}))
    rows = compare([load_run(detector, "mine", classifier)])
    text = markdown(classification_table(rows, paper_results()))
    assert "mine" in text
    assert "| 96.50 " in text
    assert "| 99.75 " in text
    assert "75.62" in text  # the paper's network with SE, whose layers were never published


def test_cost_of_the_search_comes_from_the_architecture(tmp_path: Path) -> None:
    from backbones import load_architecture

    folder, _ = write_run(tmp_path / "run", 30.0)
    found = load_architecture("spnas_100").to_dict()
    found["provenance"] = {"iterations": 1234}
    (tmp_path / "architecture.json").write_text(json.dumps(found))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["MODEL"]["SPNAS"]["ARCH"] = str(tmp_path / "architecture.json")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = compare([load_run(folder)])
    assert "1,234 steps" in markdown(classification_table(rows, None))


def test_runtimes_of_two_tables_do_not_stand_together(tmp_path: Path) -> None:
    """Neither in a column, nor in a plot, nor in a mean; a note names the one table."""
    own = {"latency_table": "my_cpu", "runtime": 9.5, "measured_with": "torch, x, 224×224"}
    folders = [write_run(tmp_path / "a", 1.0)[0], write_run(tmp_path / "b", 2.0, **own)[0]]
    runs = [load_run(folder) for folder in folders]
    headers, (first, *_) = detection_table(compare(runs[:1]), None)
    shown = dict(zip(headers, first, strict=True))
    assert shown["predicted (ms)"] == "80.44"
    text = write_comparison(runs[:1], tmp_path / "c")
    assert "\n\nPredicted: pixel1, classifier at 224×224, ms.\n" in text
    assert shown["Params (M), classifier"] == "4.42"
    assert shown["MACs (G), trunk at 192×224"] == "0.24"
    rows = compare(runs)
    assert [row["cost"]["runtime"] for row in rows] == [80.44, 9.5]
    for table in (detection_table(rows, None), classification_table(rows, None)):
        assert "80.44" not in markdown(table) and "9.50" not in markdown(table)
    text = write_comparison(runs, tmp_path / "c")
    assert "Predicted runtimes are left out, for they do not compare: they are of my_cpu, " in text
    assert "Measured runtimes are left out" in text
    left, _ = comparison_figure(rows).axes
    assert left.get_xlabel() == "multiply-accumulates of the trunk"
    (mixed,) = compare([replace(run, name="random", seed=i) for i, run in enumerate(runs)])
    assert mixed["cost"]["runtime"] is None


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", 1.0)[0], write_run(tmp_path / "b", 1.0, lr=0.04)[0]]
    with pytest.raises(
        UserError, match=r"b' was trained by another .* SOLVER.BASE_LR 0.04 for 0.02"
    ):
        check_recipe([load_run(folder) for folder in folders])


def test_a_row_of_several_networks(tmp_path: Path) -> None:
    """Ten random networks are one row: their mean, and how they differ."""
    boxes, runtimes = [40.0, 42.0, 47.0], [79.0, 80.0, 79.4]
    runs = [
        load_run(write_run(tmp_path / f"r{i}", box, backbone=f"r{i}", runtime=time)[0], "random")
        for i, (box, time) in enumerate(zip(boxes, runtimes, strict=True))
    ]
    (row,) = compare(runs)
    assert (row["runs"], row["networks"], row["seeds"]) == (3, 3, [0])
    assert row["scores"]["bbox"]["AP"] == pytest.approx([43.0, statistics.stdev(boxes)])
    assert row["cost"]["runtime"] == pytest.approx(statistics.mean(runtimes))
    assert "3 of 3 networks" in markdown(detection_table([row], None))


def test_a_run_counts_once(tmp_path: Path) -> None:
    one = load_run(write_run(tmp_path / "a/seed0", 1.0)[0])
    same = load_run(write_run(tmp_path / "a/seed1", 1.0)[0])
    with pytest.raises(UserError, match="two runs of 'a' are of 'spnas_100' with seed 0"):
        compare([one, same])


def test_a_configuration_of_a_run_is_data(tmp_path: Path) -> None:
    folder, _ = write_run(tmp_path / "a", 1.0)
    (folder / "config.yaml").write_text(
        f'SEED: !!python/object/apply:os.system ["touch {tmp_path / "ran"}"]\n'
    )
    with pytest.raises(UserError, match="config.yaml' is not the configuration of a run: could"):
        load_run(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (None, "no results of a run"),
        ({"classification": {}}, "is not a run of '.* tools/train_net.py'"),
        ({"detection": {"cost": COST, "scores": {"x": {}, "y": {}}}}, "was evaluated on x, y"),
    ],
)
def test_folders_that_are_no_run(tmp_path: Path, results: Any, message: str) -> None:
    if results is not None:
        (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=message):
        load_run(tmp_path)


def test_a_comparison_says_how_many_threads_its_runs_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [load_run(write_run(tmp_path / "a", 40.0)[0])]
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)

    def hardware(workers: int) -> str:
        write_comparison(runs, tmp_path, workers=Workers(workers))
        return str(json.loads((tmp_path / "comparison.json").read_text())["hardware"])

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert hardware(1).endswith(", 8 threads")
    assert hardware(2).endswith(", 2 processes of 4 threads")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert hardware(2).endswith(", 2 processes of 3 threads")
