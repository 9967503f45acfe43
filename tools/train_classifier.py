#!/usr/bin/env python
"""Trains a fixed network on ImageNet (or any folder of images) and exports its backbone."""

from __future__ import annotations

import argparse

from detection.engine.cli import argument_parser, load_config, run
from detection.engine.run_folder import open_run
from search.classification.classifier import ClassifierTrainer
from search.config import add_search_config


def parse() -> argparse.Namespace:
    return argument_parser(__doc__ or "").parse_args()


def main(args: argparse.Namespace) -> None:
    cfg = load_config(args, add_search_config)
    open_run(cfg, args)
    trainer = ClassifierTrainer(cfg)
    if args.eval_only:
        trainer.evaluate_only()
        return
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


if __name__ == "__main__":
    run(main, parse())
