"""Arguments that the two latency tools share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from backbones.errors import UserError

if TYPE_CHECKING:
    from search.space import SearchSpace


def add_profiling_arguments(parser: argparse.ArgumentParser) -> None:
    """The search configuration that names the space, and how often everything is measured."""
    parser.add_argument(
        "--config-file",
        default="search/imagenet_pixel1_80ms.yaml",
        metavar="FILE",
        help="search configuration whose SEARCH.SPACE is meant (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=16, help="visits to everything, in turns (default: 16)"
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="keys of the configuration to change, after all other arguments, such as "
        "SEARCH.SPACE my_space.json",
    )


def load_space(args: argparse.Namespace) -> SearchSpace:
    """``SEARCH.SPACE`` of the configuration."""
    from search.config import load_search_config
    from search.start.seed import search_space

    cfg = load_search_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
    return search_space(cfg)


def check_counts(args: argparse.Namespace, least_networks: int) -> None:
    """Insists on a round or more, and on enough networks.

    Raises:
        UserError: with both figures.
    """
    if args.rounds < 1 or args.networks < least_networks:
        raise UserError(
            f"--rounds is {args.rounds} and --networks {args.networks}; expected 1 or more rounds "
            f"and {least_networks} or more networks"
        )


def image_size(text: str) -> tuple[int, int]:
    """``HxW`` → height and width in pixels.

    Raises:
        UserError: if it is something else, or a side is below 32 pixels.
    """
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) >= 32 for side in sides):
        raise UserError(
            f"--input-size is '{text}'; expected HEIGHTxWIDTH in pixels, 32 or more each, e.g. "
            "224x224 or 800x1333"
        )
    height, width = map(int, sides)
    return height, width
