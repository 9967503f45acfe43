"""What MODEL stands for on the command line, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbones import UserError
from backbones.weights import read_checkpoint, save_checkpoint
from search.deployment.sources import find_source
from tests.search.deployment.conftest import DETECTOR


def test_a_classifiers_run(classifier_run: Path) -> None:
    source = find_source(str(classifier_run))
    assert source.architecture.name == "small"
    assert not source.is_detector
    assert source.cfg is not None
    assert source.cfg.CLASSIFICATION.INPUT_SIZE == 32
    assert source.state["classifier.weight"].shape[0] == 2
    same = find_source(str(classifier_run / "architecture.json"))
    assert same.weights == source.weights


def test_an_architecture_with_weights_elsewhere(classifier_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes((classifier_run / "architecture.json").read_bytes())
    with pytest.raises(UserError, match=r"MODEL is '.*a\.json', and there is no backbone\.pth"):
        find_source(str(tmp_path / "a.json"))
    source = find_source(str(tmp_path / "a.json"), str(classifier_run / "backbone.pth"))
    assert source.cfg is None
    with pytest.raises(
        UserError, match=r"'SEED' is to change a configuration, and MODEL '.*a\.json' has"
    ):
        find_source(str(tmp_path / "a.json"), options=("SEED", "3"))
    assert "stem.conv.weight" in source.state


def test_a_detectors_run_and_its_checkpoint(detector_run: Path, tmp_path: Path) -> None:
    source = find_source(str(detector_run))
    assert source.is_detector
    assert set(source.state) <= {
        name.removeprefix("backbone.bottom_up.")
        for name in read_checkpoint(detector_run / "model_final.pth")["model"]
    }
    file = detector_run / "model_final.pth"
    assert find_source(str(file)).is_detector  # by the configuration beside it
    alone = tmp_path / "model.pth"
    alone.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"is a checkpoint, .* name its configuration"):
        find_source(str(alone))
    architecture = ("MODEL.SPNAS.ARCH", str(detector_run / "small.json"))
    again = find_source(str(alone), config_file=DETECTOR, options=architecture)
    assert again.is_detector
    assert again.architecture == source.architecture
    with pytest.raises(UserError, match="MODEL is the checkpoint .* leave --weights 'x' out"):
        find_source(str(file), "x", DETECTOR)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown architecture 'resnet50'"):
        find_source("resnet50")
    with pytest.raises(UserError, match=r"neither architecture\.json nor config\.yaml"):
        find_source(str(tmp_path))
    (tmp_path / "config.yaml").write_text("MODEL: {}")
    with pytest.raises(UserError, match=r"no weights at '.*model_final\.pth'"):
        find_source(str(tmp_path))


def test_a_checkpoint_of_a_classifier(classifier_run: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "w.pth", read_checkpoint(classifier_run / "backbone.pth"))
    config = str(classifier_run / "config.yaml")
    architecture = ("MODEL.SPNAS.ARCH", str(classifier_run / "architecture.json"))
    source = find_source(str(tmp_path / "w.pth"), config_file=config, options=architecture)
    assert not source.is_detector
