#!/usr/bin/env python
"""Compares ways to choose a network out of an adapted supernet, all fine-tuned by one recipe.

A study that was interrupted goes on where it was. Trailing KEY VALUE pairs change every search.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.errors import UserError
from search.studies.arguments import add_study_file, add_workers, pairs, study_parser


def parse() -> argparse.Namespace:
    parser = study_parser(__doc__)
    parser.add_argument(
        "--rows",
        nargs="*",
        metavar="ROW",
        help="of start, sensitivity, taylor, sigmoid, blind, drop, random, and of classifiers "
        "narrowed (default: all of them); none has those of --networks alone",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="further rows: architecture files of networks that were found elsewhere",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        type=float,
        default=[0.6],
        help="targets, as parts of the start's runtime (default: 0.6)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="of every row (default: 3)")
    parser.add_argument(
        "--controls", type=int, default=10, help="networks of drop and random (default: 10)"
    )
    parser.add_argument("--search-config-file", default="search/pretrained.yaml", metavar="FILE")
    parser.add_argument(
        "--train-config-file", default="classification/finetune.yaml", metavar="FILE"
    )
    parser.add_argument(
        "--train-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="keys of the fine-tuning to change, such as CLASSIFICATION.EPOCHS=1.0",
    )
    add_workers(
        parser, "supernets, and then trials, at a time, on one thread each; 1 uses all threads"
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="for supernets and networks, which are kept"
    )
    parser.add_argument(
        "--measure",
        type=int,
        default=0,
        metavar="ROUNDS",
        help="then measure all networks of the study on the table's device, in turns (default: 0)",
    )
    add_study_file(parser)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from detection.data.resolve import resolve_data
    from search.classification.data import resolve_classifier
    from search.config import load_search_config
    from search.runs.build import build_latency_table
    from search.runs.data import resolve_search_data
    from search.runs.detector_backbone import searches_detector
    from search.start.seed import search_space
    from search.studies.pretrained.choosing import ROWS, given
    from search.studies.pretrained.measuring import measure_networks
    from search.studies.pretrained.study import run_study
    from search.studies.pretrained.tables import study_table
    from search.studies.workers import workers_of

    workers = workers_of(args, args.output)
    found = pairs("--networks", args.networks)
    known = {**ROWS, **{name: given(file) for name, file in found}}
    search_cfg, _ = resolve_search_data(load_search_config(args.search_config_file, args.opts))
    on_detectors = searches_detector(search_cfg)
    fitting = [name for name, row in ROWS.items() if not (on_detectors and row.narrows)]
    rows = [*(fitting if args.rows is None else args.rows), *(name for name, _ in found)]
    if unknown := [name for name in rows if name not in known]:
        raise UserError(f"unknown row '{unknown[0]}'; expected some of {', '.join(ROWS)}")
    if wrong := [part for part in args.parts if not 0 < part <= 2]:
        raise UserError(f"--parts has {wrong[0]:g}; expected parts of the start's runtime, to 2")
    options = [item for pair in pairs("--train-options", args.train_options) for item in pair]
    if on_detectors and (narrow := [name for name in rows if known[name].narrows]):
        raise UserError(f"the row '{narrow[0]}' is for classifiers alone; leave it out of --rows")
    resolve = resolve_data if on_detectors else resolve_classifier
    training_cfg, _ = resolve(load_search_config(args.train_config_file, options))
    trials = [
        (name, part, seed)
        for seed in range(max(args.seeds, args.controls))
        for name in rows
        for part in (args.parts if known[name].per_target else [1.0])
        if seed < (args.seeds if known[name].own_supernet else args.controls)
    ]
    if not trials:
        raise UserError("no trials: --rows, --parts, --seeds or --controls ask for none")
    facts = {
        **workers.facts(device=search_cfg.MODEL.DEVICE),
        "unit": build_latency_table(search_cfg, search_space(search_cfg)).unit,
    }
    study = run_study(
        *(search_cfg, training_cfg, known, trials, args.folder, args.output, facts),
        workers=workers,
    )
    if args.measure:
        study = measure_networks(search_cfg, args.output, args.measure)
    print(study_table(study))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
