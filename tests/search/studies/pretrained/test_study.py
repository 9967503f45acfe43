"""The study of networks cut out of adapted supernets: its figures, controls and resumption."""

from __future__ import annotations

import json
import runpy
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from detectron2.config import CfgNode

from backbones import Architecture, LatencyTable, UserError
from backbones.latency import predict_runtime
from search.config import load_search_config
from search.profiling.workload import type_names
from search.selection.runtime import RuntimeModel
from search.space import Choice
from search.start.narrowing import narrowed
from search.start.seed import seed_of
from search.studies.pretrained import choosing, measuring, study
from search.studies.pretrained.choosing import ROWS, drawn, dropped, given, start
from search.studies.pretrained.study import run_study, start_runtime, summary
from search.studies.pretrained.tables import study_table

ROOT = Path(__file__).resolve().parents[4]


def trial(row: str, top1: float, part: float = 0.6, seed: int = 0) -> dict[str, Any]:
    return {"row": row, "part": part, "seed": seed, "runtime": 10 + seed, "top1": top1, "loss": 1.0}


def test_means_spreads_and_margins() -> None:
    random = [60.0, 62.0, 67.0]
    trials = [
        *(trial("sensitivity", value, seed=i) for i, value in enumerate((70.0, 74.0))),
        *(trial("random", value, seed=i) for i, value in enumerate(random)),
        *(trial("drop", value, seed=i) for i, value in enumerate((50.0, 50.1))),
        trial("sensitivity", 40.0, part=0.4),
        *(trial("blind", 55.0, seed=i) for i in range(3)),
    ]
    rows = {(row["row"], row["part"]): row for row in summary(("top1", "loss"), 17.5, trials)}
    found = rows["sensitivity", 0.6]
    assert (found["networks"], found["top1_mean"], found["runtime_mean"]) == (2, 72.0, 10.5)
    assert found["furthest"] == pytest.approx(100 * (11 / (0.6 * 17.5) - 1))
    assert found["top1_std"] == pytest.approx(statistics.stdev((70.0, 74.0)))
    margin = (72.0 - 63.0) / statistics.stdev(random)
    # the deviation of two networks says nothing, and three of one score have none
    assert found["margins"] == {"random": pytest.approx(margin)}
    assert rows["random", 0.6]["margins"] == {}
    assert rows["drop", 0.6]["margins"] == {
        "random": pytest.approx((50.05 - 63.0) / statistics.stdev(random))
    }
    assert rows["sensitivity", 0.4]["margins"] == {}
    table = study_table({"summary": list(rows.values()), "unit": "ms"})
    (line,) = (line for line in table.splitlines() if "72.00" in line)
    assert f"{margin:+.1f} σ" in line and "0.6 ×" in line


def test_networks_are_measured_once_each(
    search: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    networks = [dropped(search, None, 6.0, seed) for seed in range(2)]
    types = [type_names(search.space, choices) for choices in networks]
    runtimes = [search.runtime_model.runtime_of(choices) for choices in networks]
    trials = [
        {**trial("drop", 50.0, seed=seed), "layers": types[index], "runtime": runtimes[index]}
        for seed, index in enumerate((0, 1, 0))
    ]
    trials.append({**trial("narrowed", 50.0), "layers": "width 0.5", "runtime": 6.0})
    output = tmp_path / "study.json"
    output.write_text(json.dumps({"trials": trials, "start_runtime": 9.18, "summary": []}))
    asked: list[Architecture] = []
    spaces: list[Any] = []

    def measured(architectures: list[Architecture], *others: Any) -> list[dict[str, Any]]:
        asked.extend(architectures)
        spaces.append(others[4])
        predicted = [predict_runtime(network, others[3]) for network in architectures[:2]]
        assert predicted == pytest.approx(runtimes, rel=1e-6)
        rows = [{"measured": 1.0 + i, "error": 10.0 * (i - 1)} for i in range(len(predicted))]
        return [*rows, {"measured": 5.0, "error": None}]  # its table does not cover the third

    monkeypatch.setattr(measuring, "measure_architectures", measured)
    monkeypatch.setattr(measuring, "table_engine", lambda table: None)
    study = measuring.measure_networks(search.cfg, output, 2)
    assert study == json.loads(output.read_text()) and len(asked) == 3
    whole = search.space.architecture(search.reference, "start")
    assert asked[2].layers == narrowed(whole, 0.5).layers
    assert [t["measured_runtime"] for t in study["trials"]] == [1.0, 2.0, 1.0, 5.0]
    assert "measured_error" not in study["trials"][-1]
    assert study["summary"][0]["measured_furthest"] == 10.0

    def elsewhere(space: Any, *others: Any) -> None:
        raise UserError("of another space")

    monkeypatch.setattr(measuring, "anchor_items", elsewhere)
    measuring.measure_networks(search.cfg, output, 2)
    assert spaces == [search.space, None]
    assert "was made for another space" in caplog.text


@pytest.fixture(scope="module")
def search() -> Any:
    """What choosing sees of a search around a published network, on its latency table."""
    cfg = load_search_config("search/pretrained.yaml", ["MODEL.DEVICE", "cpu"])
    cfg.defrost()
    cfg.SEARCH.LATENCY_TABLE = "epyc_onnxruntime_lite0_224"
    seed = seed_of(cfg)
    assert seed is not None
    model = RuntimeModel(seed.space, LatencyTable.load(cfg.SEARCH.LATENCY_TABLE))
    return SimpleNamespace(
        cfg=cfg, space=seed.space, runtime_model=model, reference=seed.choices, finished=0
    )


@pytest.mark.parametrize("part", [0.9, 0.6, 0.5])
def test_random_drops(search: Any, part: float) -> None:
    """Strided layers stay, nothing grows, and the band below the target is hit."""
    target = part * search.runtime_model.runtime_of(search.reference)
    networks = [dropped(search, None, target, seed) for seed in range(8)]
    for choices in networks:
        assert target * 0.96 <= search.runtime_model.runtime_of(choices) <= target
        search.space.architecture(choices, "dropped")
        for layer, own, choice in zip(search.space.layers, search.reference, choices, strict=True):
            if layer.droppable:
                assert choice in (own, None)
            else:
                assert choice in (own, search.space.candidates[0])
    assert len(set(map(tuple, networks))) > 1
    assert networks[0] == dropped(search, None, target, 0)


def test_random_drops_that_hit_nothing(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_DRAWS", 5)
    with pytest.raises(UserError, match="no network of random drops between") as error:
        dropped(search, None, 0.01, 0)
    assert "\n" not in str(error.value)


def test_random_networks_and_the_start(search: Any) -> None:
    target = 0.6 * search.runtime_model.runtime_of(search.reference)
    for seed in range(3):
        runtime = search.runtime_model.runtime_of(drawn(search, None, target, seed))
        assert target * (1 - search.cfg.SEARCH.TOLERANCE) <= runtime <= target * (1 + 1e-9)
    assert start(search, None, target, 0) == list(search.reference)


def test_a_network_given(search: Any, tmp_path: Path) -> None:
    choices = drawn(search, None, 0.6 * search.runtime_model.runtime_of(search.reference), 1)
    search.space.architecture(choices, "found").save(tmp_path / "found.json")
    row = given(str(tmp_path / "found.json"))
    assert row.choose(search, None, 0.0, 0) == choices  # type: ignore[arg-type]


class StubGround:
    """Counts what is asked of it, and fails when told to."""

    scores = ("top1", "loss")

    def __init__(self) -> None:
        self.supernets: list[int] = []
        self.tuned: list[Path] = []
        self.fails_at = -1

    def trainer(self, cfg: CfgNode) -> Any:
        seed = seed_of(cfg)
        assert seed is not None
        ground = self

        class Run:
            space, reference, finished, judge = seed.space, seed.choices, 0, None
            runtime_model = study.build_runtime_model(cfg, seed.space)
            networks = None

            def __init__(self) -> None:
                self.cfg = cfg

            def resume_or_load(self, path: str, resume: bool) -> None:
                assert resume and not path

            def train(self) -> None:
                ground.supernets.append(cfg.SEED)

        return Run()

    def cut(self, trainer: Any, choices: Sequence[Choice], folder: Path) -> None:
        folder.mkdir(parents=True)

    def fine_tuned(self, cfg: CfgNode, folder: Path) -> dict[str, float]:
        if len(self.tuned) == self.fails_at:
            raise KeyboardInterrupt
        self.tuned.append(folder)
        return {"top1": 50.0 + cfg.SEED, "loss": 1.0}


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch) -> StubGround:
    made = StubGround()
    monkeypatch.setattr(study, "ground_of", lambda cfg: made)
    return made


def configs() -> tuple[CfgNode, CfgNode]:
    small = ["MODEL.DEVICE", "cpu", "SEARCH.LATENCY_TABLE", "epyc_onnxruntime_lite0_224"]
    return (
        load_search_config("search/pretrained.yaml", small),
        load_search_config("classification/finetune.yaml", ["MODEL.DEVICE", "cpu"]),
    )


def test_a_study_goes_on_where_it_was(ground: StubGround, tmp_path: Path) -> None:
    trials = [("start", 1.0, 0), ("drop", 0.6, 0), ("random", 0.6, 1), ("start", 1.0, 1)]
    output = tmp_path / "study.json"
    ground.fails_at = 2
    with pytest.raises(KeyboardInterrupt):
        run_study(*configs(), ROWS, trials, tmp_path / "runs", output, {"unit": "ms"})
    assert len(json.loads(output.read_text())["trials"]) == 2
    assert ground.supernets == [0]  # of seed 0, and that one of the controls
    for folder in (tmp_path / "runs" / "random").rglob("1"):
        folder.rmdir()  # the stub's own folder
    ground.fails_at = -1
    found = run_study(*configs(), ROWS, trials, tmp_path / "runs", output, {"unit": "ms"})
    assert [(t["row"], t["part"], t["seed"]) for t in found["trials"]] == trials
    assert ground.supernets == [0, 0, 1]
    assert len(ground.tuned) == len(set(ground.tuned)) == 4
    assert [t["top1"] for t in found["trials"]] == [50, 50, 51, 51]
    full = start_runtime(configs()[0])
    assert found["start_runtime"] == round(full, 4)
    assert found["trials"][0]["runtime"] == round(full, 4)
    assert found["trials"][2]["runtime"] <= 0.6 * full
    again = run_study(*configs(), ROWS, trials, tmp_path / "runs", output, {"unit": "ms"})
    assert again["trials"] == found["trials"] and len(ground.tuned) == 4
    search_cfg, training_cfg = configs()
    training_cfg.defrost()
    training_cfg.SOLVER.BASE_LR *= 2
    with pytest.raises(UserError, match="holds trials of the recipe"):
        run_study(search_cfg, training_cfg, ROWS, trials, tmp_path / "runs", output, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "magic"], "unknown row 'magic'; expected"),
        (["--rows"], "no trials: "),
        (["--parts", "0"], "--parts has 0; expected parts"),
        (["--train-options", "SEED"], "--train-options has 'SEED'; expected a name and a value"),
        (["--rows", "start", "--seeds", "0"], "no trials: "),
        (["--workers", "0"], "--workers is 0; expected 1 or more"),
    ],
)
def test_mistakes_of_the_tool(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    files = ["--folder", str(tmp_path / "runs"), "--output", str(tmp_path / "study.json")]
    data = f"CLASSIFICATION.DATASET={images}"
    if "--train-options" not in arguments:
        arguments = [*arguments, "--train-options", data]
    keys = ["CLASSIFICATION.DATASET", str(images)]
    monkeypatch.setattr(sys, "argv", ["compare_starts.py", *arguments, *files, *keys])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "tools" / "compare_starts.py"), run_name="__main__")
    assert ending.value.code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "study.json").exists()


def test_a_study_without_a_start() -> None:
    cfg = configs()[0]
    cfg.defrost()
    cfg.SEARCH.START, cfg.SEARCH.SPACE, cfg.SEARCH.REFIT_BATCHES = "", "imagenet", 0
    with pytest.raises(UserError, match="SEARCH.START is empty; name the network"):
        start_runtime(cfg)
