"""Arguments that the tools of studies share; importing this module costs nothing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from backbones.errors import UserError

__all__ = ["add_study_file", "add_workers", "check_counts", "pairs", "study_parser"]


def study_parser(description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose description and examples keep their lines.

    Args:
        description: at the top of ``--help``; the docstring of the tool.
        epilog: at its end.
    """
    return argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_workers(parser: argparse.ArgumentParser, what: str, default: str = "1") -> None:
    """Where the runs of a study take place: here, in several processes, or on a cluster.

    Args:
        parser: of a tool; :func:`search.studies.workers.workers_of` reads what it parses.
        what: runs at a time, in words.
        default: without a cluster, in words.
    """
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=f"{what} (default: {default}; with --cluster slurm all, with local one per core)",
    )
    parser.add_argument(
        "--cluster",
        metavar="KIND",
        help="make every run a job: of slurm, or local, which starts the same jobs on this machine",
    )
    parser.add_argument(
        "--cluster-options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="of every job, such as partition=gpu gpus_per_node=1 cpus_per_task=8 timeout_min=600",
    )


def add_study_file(parser: argparse.ArgumentParser, more: str = "", keys: bool = True) -> None:
    """The JSON file of a study, and the keys to change.

    Args:
        parser: of a tool; nothing may be added behind.
        more: what else is written, for the help.
        keys: whether pairs of keys and values may follow.
    """
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"JSON file in which the study is kept{more}",
    )
    if keys:
        parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE")


def check_counts(args: argparse.Namespace, **least: int) -> None:
    """Insists on the least value of each of the options named.

    Raises:
        UserError: naming the first that is smaller.
    """
    for name, fewest in least.items():
        if (value := getattr(args, name)) < fewest:
            option = name.replace("_", "-")
            raise UserError(f"--{option} is {value}; expected {fewest} or more")


def pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """``NAME=VALUE`` → both.

    Raises:
        UserError: if one of them is something else.
    """
    if wrong := [text for text in texts if not all(text.partition("="))]:
        raise UserError(f"{option} has '{wrong[0]}'; expected a name and a value: NAME=VALUE")
    return [(name, value) for name, _, value in (text.partition("=") for text in texts)]
