"""A search on data of one's own, named by path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backbones import Architecture, UserError
from backbones.files import read_json
from search.config import load_search_config
from search.runs.data import resolve_search_data
from search.runs.run import run_search
from tests.tiny_coco import TINY_MODEL, draw


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """In a label tool's layout."""
    for seed, split in enumerate(("train", "valid")):
        folder = tmp_path / "photos" / split
        folder.mkdir(parents=True)
        (folder / "_annotations.coco.json").write_text(json.dumps(draw(folder, seed)))
    return tmp_path / "photos"


def test_a_detector_is_searched(photos: Path, tmp_path: Path) -> None:
    opts = [
        *(*TINY_MODEL, "DATA.ROOT", str(photos), "MODEL.ROI_HEADS.NUM_CLASSES", "0"),
        *("SOLVER.EPOCHS", "0.4", "SEARCH.CALIBRATION_BATCHES", "1", "SEARCH.TARGET", "80.0"),
        *("SEARCH.LATENCY_TABLE", "pixel1", "SEARCH.DEPLOY_SIZE", "[224, 224]"),
        *("OUTPUT_DIR", str(tmp_path / "run")),
    ]
    cfg, notes = resolve_search_data(load_search_config("search/mask_rcnn_custom.yaml", opts))
    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.ROI_HEADS.NUM_CLASSES) == (1, 3)
    assert len(notes) == 5
    run_search(cfg)
    scores = read_json(tmp_path / "run/results.json", "results")["detection"]["scores"]
    assert list(scores) == ["photos/valid"]
    found = Architecture.load(tmp_path / "run/architecture.json")
    assert "photos/train" in json.dumps(found.provenance)


def test_a_classifier_is_searched_on_folders(photos: Path) -> None:
    opts = ["DATA.ROOT", str(photos)]
    expected = rf"this is a classifier, .*CLASSIFICATION.DATASET {photos}"
    with pytest.raises(UserError, match=expected):
        resolve_search_data(load_search_config("search/custom.yaml", opts))
