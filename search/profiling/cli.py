"""Arguments that the two latency tools share."""

from __future__ import annotations

import argparse
from pathlib import Path
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


def add_elsewhere_arguments(parser: argparse.ArgumentParser) -> None:
    """Converting here and measuring there."""
    group = parser.add_argument_group(
        "converting here, measuring on another machine",
        "--prepare fills a folder with models, a plan and measure.py, which needs Python 3.8, "
        "NumPy and the inference engine alone. What it measured there is read by --collect.",
    )
    group.add_argument(
        "--prepare", type=Path, metavar="FOLDER", help="convert into this folder, measure nothing"
    )
    group.add_argument(
        "--collect", type=Path, metavar="FOLDER", help="a prepared folder with measurements"
    )
    group.add_argument(
        "--host",
        help="with --collect: copy the folder to this host by scp, measure there by ssh, and copy "
        "the measurements back",
    )
    group.add_argument(
        "--host-python",
        default="python3",
        metavar="PATH",
        help="with --host: the Python there that has the engine (default: %(default)s)",
    )
    group.add_argument(
        "--adb",
        nargs="?",
        const="",
        metavar="SERIAL",
        help="with --collect: measure on this Android device, or the only one, by LiteRT's "
        "benchmark_model",
    )
    group.add_argument(
        "--benchmark-model",
        type=Path,
        metavar="FILE",
        help="with --adb: that program, built for the device, where it is not there yet",
    )


def check_elsewhere(args: argparse.Namespace) -> None:
    """Insists on options that go together.

    Raises:
        UserError: naming those that do not.
    """
    there = args.host is not None or args.adb is not None
    if args.prepare and (args.collect or there):
        raise UserError("--prepare comes first, by itself; --collect, --host and --adb come after")
    if there and not args.collect:
        raise UserError("--host and --adb measure a prepared folder; name it: --collect FOLDER")
    if args.host is not None and args.adb is not None:
        raise UserError("--host and --adb are two ways to measure; name one")


def measure_elsewhere(args: argparse.Namespace) -> None:
    """What ``--host`` and ``--adb`` ask for, with the folder of ``--collect``.

    Raises:
        UserError: if it is no prepared folder, or cannot be measured there.
    """
    from search.profiling.prepared import prepared_setting
    from search.profiling.remote import measure_over_adb, measure_over_ssh

    prepared_setting(args.collect)
    if args.host is not None:
        measure_over_ssh(args.collect, args.host, args.host_python)
    if args.adb is not None:
        measure_over_adb(args.collect, args.adb, args.benchmark_model)


def say_prepared(folder: Path, collect: str) -> None:
    """Says what comes next.

    Args:
        folder: that was prepared.
        collect: the command that reads what was measured.
    """
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(
        f"Wrote {folder} ({size:,.0f} MB). Copy it to the device, start python3 measure.py in it, "
        f"copy measurements.jsonl back into it, and: {collect}"
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
