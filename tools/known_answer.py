#!/usr/bin/env python
"""Trains every network of a small space, and judges search methods by their regret.

train: every network several times by one recipe, into a file that is the truth from then on.
search: methods x targets x seeds; every network found is looked up in the truth.

A command that was interrupted goes on where it was. Trailing KEY VALUE pairs change the recipe of
the trainings, or every search.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from search.studies.arguments import add_workers, check_counts, study_parser

RESULTS = Path("docs/results")


def parse() -> argparse.Namespace:
    parser = study_parser(__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    train = steps.add_parser("train", help="train every network of the space")
    train.add_argument(
        "--classifier-config-file", default="classification/digits_small.yaml", metavar="FILE"
    )
    train.add_argument("--seeds", type=int, default=5, help="of every network (default: 5)")
    search = steps.add_parser("search", help="search, and look up what was found")
    search.add_argument(
        "--methods",
        nargs="+",
        default=["single-path", "random"],
        metavar="METHOD",
        help="of single-path, norm, literal, log-odds, ste, softmax, multi-path, "
        "multi-path-gumbel, evolution, sensitivity, taylor, random-search, random",
    )
    search.add_argument("--targets", nargs="+", type=float, required=True)
    search.add_argument("--seeds", type=int, default=10, help="of every method (default: 10)")
    search.add_argument("--first-seed", type=int, default=0, help="(default: 0)")
    for step in (train, search):
        step.add_argument(
            "--search-config-file", default="search/digits_small.yaml", metavar="FILE"
        )
        add_workers(step, "processes, of one thread each", "the number of cores")
        step.add_argument("--truth", type=Path, default=RESULTS / "known-answer-truth.json")
    search.add_argument("--output", type=Path, default=RESULTS / "known-answer.json")
    for step in (train, search):
        step.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.config import load_search_config
    from search.studies.known_answer.study import run_searches, train_truth, truth_facts
    from search.studies.known_answer.tables import regret_table, reliability_table
    from search.studies.known_answer.truth import Truth
    from search.studies.workers import workers_of

    check_counts(args, seeds=1)
    output = args.truth if args.step == "train" else args.output
    workers = workers_of(args, output, default=os.cpu_count() or 1)
    if args.step == "train":
        search_cfg = load_search_config(args.search_config_file)
        train_cfg = load_search_config(args.classifier_config_file, args.opts)
        facts = workers.facts(device=train_cfg.MODEL.DEVICE)
        truth = train_truth(search_cfg, train_cfg, args.seeds, workers, args.truth, facts)
        if args.seeds > 1:  # one training of each has no spread to show
            print(reliability_table(truth_facts(truth)))
        return
    # the accuracy of the supernet's own weights is not looked at
    options = ["SEARCH.CALIBRATION_BATCHES", "1", *args.opts]
    search_cfg = load_search_config(args.search_config_file, options)
    facts = workers.facts(device=search_cfg.MODEL.DEVICE)
    trials = [
        (method, target, seed)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for target in args.targets
        for method in args.methods
    ]
    truth = Truth.load(args.truth)
    study = run_searches(search_cfg, truth, trials, workers, args.output, facts)
    print(regret_table(study))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
