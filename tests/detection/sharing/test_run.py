"""What is read from a run's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import backbones
from backbones import UserError
from backbones.exported import save_backbone
from backbones.network import build_classifier
from detection.sharing.run import facts_of, read_run, shared_config, without_folders

SCORES = {"AP": 48.1, "AP50": 81.5, "AP75": 52.9, "APs": 51.4, "APm": None, "APl": 46.7, "AP-0": 9}
COST = {
    **{"input_size": [192, 224], "params_detector": 3_843_748, "params_backbone": 2_663_744},
    **{"macs_backbone": 245_653_248, "latency_table": "pixel1", "runtime": 79.697},
    **{"runtime_unit": "ms", "runtime_of": "classifier at 224×224", "measured_runtime": 8.814},
    **{"measured_with": "onnxruntime, AMD EPYC, 1 thread", "detector_runtime": 90.48},
}


def write(folder: Path, results: dict[str, Any], config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def searched(folder: Path, results: dict[str, Any], config: dict[str, Any]) -> Path:
    """With an architecture that a search found at a target of 80 ms."""
    base = backbones.load_architecture("spnas_100").scaled(0.25).to_dict()
    base["provenance"] = {
        **{"method": "sigmoid", "dataset": "/data/my digits", "seed": 3, "iterations": 162},
        **{"latency_table": "pixel1", "config": {"TARGET": 80.0}},
    }
    architecture = backbones.Architecture.from_dict(base)
    write(folder, results, config)
    save_backbone(folder, architecture, build_classifier(architecture, 4).state_dict())
    return folder


def test_a_classifier(tmp_path: Path) -> None:
    trained = {
        **{"params": 3_088_714, "val": {"top1": 96.97}, "predicted_runtime": 79.697},
        **{"unit": "ms", "latency_table": "pixel1", "runtime_of": "classifier at 224×224"},
    }
    config = {"CLASSIFICATION": {"DATASET": "/home/me/digits", "EPOCHS": 8}, "SEED": 5}
    run = read_run(searched(tmp_path, {"classification": trained}, config))
    facts = facts_of(run, "classifier", "mine", "mit")
    assert facts.datasets == ("digits",) and facts.license == "mit"
    assert facts.summary == {"parameters": "3.09 M"}
    assert [(s.dataset, s.metric, s.value) for s in facts.scores] == [("digits", "top-1", 96.97)]
    assert [(r.what, r.value, r.of) for r in facts.runtimes] == [
        ("target", 80.0, "classifier at 224×224"),
        ("predicted", 79.697, "classifier at 224×224"),
    ]
    assert facts.runtimes[0].where.startswith("pixel1: ")
    assert facts.recipe == {"CLASSIFICATION.EPOCHS": "8", "SEED": "5"}
    assert "searched on `my digits` by `sigmoid` in 162 iterations with seed 3" in facts.source


def test_a_search(tmp_path: Path) -> None:
    found = {
        **{"val": {"top1": 43.05}, "predicted_runtime": 79.7, "target_runtime": 78.0},
        **{"unit": "ms", "latency_table": "pixel1", "measured_runtime": 81.2},
        "measured_with": "torch, here",
    }
    config = {"CLASSIFICATION": {"DATASET": "digits"}}
    facts = facts_of(
        read_run(searched(tmp_path, {"search": found}, config)), "classifier", "n", "l"
    )
    assert facts.datasets == ("my digits",)  # those that the search saw
    assert facts.scores[0].metric == "top-1, with the supernet's weights"
    assert [(r.what, r.value) for r in facts.runtimes] == [
        *(("target", 78.0), ("predicted", 79.7), ("measured", 81.2)),
    ]
    assert facts.runtimes[2].where == "torch, here"


def test_a_detector(tmp_path: Path) -> None:
    scores = {"digits_val": {"bbox": SCORES, "segm": SCORES}}
    config = {"DATASETS": {"TRAIN": ["/a/b/photos/train.json:/a/b/photos/train", "digits_train"]}}
    write(tmp_path, {"detection": {"cost": COST, "scores": scores}}, config)
    torch.save({}, tmp_path / "model_final.pth")
    facts = facts_of(read_run(tmp_path), "detector", "n", "l")
    assert facts.datasets == ("train.json", "digits_train")
    assert facts.summary == {
        "parameters, whole detector": "3.84 M",
        "parameters, backbone": "2.66 M",
        "multiply-accumulates, backbone at 192×224": "245.65 M",
    }
    found = {(s.task, s.metric): s.value for s in facts.scores}
    assert len(found) == len(facts.scores) == 2 * 5  # no medium objects, no single classes
    assert found["object-detection", "box AP, small objects"] == 51.4
    assert found["image-segmentation", "mask AP"] == 48.1
    assert [(r.what, r.value, r.where) for r in facts.runtimes] == [
        ("predicted", 79.697, facts.runtimes[0].where),
        ("measured", 8.814, "onnxruntime, AMD EPYC, 1 thread"),
        ("measured, whole detector", 90.48, "PyTorch"),
    ]
    assert facts.runtimes[2].of == "192×224"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/me/photos", "photos"),
        ("~/photos/train", "train"),
        (r"C:\Users\me\photos", "photos"),
        ("mine=/a/b/c.json:/a/b/images", "mine=c.json:images"),
        ("output/run/architecture.json", "output/run/architecture.json"),
        ("https://host/a/b.pkl", "https://host/a/b.pkl"),
        ("timm://mobilenetv2_100", "timm://mobilenetv2_100"),
        (["/a/b", 3, {"x": "/c/d"}], ["b", 3, {"x": "d"}]),
        ("pixel1", "pixel1"),
        (1.5, 1.5),
    ],
)
def test_no_folder_of_the_machine_is_told(value: Any, expected: Any) -> None:
    assert without_folders(value) == expected


def test_shared_configuration(tmp_path: Path) -> None:
    config = {"OUTPUT_DIR": "/home/me/run", "MODEL": {"WEIGHTS": "/x/y.pth", "MASK_ON": True}}
    run = read_run(searched(tmp_path, {}, config))
    found = yaml.safe_load(shared_config(run, MODEL__SPNAS__ARCH="architecture.json"))
    assert found == {
        "OUTPUT_DIR": "output",
        "MODEL": {"WEIGHTS": "y.pth", "MASK_ON": True, "SPNAS": {"ARCH": "architecture.json"}},
    }
    assert run.config["MODEL"]["WEIGHTS"] == "/x/y.pth"


def test_a_run_without_results_states_less(tmp_path: Path) -> None:
    searched(tmp_path, {}, {})
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "results.json").unlink()
    facts = facts_of(read_run(tmp_path), "backbone", "n", "l")
    assert not facts.scores and not facts.recipe
    assert [(r.what, r.value) for r in facts.runtimes] == [("target", 80.0)]  # of the architecture


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run at '.*nowhere'; name the OUTPUT_DIR"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_text("SEED: 1\n")
    with pytest.raises(UserError, match=r"holds no model: expected .*is the run finished\?"):
        read_run(tmp_path)
