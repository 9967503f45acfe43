#!/usr/bin/env python
"""Says what the data sets of a configuration are, and what is wrong or odd in them.

Images, sizes, classes, objects by class and scale; then every kind of fault with its count, its
first example and the way out; then keys for the input size and the anchors that fit the data. The
same checks run before every training and evaluation. The exit code is 2 if a run would be refused.
"""

from __future__ import annotations

import argparse

EPILOG = """
examples:
  a folder of your own:
    %(prog)s --config-file configs/detection/custom.yaml DATA.ROOT photos
  the embedded digits, for the model of a configuration:
    %(prog)s --config-file configs/detection/mask_rcnn_spnas_fpn_digits.yaml
  COCO below $DETECTRON2_DATASETS, for boxes alone:
    %(prog)s --config-file configs/detection/mask_rcnn_spnas_fpn_1x.yaml MODEL.MASK_ON False
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        default="detection/Base-SPNAS-FPN.yaml",
        metavar="FILE",
        help="YAML configuration of a detector or of a search on one: a path, or a name below the "
        "configs/ folder that comes with the project (default: %(default)s)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="configuration keys to change, e.g. DATASETS.TRAIN \"('digits_train',)\"",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from detection.data.inspection import inspect
    from detection.data.resolve import resolve_data
    from detection.engine.config_file import load_config
    from search.config import add_search_config

    args.num_gpus = 0
    args.opts = [*args.opts, "MODEL.DEVICE", "cpu"]
    cfg, notes = resolve_data(load_config(args, add_search_config))
    for text in notes:
        print(text)
    inspect(cfg, lambda text: print(f"{text}\n"))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
