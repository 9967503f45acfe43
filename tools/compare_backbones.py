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
from backbones.files import atomic_path, write_atomic, write_json
from detection.comparison import (
    DetectorRun,
    check_recipe,
    classification_table,
    comma_separated,
    compare,
    comparison_figure,
    detection_table,
    load_run,
    markdown,
    paper_results,
)
from detection.engine.cli import run_tool
from detection.engine.provenance import provenance
from search.comparison import entries, finished_run, stages_of
from search.stages import check_checkout, run_stages

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
    if args.seeds < 1:
        raise UserError(f"--seeds is {args.seeds}; expected 1 or more")
    if not args.config_files and not args.runs:
        raise UserError("nothing to compare; name detectors (--config-files) or runs (--runs)")
    rows = entries(args.config_files, args.architectures)
    arguments = ("--num-gpus", args.num_gpus) if args.num_gpus is not None else ()
    if rows:
        check_checkout()
    runs = [load_run(folder) for folder in args.runs]
    folders = list(args.runs)
    for seed in range(args.seeds):
        for entry in rows:
            stages = stages_of(
                entry, seed, args.output, args.classifier_config, arguments, args.opts
            )
            if not stages[-1].finished:
                run_stages(stages, [f"{entry.name}, seed {seed}"] * len(stages))
            runs.append(finished_run(entry, stages))
            folders.append(stages[-1].folder)
            check_recipe(folders)
            write(args, runs)
    check_recipe(folders)
    write(args, runs)
    print((args.output / "comparison.md").read_text())


def write(args: argparse.Namespace, runs: list[DetectorRun]) -> None:
    found = compare(runs)
    paper = paper_results() if args.paper else None
    tables = [classification_table(found, paper), detection_table(found, paper)]
    texts = [markdown(table) for table in tables]
    note = [f"† as printed in {paper['source']}; its recipe is another one."] if paper else []
    write_json(args.output / "comparison.json", {**provenance(), "rows": found})
    write_atomic(args.output / "comparison.md", "\n\n".join([*texts, *note]) + "\n")
    write_atomic(args.output / "comparison.csv", comma_separated(found))
    with atomic_path(args.output / "comparison.png") as temporary:
        comparison_figure(found).savefig(temporary, format="png", dpi=100)


if __name__ == "__main__":
    run_tool(main, parse())
