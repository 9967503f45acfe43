from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from backbones import paths
from backbones.errors import UserError
from backbones.paths import config_path
from detection.config import add_spnas_config
from detection.engine.config import add_engine_config
from detection.engine.config_file import find_config_file, load_config


def _load(*opts: str, file: object = "") -> CfgNode:
    args = argparse.Namespace(config_file=str(file), opts=list(opts), num_gpus=0)
    return load_config(args, add_engine_config)


def test_layers_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("SOLVER: {BASE_LR: 0.5, MAX_ITER: 7}\n")
    file = tmp_path / "run.yaml"
    file.write_text("_BASE_: base.yaml\nVERSION: 2\nSOLVER: {MAX_ITER: 9}\nWANDB: {TAGS: [a]}\n")
    cfg = _load("WANDB.MODE", "offline", "SOLVER.STEPS", "[5]", file=file)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (0.5, 9, (5,))
    assert (cfg.WANDB.MODE, cfg.WANDB.TAGS, cfg.WANDB.PROJECT) == ("offline", ["a"], "spnas")
    assert cfg.is_frozen()


def test_a_whole_number_is_a_float(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("VERSION: 2\nSOLVER: {BASE_LR: 1, MAX_ITER: 3}\n")
    solver = _load("SOLVER.GAMMA", "2", "SOLVER.STEPS", "(1,)", file=file).SOLVER
    assert [repr(solver[key]) for key in ("BASE_LR", "MAX_ITER", "GAMMA")] == ["1.0", "3", "2.0"]
    assert solver.STEPS == (1,)


def test_of_several_bases_the_last_counts_most(tmp_path: Path) -> None:
    (tmp_path / "root.yaml").write_text("SOLVER: {BASE_LR: 0.1, MAX_ITER: 1, GAMMA: 0.2}\n")
    (tmp_path / "first.yaml").write_text("_BASE_: root.yaml\nSOLVER: {BASE_LR: 0.2, MAX_ITER: 2}\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper/last.yaml").write_text("SOLVER: {BASE_LR: 0.3}\n")
    file = tmp_path / "run.yaml"
    file.write_text("_BASE_: [first.yaml, deeper/last.yaml]\nVERSION: 2\nSOLVER: {MAX_ITER: 9}\n")
    solver = _load(file=file).SOLVER
    assert (solver.BASE_LR, solver.MAX_ITER, solver.GAMMA) == (0.3, 9, 0.2)


def test_names_below_the_projects_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs" / "detection"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("VERSION: 2\nSOLVER: {MAX_ITER: 3}\n")
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path)
    assert _load(file="detection/tiny.yaml").SOLVER.MAX_ITER == 3
    with pytest.raises(UserError, match="did you mean 'detection/tiny.yaml'"):
        _load(file="detection/tinny.yaml")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("SOLVER: {BASE_LRR: 0.1}", "unknown key 'SOLVER.BASE_LRR'; did you mean 'SOLVER.BASE_LR'"),
        ("SOLVR: {BASE_LR: 0.1}", "unknown key 'SOLVR'"),
        ("SOLVER: {MAX_ITER: many}", r"'SOLVER.MAX_ITER' to 'many' \(str\); expected int"),
        ("SOLVER: {BASE_LR: true}", "expected float, such as its default 0.001"),
        (f"SOLVER: {{BASE_LR: 1{'0' * 400}}}", "expected float"),
        ("SOLVER: 3", "'SOLVER' to 3, but it is a section"),
        ("SOLVER:", "'SOLVER' to None, but it is a section"),
        ("SOLVER: {BASE_LR: 0.1", "not valid YAML: .*line"),
        ("- a\n- b", "holds no settings"),
        ("", "holds no settings"),
        ("_BASE_: absent.yaml", "absent.yaml', the _BASE_ of '.*run.yaml', does not exist"),
        ("_BASE_: run.yaml", "is its own _BASE_"),
        ("_BASE_: [good.yaml, absent.yaml]", "absent.yaml', the _BASE_ of .*, does not exist"),
        ("_BASE_: [good.yaml, run.yaml]", "is its own _BASE_"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "good.yaml").write_text("VERSION: 2\n")
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=expected) as caught:
        _load(file=file)
    assert "run.yaml" in str(caught.value)


@pytest.mark.parametrize("name", ["search/digits.yaml", "configs/search/digits.yaml"])
def test_names_of_the_projects_own_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any folder; a file of the user comes first."""
    monkeypatch.chdir(tmp_path)
    assert find_config_file(name) == config_path("search", "digits.yaml")
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert find_config_file(name) == Path(name)


def test_a_misspelt_name_of_the_projects_own_files() -> None:
    with pytest.raises(UserError, match=r"; did you mean 'search/digits\.yaml'\?"):
        find_config_file("configs/search/digit.yaml")


def test_missing_file() -> None:
    with pytest.raises(UserError, match="no configuration file 'absent.yaml'"):
        _load(file="absent.yaml")


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        (["SOLVER.MAX_ITER"], "'SOLVER.MAX_ITER' at the end of the command line has no value"),
        (["SOLVER.MAXITER", "3"], "did you mean 'SOLVER.MAX_ITER'"),
        (["solver.max_iter", "3"], "did you mean 'SOLVER.MAX_ITER'"),
        (["SOLVER.MAX_ITER", "3.5"], "expected int"),
        (["SOLVER.MAX_ITER.DEEPER", "3"], "unknown key"),
        (["SOLVER", "3"], "section"),
        (["SOLVER.MAX_ITER", "3", "--resume"], "'--resume' comes after"),
        (["SOLVER.BASE_LR=0.1"], "no value"),
        (["SOLVER.MAX_ITER", "__import__('os').getpid()"], r"getpid\(\)\" \(str\); expected int"),
        (["SOLVER.MAX_ITER", "{[]: 1}"], r"'{\[\]: 1}', which is no value"),
        (["SOLVER.MAX_ITER", "-" * 100_000 + "1"], "'-{50}…', which is no value"),
    ],
)
def test_mistakes_on_the_command_line(opts: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        _load(*opts)


def test_an_old_key_is_refused_with_the_new_one(tmp_path: Path) -> None:
    """In a file, on the command line, and where the keys were added twice, as scripts do."""
    file = tmp_path / "run.yaml"
    file.write_text("MODEL: {SPNAS: {RUNTIME_ENGINE: torch}}\n")
    for name, opts in ((str(file), []), ("", ["MODEL.SPNAS.RUNTIME_ENGINE", "torch"])):
        args = argparse.Namespace(config_file=name, opts=opts, num_gpus=0)
        with pytest.raises(UserError, match=r"RUNTIME_ENGINE was renamed to MODEL\.SPNAS\.ENGINE"):
            load_config(args, add_spnas_config, add_spnas_config)


@pytest.mark.parametrize(
    ("available", "num_gpus", "device"), [(False, 0, "cpu"), (True, 0, "cpu"), (True, 1, "cuda")]
)
def test_device(
    monkeypatch: pytest.MonkeyPatch, available: bool, num_gpus: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    cfg = load_config(argparse.Namespace(config_file="", opts=[], num_gpus=num_gpus))
    assert device == cfg.MODEL.DEVICE
