#!/usr/bin/env python
"""Trains 3x3 kernels alone, 5x5 kernels alone, and 3x3 inside 5x5, by one recipe (Table II).

A study that was interrupted goes on where it was. Trailing KEY VALUE pairs change the recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.errors import UserError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="of every training (default: 3)")
    parser.add_argument("--epochs", type=float, default=2.0, help="of every training (default: 2)")
    parser.add_argument("--config-file", default="classification/digits.yaml", metavar="FILE")
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file in which the study is kept"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from detection.engine.provenance import provenance
    from search.config import load_search_config
    from search.studies.ablation import ablation_table, run_ablation

    if args.seeds < 1:
        raise UserError(f"--seeds is {args.seeds}; expected 1 or more")
    options = ["CLASSIFICATION.EPOCHS", str(args.epochs), *args.opts]
    cfg = load_search_config(args.config_file, options)
    recipe = " ".join([f"--epochs {args.epochs:g} --config-file {args.config_file}", *args.opts])
    facts = {**provenance(), "recipe": recipe}
    print(ablation_table(run_ablation(cfg, args.seeds, args.output, facts)))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
