"""A folder's files are taken for a run's only if they are of the configuration asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from backbones import UserError
from backbones.zoo import load_architecture
from detection.config import add_spnas_config
from detection.engine.reuse import check_same_network, check_same_run, read_config

WAY_OUT = "name another folder"


def config(*options: str) -> CfgNode:
    cfg = get_cfg()
    add_spnas_config(cfg)
    cfg.merge_from_list(list(options))
    return cfg


def leave(folder: Path, trace: str, *options: str) -> Path:
    (folder / trace).touch()
    (folder / "config.yaml").write_text(config(*options).dump())
    return folder


@pytest.mark.parametrize("trace", ["results.json", "last_checkpoint", "model_0000009.pth"])
def test_a_run_of_another_configuration_is_refused(tmp_path: Path, trace: str) -> None:
    """Whether it is finished or only begun."""
    leave(tmp_path, trace)
    check_same_run(tmp_path, config(), WAY_OUT)
    changed = config("SOLVER.MAX_ITER", "7", "TEST.EVAL_PERIOD", "3")
    expected = r"SOLVER.MAX_ITER is 40000, not 7.*TEST.EVAL_PERIOD is 0, not 3; name another folder"
    with pytest.raises(UserError, match=expected):
        check_same_run(tmp_path, changed, WAY_OUT)
    several = ("SEED", "1", "SOLVER.GAMMA", "0.5", "SOLVER.BASE_LR", "0.5", "SOLVER.MAX_ITER", "7")
    with pytest.raises(UserError, match=r"and 1 more keys differ"):
        check_same_run(tmp_path, config(*several), WAY_OUT)


def test_what_changes_no_result_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(tmp_path, "results.json", "MODEL.WEIGHTS", str(tmp_path / "a.pth"))
    monkeypatch.chdir(tmp_path)
    options = ("OUTPUT_DIR", "x", "WANDB.ENABLED", "False", "DATALOADER.NUM_WORKERS", "0")
    device = ("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "a.pth")
    faults = ("SOLVER.MAX_TO_KEEP", "2", "SOLVER.MAX_NONFINITE", "20")
    check_same_run(tmp_path, config(*options, *device, *faults), WAY_OUT)
    with pytest.raises(UserError, match="MODEL.WEIGHTS is"):
        check_same_run(tmp_path, config("MODEL.WEIGHTS", "b.pth"), WAY_OUT)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    check_same_run(tmp_path / "none", config(), WAY_OUT)
    (tmp_path / "config.yaml").write_text(config("SEED", "5").dump())  # it never got to a step
    check_same_run(tmp_path, config(), WAY_OUT)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "results.json").touch()
    with pytest.raises(UserError, match="is not the configuration of a run"):
        check_same_run(tmp_path, config(), WAY_OUT)
    with pytest.raises(UserError, match="is not the configuration of a run"):
        read_config(tmp_path)


def test_a_network_that_has_changed_since(tmp_path: Path) -> None:
    file, network = tmp_path / "architecture.json", load_architecture("mnasnet_b1")
    check_same_network(file, network, WAY_OUT)
    network.save(file)
    check_same_network(file, network, WAY_OUT)
    with pytest.raises(UserError, match=r"its network is not 'mnasnet_b1_.*; name another folder"):
        check_same_network(file, network.scaled(0.5), WAY_OUT)
