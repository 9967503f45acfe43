#!/usr/bin/env python
"""Makes the embedded digits data set and prints what is in it.

Example::

    python tools/prepare_digits.py --root datasets
"""

from __future__ import annotations

import argparse

from backbones.errors import UserError
from detection.data.digits import prepare_digits, read_manifest, summary_table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--root", help="folder of the data sets (default: $DETECTRON2_DATASETS or 'datasets')"
    )
    parser.add_argument("--force", action="store_true", help="make it anew even if it is there")
    args = parser.parse_args()
    try:
        folder = prepare_digits(args.root, force=args.force)
    except UserError as error:
        parser.error(str(error))
    manifest = read_manifest(folder)
    assert manifest is not None
    print(folder)
    print(summary_table(manifest))


if __name__ == "__main__":
    main()
