#!/usr/bin/env python
"""Trains and evaluates a detector with one of the project's backbones, or any of Detectron2's.

Ends with a table of AP, AP50, AP75 and AP by object scale for boxes and masks, beside parameters,
multiply-accumulates and predicted runtime; also in OUTPUT_DIR/results.json.
"""

from __future__ import annotations

import argparse

from backbones.arguments import argument_parser

EPILOG = """
examples:
  on the embedded digits, a few minutes on two cores:
    %(prog)s --config-file configs/detection/mask_rcnn_spnas_fpn_digits.yaml \\
        OUTPUT_DIR output/digits MODEL.SPNAS.ARCH output/search/architecture.json \\
        MODEL.WEIGHTS output/search/backbone.pth
  on your own photos: annotation file and image folder, or a folder that has both (docs/data.md):
    %(prog)s --config-file configs/detection/custom.yaml DATA.ROOT photos
    %(prog)s --config-file configs/detection/custom.yaml \\
        DATASETS.TRAIN photos/train.json:photos/train DATASETS.TEST photos/val.json:photos/val
  on COCO below $DETECTRON2_DATASETS, on eight GPUs:
    %(prog)s --config-file configs/detection/mask_rcnn_spnas_fpn_1x.yaml --num-gpus 8
  go on after an interruption:
    %(prog)s --config-file CONFIG.yaml --resume OUTPUT_DIR output/first
  evaluate only:
    %(prog)s --config-file CONFIG.yaml --eval-only MODEL.WEIGHTS output/first/model_final.pth
"""


def parse() -> argparse.Namespace:
    return argument_parser((__doc__ or "").strip(), EPILOG).parse_args()


def main(args: argparse.Namespace) -> None:
    from functools import cache, partial

    from detection import add_spnas_config
    from detection.data.resolve import resolve_data
    from detection.engine.config_file import load_config
    from detection.engine.run_folder import open_run
    from detection.trainer import DetectionTrainer, evaluate
    from search.report.page import report_run

    cfg, notes = resolve_data(load_config(args, add_spnas_config), training=not args.eval_only)
    folder = open_run(cfg, args, notes)
    report = cache(partial(report_run, folder))  # once, before or behind the end of a training
    if args.eval_only:
        evaluate(cfg, resume=args.resume)
    else:
        trainer = DetectionTrainer(cfg)
        trainer.ending = report
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
    report()


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run

    run(main, arguments)
