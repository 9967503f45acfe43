#!/usr/bin/env python
"""Compares search methods x targets x seeds, every network found trained by one recipe.

A study that was interrupted goes on where it was. Trailing KEY VALUE pairs change every search.
"""

from __future__ import annotations

import argparse

from backbones.errors import UserError
from search.studies.arguments import add_study_file, add_workers, study_parser


def parse() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help="of single-path, norm, literal, log-odds, ste, softmax, multi-path, "
        "multi-path-gumbel, evolution, sensitivity, taylor, random-search, random "
        "(default: all of them)",
    )
    parser.add_argument("--targets", nargs="+", type=float, default=[80.0], help="(default: 80)")
    parser.add_argument("--seeds", type=int, default=5, help="of every method (default: 5)")
    parser.add_argument(
        "--random-seeds", type=int, default=20, help="random networks per target (default: 20)"
    )
    parser.add_argument("--first-seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--search-config-file", default="search/digits.yaml", metavar="FILE")
    parser.add_argument(
        "--classifier-config-file", default="classification/digits.yaml", metavar="FILE"
    )
    parser.add_argument(
        "--search-epochs", type=float, default=1.0, help="of every search (default: 1)"
    )
    parser.add_argument(
        "--train-epochs", type=float, default=2.0, help="of every final training (default: 2)"
    )
    add_workers(parser, "trials at a time, on one thread each; 1 uses all threads")
    add_study_file(parser, "; its plot is put beside it")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.config import load_search_config
    from search.runs.build import build_latency_table
    from search.start.seed import search_space
    from search.studies.methods.plot import plot_study
    from search.studies.methods.study import METHODS, check_methods, live_thresholds, run_study
    from search.studies.methods.tables import study_table
    from search.studies.workers import workers_of
    from search.supernets.thresholds import IMPORTANCES

    methods = args.methods or list(METHODS)
    check_methods(methods)
    workers = workers_of(args, args.output)
    # the accuracy of the supernet's own weights is not looked at
    search_opts = ["SEARCH.CALIBRATION_BATCHES", "1", *args.opts]
    search_cfg = load_search_config(
        args.search_config_file, ["CLASSIFICATION.EPOCHS", str(args.search_epochs), *search_opts]
    )
    classifier_cfg = load_search_config(
        args.classifier_config_file, ["CLASSIFICATION.EPOCHS", str(args.train_epochs)]
    )
    trials = [
        (METHODS[name], target, args.first_seed + index)
        for index in range(max(args.seeds, args.random_seeds))
        for target in args.targets
        for name in methods
        if index < (args.seeds if METHODS[name].searches else args.random_seeds)
    ]
    if not trials:
        raise UserError("no trials: --methods, --targets, --seeds or --random-seeds ask for none")
    space = search_space(search_cfg)
    facts = {
        **workers.facts(device=search_cfg.MODEL.DEVICE),
        "unit": build_latency_table(search_cfg, space).unit,
        "live_thresholds": {name: live_thresholds(space, name) for name in IMPORTANCES},
    }
    study = run_study(search_cfg, classifier_cfg, trials, args.output, facts, workers)
    plot_study(study, args.output.with_suffix(".png"))
    print(study_table(study))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
