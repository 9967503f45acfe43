#!/usr/bin/env python
"""Makes a folder that others can load of a run, and uploads it to Hugging Face's hub if asked to.

A search's or a classifier's run becomes weights in safetensors, architecture.json, timm's
config.json and a model card; a detector's run weights, config.yaml and a model card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """
examples:
  a classifier, into a folder:
    %(prog)s output/digits/classifier --output models/digits
  a detector:
    %(prog)s output/demo/found_7ms --output models/digits-mask-rcnn --license cc-by-4.0
  and upload it, after hf auth login:
    %(prog)s output/digits/classifier --output models/digits --push your-name/spnas-digits
"""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="OUTPUT_DIR of a search or a training")
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="where the model's files are written"
    )
    parser.add_argument(
        "--name", default="", metavar="NAME", help="of the model (default: that of the folder)"
    )
    parser.add_argument(
        "--license",
        default="apache-2.0",
        metavar="NAME",
        help="of the weights, as the hub writes it (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="other weights of the run, e.g. its model_best.pth (default: backbone.pth, or "
        "model_final.pth of a detector)",
    )
    parser.add_argument(
        "--push", default="", metavar="USER/NAME", help="upload the folder to this repository"
    )
    parser.add_argument(
        "--private", action="store_true", help="with --push: its owner alone sees a new repository"
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="replace a model that the folder, or the repository, holds already",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from backbones.sharing.upload import check_upload, push_to_hub
    from search.runs.sharing import share

    if args.push:
        check_upload(args.push)
    folder = share(
        args.run,
        args.output,
        name=args.name,
        license=args.license,
        weights=args.weights,
        repository=args.push,
        replace=args.replace,
    )
    print(f"Wrote to {folder}: {', '.join(sorted(path.name for path in Path(folder).iterdir()))}")
    if args.push:
        address = push_to_hub(folder, args.push, private=args.private, replace=args.replace)
        print(f"Uploaded to {address}")


if __name__ == "__main__":
    arguments = parse()
    from detection.engine.cli import run_tool

    run_tool(main, arguments)
