"""The sweeps of configs/sweeps are what W&B takes, and start what they say.

``wandb_sweep_schema.json`` is the schema of W&B's package ``sweeps`` 0.3.0 (MIT licence), which a
server checks a sweep by; the package itself needs NumPy 1.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from wandb.sdk.launch.sweeps import utils

from backbones.paths import config_path
from detection.engine.config_file import load_config
from search.config import add_search_config
from search.runs.build import build_runtime_model, check_targets
from search.space import SearchSpace

SCHEMA = json.loads(Path(__file__).with_name("wandb_sweep_schema.json").read_text())
SWEEPS = sorted(config_path("sweeps").glob("*.yaml"))

of_sweeps = pytest.mark.parametrize("path", SWEEPS, ids=[path.stem for path in SWEEPS])


def problems(sweep: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft7Validator(SCHEMA).iter_errors(sweep)]


@of_sweeps
def test_the_schema_of_w_and_b_accepts_it(path: Path) -> None:
    sweep = utils.load_sweep_config(str(path))
    assert sweep is not None and problems(sweep) == []
    wrong = copy.deepcopy(sweep)
    wrong["methods"] = "grid"
    wrong["parameters"]["SEARCH.TARGET"]["valuse"] = [1]
    assert problems(wrong)


def commands(sweep: dict[str, Any]) -> list[list[str]]:
    """What an agent of W&B's would start for each value of the only parameter."""
    ((key, parameter),) = sweep["parameters"].items()
    template = utils.create_sweep_command(list(sweep["command"]))
    found = []
    for value in parameter["values"]:
        macros = utils.create_sweep_command_args({"args": {key: {"value": value}}})
        macros["env"] = ["/usr/bin/env"]
        words: list[str] = []
        for word in template:
            is_macro = word.startswith("${") and word.endswith("}")
            words += macros[word[2:-1]] if is_macro else [word]
        found.append(words)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="an agent's command is one of bash")
@of_sweeps
def test_an_agent_starts_a_search_for_every_target(path: Path, tmp_path: Path) -> None:
    """``spnas`` is replaced by a program that writes its words down."""
    program = tmp_path / "spnas"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    sweep = utils.load_sweep_config(str(path))
    assert sweep is not None
    targets, folders = [], set()
    for number, words in enumerate(commands(sweep)):
        env = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "WANDB_RUN_ID": f"r{number}",
        }
        out = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
        tool, option, file, *pairs = json.loads(out)
        assert (tool, option) == ("search", "--config-file")
        args = argparse.Namespace(config_file=file, opts=[*pairs, "MODEL.DEVICE", "cpu"])
        cfg = load_config(args, add_search_config)
        check_targets(cfg, build_runtime_model(cfg, SearchSpace.load(cfg.SEARCH.SPACE)))
        targets.append(cfg.SEARCH.TARGET)
        folders.add(cfg.OUTPUT_DIR)
    assert targets == sweep["parameters"]["SEARCH.TARGET"]["values"]
    assert folders == {f"output/targets/r{number}" for number in range(len(targets))}
