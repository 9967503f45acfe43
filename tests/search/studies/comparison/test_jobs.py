"""A comparison's runs are the user's commands; what is finished is not run again."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backbones import Architecture, UserError
from backbones.inference import Engine, make_engine
from backbones.latency import LatencyTable, predict_runtime
from backbones.zoo import load_architecture
from detection.deployment import Deployment
from detection.report import ModelCost
from search.config import load_search_config
from search.studies.comparison import jobs as module
from search.studies.comparison.jobs import (
    Entry,
    entries,
    job_of,
    random_entries,
    train,
    with_measured_runtimes,
)
from search.studies.comparison.runs import DetectorRun
from search.studies.workers import Workers
from tests.miniatures import write_coco

ROOT = Path(__file__).resolve().parents[4]
CONFIG = "configs/detection/mask_rcnn_spnas_fpn_1x.yaml"


def test_rows_of_a_command_line() -> None:
    assert entries([CONFIG], []) == [Entry("spnas_100", CONFIG)]
    timm = "configs/detection/mask_rcnn_timm_fpn_1x.yaml"
    assert [entry.name for entry in entries([CONFIG, timm], [])] == ["spnas_100", "resnet50"]
    found = entries([CONFIG], ["mnasnet_b1", "mine=a/architecture.json"])
    assert found == [
        Entry("mnasnet_b1", CONFIG, "mnasnet_b1"),
        Entry("mine", CONFIG, "a/architecture.json"),
    ]
    with pytest.raises(UserError, match="two rows are called 'architecture'"):
        entries([CONFIG], ["a/architecture.json", "b/architecture.json"])


@pytest.mark.parametrize("name", ["", "..", "../x", "/tmp/x", "a/b"])
def test_a_row_stays_in_the_output_folder(name: str) -> None:
    with pytest.raises(UserError, match=f"a row is called '{name}', which cannot name a file"):
        entries([CONFIG], [f"{name}=spnas_100"])


def test_random_networks_are_one_row(tmp_path: Path) -> None:
    cfg = load_search_config("search/digits.yaml", ["SEARCH.TARGET", "75.0"])
    rows = random_entries(CONFIG, cfg, 3, 2, tmp_path)
    assert {row.name for row in rows} == {"random"}
    assert [row.seed for row in rows] == [0, 1, 0]
    table = LatencyTable.load("pixel1")
    networks = [Architecture.load(str(row.architecture)) for row in rows]
    assert all(74.25 <= predict_runtime(network, table) <= 75.0 for network in networks)
    assert len({str(network.layers) for network in networks}) == 3
    assert random_entries(CONFIG, cfg, 3, 2, tmp_path) == rows
    lower = load_search_config("search/digits.yaml", ["SEARCH.TARGET", "70.0"])
    with pytest.raises(UserError, match=r"random0.json' is of another run"):
        random_entries(CONFIG, lower, 3, 2, tmp_path)
    folders = [job_of(row, 1, tmp_path, None, (), ()).commands[0].folder for row in rows]
    assert folders == [tmp_path / f"random{index}" / "seed1" for index in range(3)]


@pytest.mark.parametrize(
    ("builder", "name"),
    [
        ("build_retinanet_spnas_fpn_backbone", "mnasnet_b1"),
        ("build_retinanet_timm_fpn_backbone", "resnet18"),
        ("build_timm_backbone", "resnet18"),
        ("build_resnet_fpn_backbone", "build_resnet_fpn_backbone"),
        ("build_no_timm_fpn_backbone", "build_no_timm_fpn_backbone"),
    ],
)
def test_rows_are_called_as_their_networks(builder: str, name: str) -> None:
    networks = ("MODEL.SPNAS.ARCH", "some/mnasnet_b1.json", "MODEL.TIMM.NAME", "resnet18")
    cfg = load_search_config(CONFIG, ("MODEL.BACKBONE.NAME", builder, *networks))
    assert module.network_name(cfg) == name


def test_the_detector_starts_from_the_classifier() -> None:
    entry = Entry("mine", CONFIG, "mnasnet_b1")
    classifier, detector = job_of(
        entry, 2, Path("out"), "c.yaml", ("--num-gpus", "8"), ("SOLVER.MAX_ITER", "5")
    ).commands
    expected = "tools/train_classifier.py --config-file c.yaml --num-gpus 8 --resume"
    expected += " OUTPUT_DIR out/mine/classifier2 MODEL.SPNAS.ARCH mnasnet_b1 SEED 2"
    assert " ".join(classifier.words()) == expected
    expected = f"tools/train_net.py --config-file {CONFIG} --num-gpus 8 --resume"
    expected += " OUTPUT_DIR out/mine/seed2"
    expected += " MODEL.SPNAS.ARCH out/mine/classifier2/architecture.json"
    expected += " MODEL.WEIGHTS out/mine/classifier2/backbone.pth SEED 2 SOLVER.MAX_ITER 5"
    assert " ".join(detector.words()) == expected
    (detector,) = job_of(entry, 0, Path("out"), None, (), ()).commands
    assert "MODEL.SPNAS.ARCH mnasnet_b1 SEED 0" in " ".join(detector.words())


def test_a_network_gets_the_images_that_it_expects() -> None:
    entry = Entry("mine", CONFIG, "efficientnet_lite0")
    cfg = job_of(entry, 0, Path("out"), None, (), ()).commands[-1].config()
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == ([127.0] * 3, [128.0] * 3)
    with pytest.raises(UserError, match=r"no architecture file at 'a\.json'"):
        job_of(Entry("mine", CONFIG, "a.json"), 0, Path("out"), None, (), ())


def test_every_finished_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job_of(Entry(name, CONFIG), 0, tmp_path, None, (), ()) for name in "abc"]
    read = []

    def finish(job: module.Job) -> None:
        folder = job.commands[-1].folder
        folder.mkdir(parents=True)
        (folder / "results.json").write_text('{"detection": {}}')
        (folder / "config.yaml").write_text(job.commands[-1].config().dump())

    def last_first(stages: list[object], workers: Workers) -> Iterator[int]:
        assert stages == [jobs[0].commands, jobs[2].commands] and workers == Workers(2)
        for position, job in ((1, jobs[2]), (0, jobs[0])):
            finish(job)
            yield position

    def load(folder: Path, name: str, classifier: Path | None) -> str:
        read.append(name)
        return name

    monkeypatch.setattr(module, "run_beside", last_first)
    monkeypatch.setattr(module, "load_run", load)
    finish(jobs[1])
    assert list(train(jobs, Workers(2))) == [["b"], ["b", "c"], ["a", "b", "c"]]
    assert read == ["b", "c", "a"]
    other = job_of(Entry("c", CONFIG), 0, tmp_path, None, (), ("SOLVER.BASE_LR", "0.5"))
    with pytest.raises(UserError, match=r"c/seed0' holds .* SOLVER.BASE_LR is .*, not 0.5;"):
        list(train([*jobs[:2], other], Workers(2)))
    assert read == ["b", "c", "a"]


def finished_run(name: str, network: str, seed: int, width: float | None = 0.5) -> DetectorRun:
    cost = ModelCost(network, 9, 2, 4, 240, 345, (192, 224), "pixel1", 80.0)
    recipe = {"MODEL.SPNAS.LATENCY_TABLE": "xeon_onnxruntime_fpn64_320"}
    architecture = load_architecture("mnasnet_b1").scaled(width) if width else None
    return DetectorRun(Path(name), name, seed, recipe, {}, cost, architecture=architecture)


def test_every_backbone_is_measured_once_as_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [
        finished_run("a", "net", 0),
        finished_run("a", "net", 1),
        finished_run("random", "random0", 0),
        finished_run("random", "random1", 1),
        finished_run("t", "resnet50", 0, width=None),
    ]

    def measure(
        networks: list[Architecture], engine: Engine, deployment: Deployment, rounds: int
    ) -> list[dict[str, float]]:
        assert (engine.name, rounds) == ("torch", 2)
        assert (deployment.task, deployment.padded_size) == ("detection", (320, 320))
        assert networks == 3 * [load_architecture("mnasnet_b1").scaled(0.5)]
        return [{"measured": 1.0 + index} for index in range(len(networks))]

    monkeypatch.setattr(module, "measure_architectures", measure)
    found = with_measured_runtimes(runs, make_engine("torch"), 2)
    assert [run.cost.measured_runtime for run in found] == [1.0, 1.0, 2.0, 3.0, None]
    assert str(found[0].cost.measured_with).endswith("1 thread, 320×320")
    assert found[4] == runs[4]
    with pytest.raises(UserError, match="leave out --engine"):
        with_measured_runtimes(runs[4:], make_engine("torch"))


def test_networks_searched_for_two_settings_are_not_measured_as_one() -> None:
    """Each names its own table, and one engine measures in one setting."""
    recipe = {"MODEL.SPNAS.LATENCY_TABLE": "auto"}
    runs = [replace(finished_run(name, name, 0), recipe=recipe) for name in "ab"]
    network = runs[1].architecture
    assert network is not None
    searched = replace(network, provenance={"latency_table": "xeon_onnxruntime_fpn64_320"})
    runs[1] = replace(runs[1], architecture=searched)
    expected = "about backbone with pyramid at 320×320 and classifier at 224×224; name one table"
    with pytest.raises(UserError, match=expected):
        with_measured_runtimes(runs, make_engine("torch"))


@pytest.mark.parametrize("option", ["--config-files", "--measure"])
def test_options_are_called_as_in_the_other_tools(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_backbones.py", "--output", "o", option, "torch"])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "tools" / "compare_backbones.py"), run_name="__main__")
    assert ending.value.code == 2
    assert f"unrecognized arguments: {option}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tool_trains_compares_and_collects(tmp_path: Path) -> None:
    write_coco(tmp_path / "datasets")
    options = [
        *("MODEL.WEIGHTS", "", "MODEL.SPNAS.NORM", "BN", "MODEL.FPN.OUT_CHANNELS", "16"),
        *("MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
        *("MODEL.RPN.POST_NMS_TOPK_TRAIN", "20", "MODEL.RPN.POST_NMS_TOPK_TEST", "20"),
        *("INPUT.MIN_SIZE_TRAIN", "(96,)", "INPUT.MIN_SIZE_TEST", "96"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "0"),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "WANDB.ENABLED", "False"),
    ]
    output = tmp_path / "comparison"

    def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "tools/compare_backbones.py", "--output", str(output), *arguments],
            cwd=ROOT,
            env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "datasets")},
            capture_output=True,
            text=True,
        )

    command = ("--config-file", CONFIG, "--architectures", "mnasnet_b1", "spnas_100", "--paper")
    ended = compare(*command, "--num-gpus", "0", "--workers", "2", *options)
    assert ended.returncode == 0, ended.stderr
    for name in ("mnasnet_b1", "spnas_100"):
        assert "Evaluating on coco_2017_val" in (output / name / "seed0.log").read_text()
    rows = json.loads((output / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["mnasnet_b1", "spnas_100"]
    assert rows[1]["cost"]["params_classifier"] == 4_421_616
    assert all(row["cost"]["detector_runtime"] > 0 for row in rows)
    assert "Single-Path NAS with SE †" in (output / "comparison.md").read_text()
    assert (output / "comparison.png").read_bytes().startswith(b"\x89PNG")

    folders = [str(output / name / "seed0") for name in ("spnas_100", "mnasnet_b1")]
    ended = compare("--runs", *folders, "--engine", "torch")
    assert ended.returncode == 0, ended.stderr
    assert "train_net.py" not in ended.stdout
    again = json.loads((output / "comparison.json").read_text())["rows"]
    assert [row["name"] for row in again] == ["spnas_100", "mnasnet_b1"]
    assert again[0]["scores"] == rows[1]["scores"]
    assert all(row["cost"]["measured_with"].startswith("torch, ") for row in again)
    assert all(1.0 < row["cost"]["measured_runtime"] < 1000.0 for row in again)

    ended = compare("--runs", str(tmp_path / "none"))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no results of a run")
