#!/usr/bin/env python
"""From a folder of annotated photos to detectors for a device, in one command.

Checks the data, profiles this machine, trains a detector from published weights, searches on its
losses for backbones at the runtimes asked for, fine-tunes, compares, exports and reports.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """
examples:
  a detector whose backbone takes 15 ms on a core of this machine, in 90 minutes at most:
    %(prog)s --data photos --target 15ms --budget 90m
  three of them from one search; what it will do, and how long that takes:
    %(prog)s --data photos --targets 10ms 15ms 25ms --plan
  for the device of a latency table, as files for LiteRT:
    %(prog)s --data photos --target 40ms --table my_phone.json --formats litert
  without masks, where the annotations have none:
    %(prog)s --data photos --target 15ms --detector faster_rcnn

The same command goes on where it was interrupted.
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="FOLDER",
        help="annotated photos, as DATA.ROOT names them; or a training and a validation set, as "
        "DATASETS.TRAIN and DATASETS.TEST name them; or 'digits', the embedded ones",
    )
    parser.add_argument(
        "--target", metavar="RUNTIME", help="of the backbone with its pyramid: 15ms, or 15"
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="RUNTIME",
        help="several, all from one search; the first one is what is compared",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="cpu or cuda of this machine, which is profiled (default: cpu)",
    )
    parser.add_argument(
        "--engine",
        default="onnxruntime",
        metavar="NAME",
        help="inference engine there: onnxruntime, litert, torch (default: onnxruntime)",
    )
    parser.add_argument(
        "--table",
        metavar="NAME",
        help="latency table of the device, by name or path, in place of a profile",
    )
    parser.add_argument(
        "--detector",
        default="mask_rcnn",
        metavar="NAME",
        help="mask_rcnn, faster_rcnn or retinanet (default: mask_rcnn)",
    )
    parser.add_argument(
        "--seed-network",
        default="efficientnet_lite0",
        metavar="NAME",
        help="published network that the search starts from (default: efficientnet_lite0)",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="for all of it: 2h, 90m, 1h30m (default: as long as the recipe takes)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="shorter side of the images (default: what data, targets and budget ask for)",
    )
    parser.add_argument(
        "--formats",
        nargs="+",
        default=["onnx"],
        metavar="FORMAT",
        help="of the exported files: onnx, litert, torch (default: onnx)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/auto"),
        metavar="FOLDER",
        help="of all that is made (default: output/auto)",
    )
    parser.add_argument("--plan", action="store_true", help="print the plan, and stop")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="configuration keys to change in all trainings, those of SEARCH in the search",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from search.auto.request import Request
    from search.auto.run import run_auto

    run_auto(Request.of(args), args.output, args.plan)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
