#!/usr/bin/env python
"""Writes a network as a file for a device, once that file has run and does what PyTorch does."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """
MODEL is one of
  the folder of a search, a classifier or a detector that was trained;
  an architecture.json, with backbone.pth beside it or --weights;
  a checkpoint, with the --config-file that it was trained with;
  a name of the zoo whose weights are published (efficientnet_lite0).

examples:
  a classifier for ONNX Runtime, batch and image size as they come:
    %(prog)s --kind classifier --format onnx --output classifier.onnx output/classifier
  the same in int8 for LiteRT, calibrated on photos of your own:
    %(prog)s --kind classifier --format litert --precision int8 --calibration photos \\
        --output classifier.tflite output/classifier
  a whole detector, its steps without weights in NumPy beside it:
    %(prog)s --kind detector --format onnx --output detector.onnx output/mask_rcnn
  a backbone with its feature pyramid, from a detector:
    %(prog)s --kind pyramid --format torch --output pyramid.pt2 output/mask_rcnn
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="see below")
    parser.add_argument(
        "--kind",
        required=True,
        choices=("backbone", "pyramid", "classifier", "detector"),
        help="backbone: maps at strides 4 to 32; pyramid: backbone and feature pyramid of a "
        "detector; classifier: logits; detector: a whole one, in up to three files",
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=("onnx", "litert", "torch"),
        help="of the file: .onnx, .tflite, or torch.export's .pt2",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "fp16", "int8"),
        help="fp16 and int8 for onnx and litert (default: fp32)",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="its contract is FILE's .json"
    )
    parser.add_argument(
        "--input-size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="of the image in pixels, which a .tflite is bound to (default: what the network was "
        "trained for)",
    )
    parser.add_argument(
        "--preprocessing",
        default="described",
        choices=("described", "inside"),
        help="whether mean and deviation are in the contract, or the network subtracts them itself "
        "and takes pixels from 0 to 255 (default: described)",
    )
    parser.add_argument(
        "--calibration",
        default="",
        metavar="FOLDER",
        help="of images for int8 (default: the run's training images)",
    )
    parser.add_argument(
        "--images",
        default="",
        metavar="FOLDER",
        help="of images to compare with PyTorch on (default: the run's validation images, else "
        "scikit-learn's sample photos)",
    )
    parser.add_argument(
        "--evaluate",
        type=int,
        default=1000,
        metavar="N",
        help="validation images of the run that a classifier's accuracy or a detector's AP is "
        "found on, as PyTorch and as the file; 0 leaves it out (default: 1000)",
    )
    parser.add_argument(
        "--predict",
        choices=("boxes", "masks"),
        help="of a detector: masks insists on a mask head, boxes leaves it out (default: what it "
        "has)",
    )
    parser.add_argument("--weights", default="", metavar="FILE", help="in place of backbone.pth")
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="of the run, where MODEL has none"
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="configuration keys to change, after MODEL"
    )
    return parser.parse_intermixed_args()  # options may stand before and after MODEL


def main(args: argparse.Namespace) -> None:
    from search.deployment.export import export, summary

    print(summary(export(args), args.output))


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
