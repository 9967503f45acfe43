#!/usr/bin/env python
"""Finds objects or classes on photos, and writes results and drawings.

The model is a detector's checkpoint, the folder of a detector's or a classifier's run, or an
exported file. A detector's results are in COCO's formats: predictions.json with images and
classes, coco_instances_results.json without; a classifier's are predictions.json and
predictions.csv with the five likeliest classes. The exit code is 1 if some of the images could not
be read, and 2 if nothing was done.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.errors import UserError
from backbones.files import write_json

EPILOG = """
examples:
  a detector's run, on a folder of photos:
    %(prog)s output/mask_rcnn photos --output output/predictions
  a checkpoint of another place, with its configuration:
    %(prog)s model_final.pth 'photos/*.jpg' \\
        --config-file configs/detection/mask_rcnn_spnas_fpn_1x.yaml
  exported files, on photos with annotations, for their AP:
    %(prog)s detector.onnx datasets/digits/val \\
        --annotations datasets/digits/annotations/instances_val.json --no-drawings
  a classifier:
    %(prog)s output/classifier photo.jpg
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="checkpoint, run's folder or exported file")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="images, folders or patterns of images"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("output/predictions"),
        metavar="FOLDER",
        help="for results and drawings (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="SCORE",
        help="leave out detections below it (default: write all that the model finds, draw those "
        "of 0.5 or more)",
    )
    parser.add_argument("--no-drawings", action="store_true", help="write results alone")
    parser.add_argument(
        "--predict",
        choices=("boxes", "masks"),
        help="masks: insist on a detector with masks; boxes: leave its masks out (default: what "
        "the model has)",
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        help="COCO annotations of the images: results have their ids, and AP is printed",
    )
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="configuration of the model (default: config.yaml beside it)",
    )
    parser.add_argument(
        "--device",
        default="",
        choices=("cpu", "cuda"),
        help="for a model in PyTorch (default: the configuration's; exported files run on the CPU)",
    )
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="configuration keys to change, last on the line",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from detection.engine.results import to_json
    from detection.prediction.images import find_images
    from detection.prediction.results import read_truth, scores_table
    from search.deployment.prediction import open_predictor, predict_images

    if args.confidence is not None and not 0 <= args.confidence <= 1:
        raise UserError(f"--confidence is {args.confidence:g}; expected a score from 0 to 1")
    paths = find_images(args.images)
    truth = read_truth(args.annotations) if args.annotations else None
    masks = None if args.predict is None else args.predict == "masks"
    predictor = open_predictor(args.model, args.config_file, args.opts, args.device, masks)
    unreadable, found = predict_images(
        predictor,
        paths,
        args.output,
        truth=truth,
        confidence=args.confidence,
        drawings=not args.no_drawings,
    )
    read = len(paths) - len(unreadable)
    if found is None:
        print(f"Wrote the classes of {read} images to {args.output}")
    else:
        print(f"Wrote {len(found.results)} detections on {read} images to {args.output}")
        if truth is not None:
            scores = found.scores()
            write_json(args.output / "scores.json", to_json(scores))
            print(scores_table(scores))
    if unreadable:
        print(f"{len(unreadable)} of {len(paths)} images could not be read and are left out:")
        for item in unreadable:
            print(f"  {item['reason']}")
        raise SystemExit(1)


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
