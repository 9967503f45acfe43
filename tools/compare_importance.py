#!/usr/bin/env python
"""Compares what thresholds are judged by: scale-free, in initial norms, and Eq. 2 to the letter.

Every search ends at the same target; every network found is trained from scratch with one recipe.
A study that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from detectron2.config import CfgNode

from backbones.engines.hardware import device_name
from detection.engine.cli import load_config, run_tool
from search.config import add_search_config
from search.space import SearchSpace
from search.study import IMPORTANCE_VARIANTS, live_thresholds, run_study


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds a variant (default: 3)")
    parser.add_argument(
        "--search-epochs", type=float, default=1.0, help="of every search (default: 1)"
    )
    parser.add_argument(
        "--train-epochs", type=float, default=2.0, help="of every final training (default: 2)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/results/importance.json"),
        help="where the study is kept (default: docs/results/importance.json)",
    )
    return parser.parse_args()


def digits_config(stage: str, epochs: float) -> CfgNode:
    options = ["CLASSIFICATION.EPOCHS", str(epochs), "SEARCH.CALIBRATION_BATCHES", "1"]
    file = argparse.Namespace(config_file=f"{stage}/digits.yaml", opts=options)
    return load_config(file, add_search_config)


def main(args: argparse.Namespace) -> None:
    search_cfg = digits_config("search", args.search_epochs)
    classifier_cfg = digits_config("classification", args.train_epochs)
    space = SearchSpace.load(search_cfg.SEARCH.SPACE)
    names = [variant.name for variant in IMPORTANCE_VARIANTS]
    facts = {
        "command": f"python tools/compare_importance.py --seeds {args.seeds} "
        f"--search-epochs {args.search_epochs:g} --train-epochs {args.train_epochs:g}",
        "hardware": f"{device_name('cpu')}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "target": search_cfg.SEARCH.TARGET,
        "live_thresholds": {name: live_thresholds(space, name) for name in names},
    }
    study = run_study(
        search_cfg, classifier_cfg, IMPORTANCE_VARIANTS, range(args.seeds), args.output, facts
    )
    print(json.dumps({key: study[key] for key in ("summary", "live_thresholds")}, indent=2))


if __name__ == "__main__":
    run_tool(main, parse())
