#!/usr/bin/env python
"""Writes one self-contained HTML page about runs, and takes screenshots of it."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """
examples:
  all that spnas auto has left:
    %(prog)s output/auto
  all runs of the demo:
    %(prog)s output/demo
  a detector with its search, beside another detector:
    %(prog)s output/mask_rcnn output/search --baseline output/mnasnet --output report.html
  a comparison of backbones:
    %(prog)s docs/results/comparison.json --output comparison.html
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="OUTPUT_DIR of a search, a classifier or a detector, a folder of such folders, or the "
        "JSON of a study; AP is shown of the first detector",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="RUN",
        help="the detector that differences of AP are to (default: the second one among the runs)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the page (default: report.html in the first RUN if that is a folder, else here)",
    )
    parser.add_argument(
        "--screenshots",
        type=Path,
        metavar="FOLDER",
        help="also put pictures of the page here, 390 and 1440 pixels wide, light and dark; needs "
        "Chromium or Chrome",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.report.browser import look
    from search.report.page import REPORT_FILE, write_report

    first = args.runs[0]
    path = args.output or (first if first.is_dir() else Path()) / REPORT_FILE
    print(f"The report: {write_report(args.runs, path, args.baseline)}")
    if args.screenshots:
        for view in look(path, args.screenshots):
            print(f"{view.width} pixels, {view.scheme}: {view.picture}, whole: {view.whole}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
