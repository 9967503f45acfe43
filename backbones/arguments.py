"""Arguments that all stages share; importing this module costs nothing, so ``--help`` is quick."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["argument_parser", "installation_parser"]

_EXAMPLES = """
examples:
  run a configuration, with some of its keys changed:
    {prog} --config-file CONFIG.yaml OUTPUT_DIR output/first SOLVER.BASE_LR 0.001
  continue it after an interruption:
    {prog} --config-file CONFIG.yaml --resume OUTPUT_DIR output/first
  on eight GPUs of this machine:
    {prog} --config-file CONFIG.yaml --num-gpus 8
  on two machines, the same command on each with its own rank:
    {prog} --config-file CONFIG.yaml --num-gpus 8 --num-machines 2 --machine-rank 0 \\
        --dist-url tcp://FIRST_MACHINE:29500
  as the processes of torchrun, or of srun, which say themselves how many there are:
    torchrun --nproc-per-node 8 {launched} --config-file CONFIG.yaml
"""


def argument_parser(description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Detectron2's habitual arguments.

    Args:
        description: what the script does, at the top of ``--help``.
        epilog: replaces the examples at the end of ``--help``; ``%(prog)s`` is the script.
    """
    launched = "--no-python %(prog)s" if sys.argv[0].startswith("spnas ") else "%(prog)s"
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog or _EXAMPLES.format(prog="%(prog)s", launched=launched),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file",
        default="",
        metavar="FILE",
        help="YAML configuration: a path, or a name below the configs/ folder that comes with "
        "the project; without it, the default values",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in OUTPUT_DIR from its last checkpoint (from the start if there "
        "is none yet)",
    )
    parser.add_argument(
        "--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, without any training"
    )
    _add_process_arguments(parser)
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="configuration keys to change, after all other arguments, e.g. SOLVER.MAX_ITER 500",
    )
    return parser


def _add_process_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-gpus",
        type=int,
        metavar="N",
        help="GPUs to use on this machine, one process each; 0 runs on the CPU (default: 1 if "
        "this machine has a usable GPU, else 0)",
    )
    parser.add_argument(
        "--num-processes",
        type=int,
        metavar="N",
        help="processes on the CPU of this machine, in place of GPUs (default: this one)",
    )
    parser.add_argument(
        "--num-machines", type=int, default=1, metavar="N", help="machines in all (default: 1)"
    )
    parser.add_argument(
        "--machine-rank",
        type=int,
        default=0,
        metavar="N",
        help="number of this machine, from 0 (default: 0)",
    )
    parser.add_argument(
        "--dist-url",
        default="auto",
        metavar="URL",
        help="where the processes meet, e.g. tcp://FIRST_MACHINE:29500; needed with several "
        "machines (default: a free port of this machine)",
    )


def installation_parser(description: str, program: str | None = None) -> argparse.ArgumentParser:
    """Arguments of what installs Detectron2.

    Args:
        description: at the top of ``--help``.
        program: how it is started; the script's name by default.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    return parser
