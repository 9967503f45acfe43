"""Installs Detectron2 v0.6, mended for current libraries, as an ordinary wheel.

The same as tools/install_detectron2.py of a checkout, for those who have the package alone.
"""

from __future__ import annotations

import argparse
import sys

from backbones.arguments import installation_parser
from backbones.errors import UserError


def run(options: argparse.Namespace) -> int:
    """Installs, and says what was done.

    Args:
        options: what :func:`backbones.arguments.installation_parser` parsed.

    Returns:
        The exit code.
    """
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
    parser = installation_parser(__doc__ or "", "python -m detection.installation")
    sys.exit(run(parser.parse_args()))
