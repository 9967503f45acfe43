"""The configurations for own photos explain all that they set, and can be used as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from backbones import UserError
from backbones.files import leaves
from backbones.paths import config_path
from search.config import load_search_config
from search.runs.build import build_runtime_model, check_targets
from search.runs.detector_backbone import searches_detector
from search.space import SearchSpace
from search.studies.config_keys import described_keys, keys_table

CUSTOM = sorted(
    str(path.relative_to(config_path())) for path in config_path().rglob("*custom*.yaml")
)


def test_there_is_one_for_every_stage() -> None:
    assert CUSTOM == [
        "classification/custom.yaml",
        "detection/custom.yaml",
        "detection/custom_lite.yaml",
        "search/custom.yaml",
        "search/mask_rcnn_custom.yaml",
    ]


@pytest.mark.parametrize("name", CUSTOM)
def test_every_key_is_explained(name: str) -> None:
    """By PyYAML's own reading of the file, and with the values that a run has."""
    found = described_keys(config_path(name))
    expected = leaves(yaml.safe_load(config_path(name).read_text()))
    assert [key for key, _, _ in found] == [key for key in expected if key != "_BASE_"]
    assert {key: yaml.safe_load(value) for key, value, _ in found} == {
        key: value for key, value in expected.items() if key != "_BASE_"
    }
    assert all(comment.endswith(".") for _, _, comment in found)
    table = keys_table(name)()
    assert all(f"| `{key}` " in table for key, _, _ in found)
    assert len(table.splitlines()) == len(found) + 2


@pytest.mark.parametrize("name", CUSTOM)
def test_nothing_is_assumed_of_the_data(name: str) -> None:
    """Classes are the data's, and no data set is named."""
    cfg = load_search_config(name)
    if name.startswith("detection") or searches_detector(cfg):
        assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.DATA.ROOT) == ((), (), "")
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 0
        assert cfg.SOLVER.EPOCHS > 0
        assert cfg.INPUT.MASK_FORMAT == "bitmask"
    else:
        assert (cfg.CLASSIFICATION.DATASET, cfg.CLASSIFICATION.NUM_CLASSES) == ("", 0)
        assert cfg.SOLVER.WARMUP_EPOCHS < cfg.CLASSIFICATION.EPOCHS


@pytest.mark.parametrize("name", [name for name in CUSTOM if name.startswith("search")])
def test_the_target_can_be_met(name: str) -> None:
    cfg = load_search_config(name)
    check_targets(cfg, build_runtime_model(cfg, SearchSpace.load(cfg.SEARCH.SPACE)))


def test_a_key_without_a_comment_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("# It.\n_BASE_: x.yaml\nSOLVER:\n  # Rate.\n  BASE_LR: 1\n  GAMMA: 2\n")
    with pytest.raises(UserError, match=r"own.yaml', line 6: the key SOLVER.GAMMA has no comment"):
        described_keys(path)


def test_several_lines_are_one_comment(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text('SOLVER:\n  # Rate, as in\n  # docs/data.md.\n  BASE_LR: "a|b"  # no\n')
    assert described_keys(path) == [("SOLVER.BASE_LR", '"a|b"', "Rate, as in docs/data.md.")]
