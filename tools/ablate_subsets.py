#!/usr/bin/env python
"""Trains 3x3 kernels alone, 5x5 kernels alone, and 3x3 inside 5x5, by one recipe (Table II).

A study that was interrupted goes on where it was. Trailing KEY VALUE pairs change the recipe.
"""

from __future__ import annotations

import argparse

from search.studies.arguments import add_study_file, add_workers, check_counts, study_parser


def parse() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of every training (default: 3)")
    parser.add_argument("--epochs", type=float, default=2.0, help="of every training (default: 2)")
    parser.add_argument("--config-file", default="classification/digits.yaml", metavar="FILE")
    add_workers(parser, "trainings at a time, on one thread each; 1 uses all threads")
    add_study_file(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.config import load_search_config
    from search.studies.ablation import ablation_table, run_ablation
    from search.studies.workers import workers_of

    check_counts(args, seeds=1)
    workers = workers_of(args, args.output)
    options = ["CLASSIFICATION.EPOCHS", str(args.epochs), *args.opts]
    cfg = load_search_config(args.config_file, options)
    recipe = " ".join([f"--epochs {args.epochs:g} --config-file {args.config_file}", *args.opts])
    facts = {**workers.facts(device=cfg.MODEL.DEVICE), "recipe": recipe}
    print(ablation_table(run_ablation(cfg, args.seeds, args.output, facts, workers)))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
