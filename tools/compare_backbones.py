#!/usr/bin/env python
"""Compares backbones under one detector: the paper's Tables I and III, with seeds.

Trains what is not trained yet, one network and seed after the other, or collects finished runs;
all have to be of one recipe. Leaves comparison.json, .md, .csv and .png in the output folder.
Trailing KEY VALUE pairs change every detector.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.errors import UserError
from detection.comparison import load_run, write_comparison
from detection.engine.cli import run_tool
from search.comparison import entries, random_entries, stages_of, trained
from search.config import load_search_config
from search.stages import check_checkout

EPILOG = """
examples:
  networks of the zoo on COCO, three seeds each, on eight GPUs:
    %(prog)s --config-files configs/detection/mask_rcnn_spnas_fpn_1x.yaml --seeds 3 \\
        --architectures spnas_100 mnasnet_b1 mine=output/search/architecture.json \\
        --num-gpus 8 --output output/comparison
  runs that are finished already:
    %(prog)s --runs output/mask_rcnn_a output/mask_rcnn_b --output output/comparison
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-files", nargs="+", default=[], metavar="FILE", help="detectors")
    parser.add_argument(
        "--architectures",
        nargs="+",
        default=[],
        metavar="[NAME=]NETWORK",
        help="for every detector, instead of the network that its file names",
    )
    parser.add_argument(
        "--classifier-config",
        metavar="FILE",
        help="train every network as a classifier first; the detector starts from its weights",
    )
    parser.add_argument(
        "--random",
        type=int,
        default=0,
        metavar="N",
        help="a row of N networks drawn at the target of --search-config, for the first detector",
    )
    parser.add_argument("--search-config", default="search/digits.yaml", metavar="FILE")
    parser.add_argument("--seeds", type=int, default=1, help="of every network (default: 1)")
    parser.add_argument("--num-gpus", metavar="N", help="as for tools/train_net.py")
    parser.add_argument(
        "--runs", nargs="+", type=Path, default=[], metavar="FOLDER", help="finished runs"
    )
    parser.add_argument(
        "--paper", action="store_true", help="set the paper's own figures beside, marked with †"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if args.seeds < 1 or args.random < 0:
        raise UserError(
            f"--seeds is {args.seeds} and --random {args.random}; expected 1 or more seeds and 0 "
            "or more networks"
        )
    if not args.config_files and (args.random or not args.runs):
        raise UserError("nothing to compare; name detectors (--config-files) or runs (--runs)")
    rows = entries(args.config_files, args.architectures)
    if args.random:
        search_cfg = load_search_config(args.search_config)
        rows += random_entries(args.config_files[0], search_cfg, args.random, args.output)
    if rows:
        check_checkout()
    runs = [load_run(folder) for folder in args.runs]
    tables = write_comparison(runs, args.output, args.paper) if runs else ""
    arguments = ("--num-gpus", args.num_gpus) if args.num_gpus is not None else ()
    for seed in range(args.seeds):
        for row in rows:
            stages = stages_of(row, seed, args.output, args.classifier_config, arguments, args.opts)
            runs.append(trained(row, seed, stages))
            tables = write_comparison(runs, args.output, args.paper)
    print(tables)


if __name__ == "__main__":
    run_tool(main, parse())
