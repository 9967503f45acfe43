"""Installs Detectron2 v0.6, mended for current libraries, as an ordinary wheel.

Fetches the source from the package index that pip is configured for (or takes it from --sdist),
checks its hash, mends what today's Python, NumPy, Pillow and PyTorch break, builds a pure-Python
wheel and installs it into the environment of the Python that runs this script. A Detectron2 that
already works is left alone. Compiled operators are not part of it: deformable convolution on a
GPU and rotated boxes need a build from Detectron2's own repository.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backbones.errors import UserError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sdist", type=Path, metavar="PATH", help="a local pb1-detectron2-0.6.tar.gz; no download"
    )
    parser.add_argument(
        "--wheel-dir",
        type=Path,
        metavar="DIR",
        help="where the source and the wheel are kept (default: the user's cache folder)",
    )
    parser.add_argument(
        "--wheel-only", action="store_true", help="build the wheel and install nothing"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a Detectron2 that is installed already"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    options = parse(arguments)
    from detection.installation import install

    try:
        outcome = install(
            options.sdist, options.wheel_dir, wheel_only=options.wheel_only, force=options.force
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(outcome)
    return 0


if __name__ == "__main__":
    sys.exit(main())
