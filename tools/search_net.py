#!/usr/bin/env python
"""Searches a backbone at a target runtime and exports it."""

from __future__ import annotations

import argparse

from backbones.arguments import argument_parser


def parse() -> argparse.Namespace:
    return argument_parser(__doc__ or "").parse_args()


def main(args: argparse.Namespace) -> None:
    from functools import cache, partial

    from detection.engine.config_file import load_config
    from detection.engine.run_folder import open_run
    from search.config import add_search_config
    from search.report.page import report_run
    from search.runs.data import resolve_search_data
    from search.runs.run import run_search

    cfg, notes = resolve_search_data(load_config(args, add_search_config))
    folder = open_run(cfg, args, notes)
    report = cache(partial(report_run, folder))  # once, before or behind the end of a training
    run_search(cfg, args.resume, args.eval_only, report)
    report()


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run

    run(main, arguments)
