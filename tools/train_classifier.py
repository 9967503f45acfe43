#!/usr/bin/env python
"""Trains a fixed network on ImageNet (or any folder of images) and exports its backbone."""

from __future__ import annotations

import argparse

from backbones.arguments import argument_parser


def parse() -> argparse.Namespace:
    return argument_parser(__doc__ or "").parse_args()


def main(args: argparse.Namespace) -> None:
    from functools import cache, partial

    from detection.engine.config_file import load_config
    from detection.engine.run_folder import open_run
    from search.classification.classifier import ClassifierTrainer
    from search.classification.data import resolve_classifier
    from search.config import add_search_config
    from search.report.page import report_run

    cfg, notes = resolve_classifier(load_config(args, add_search_config))
    folder = open_run(cfg, args, notes)
    report = cache(partial(report_run, folder))  # once, before or behind the end of a training
    trainer = ClassifierTrainer(cfg)
    if args.eval_only:
        trainer.evaluate_only()
    else:
        trainer.ending = report
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
    report()


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run

    run(main, arguments)
