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

from backbones.arguments import installation_parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    return installation_parser(__doc__ or "").parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    options = parse(arguments)
    from detection.installation.__main__ import run

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
