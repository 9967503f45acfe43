#!/usr/bin/env python
"""Finds the lambda (SEARCH.LAMBDA) that lands at a target runtime, by maximising Eq. 19.

Every trial is a search. The same command on several machines with one --storage shares the work;
a killed worker loses only its own trial, and the command started again goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.errors import UserError
from backbones.files import write_json
from search.studies.arguments import add_workers, study_parser

if TYPE_CHECKING:
    from search.studies.tuning.solvers import Fidelities


def parse() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of every search")
    parser.add_argument(
        "--solvers",
        nargs="+",
        default=["bayesian"],
        metavar="SOLVER",
        help="of random, bayesian, multi-fidelity, hyperband, grid",
    )
    parser.add_argument("--target", type=float, required=True, help="in the table's unit")
    parser.add_argument(
        "--budget",
        type=float,
        default=80.0,
        help="epochs of every study (default: 80); a grid takes what it needs",
    )
    parser.add_argument("--repeats", type=int, default=1, help="studies per solver (default: 1)")
    parser.add_argument(
        "--lambda-range", nargs=2, type=float, default=(0.01, 10.0), metavar=("LOW", "HIGH")
    )
    parser.add_argument("--epochs-range", nargs=2, type=int, default=(2, 8), metavar=("MIN", "MAX"))
    parser.add_argument(
        "--storage",
        default="sqlite:///tune.db",
        metavar="URL",
        help="database that all workers reach (default: %(default)s)",
    )
    parser.add_argument(
        "--heartbeat",
        type=int,
        default=30,
        metavar="SECONDS",
        help="a worker silent for four times as long is dead (default: 30)",
    )
    add_workers(parser, "processes that share the trials, of one thread each; 1 uses all threads")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the plot is beside")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def check(args: argparse.Namespace) -> Fidelities:
    from search.studies.tuning.solvers import SOLVERS, Fidelities

    low, high = args.lambda_range
    if not 0 < low < high:
        raise UserError(f"--lambda-range is {low:g} {high:g}; expected 0 < LOW < HIGH")
    fewest, most = args.epochs_range
    if not 1 <= fewest <= most:
        raise UserError(f"--epochs-range is {fewest} {most}; expected 1 ≤ MIN ≤ MAX")
    if args.budget < most or args.repeats < 1:
        raise UserError(
            f"--budget is {args.budget:g} and --repeats {args.repeats}; expected at least {most} "
            "epochs (one whole search) and one study"
        )
    if unknown := [name for name in args.solvers if name not in SOLVERS]:
        raise UserError(f"unknown solver '{unknown[0]}'; expected some of {', '.join(SOLVERS)}")
    return Fidelities(low, high, fewest, most)


def main(args: argparse.Namespace) -> None:
    from detection.engine.config_file import load_config
    from search.config import add_search_config
    from search.runs.build import build_latency_table
    from search.start.seed import search_space
    from search.studies.trials import recipe
    from search.studies.tuning.objective import search_outcome
    from search.studies.tuning.report import plot_tuning, study_record, summary_table
    from search.studies.tuning.solvers import SOLVERS
    from search.studies.tuning.worker import TuningTask, open_storage, work, work_through
    from search.studies.workers import Call, run_calls, workers_of

    fidelities = check(args)
    workers = workers_of(args, args.output)
    if args.cluster and args.workers is None:
        raise UserError(f"--cluster {args.cluster} needs --workers: how many jobs share the trials")
    cfg = load_config(args, add_search_config)
    unit = build_latency_table(cfg, search_space(cfg)).unit
    searches = recipe(cfg, "SEARCH")
    storage = open_storage(args.storage, args.heartbeat)
    tasks = [
        TuningTask(solver, args.target, args.budget, fidelities, seed, searches)
        for seed in range(args.repeats)
        for solver in args.solvers
    ]
    if not workers.here:
        share = partial(work_through, tasks, args.storage, args.heartbeat, cfg)
        settings = [asdict(task) for task in tasks]
        calls = [Call(f"worker {index}", share, settings) for index in range(workers.count)]
        list(run_calls(calls, workers))
    facts = {
        **workers.facts(device=cfg.MODEL.DEVICE),
        "target": args.target,
        "unit": unit,
        "budget": args.budget,
    }
    records = []
    for task in tasks:
        study = work(task, storage, search_outcome(cfg, SOLVERS[task.solver].stops_early))
        records.append(study_record(task, study))
        write_json(args.output, {**facts, "studies": records})
        plot_tuning(records, args.output.with_suffix(".png"))
    print(summary_table(records, unit))
    plot = args.output.with_suffix(".png")
    print(f"Wrote {args.output}{f' and {plot}' if plot.exists() else ''}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
