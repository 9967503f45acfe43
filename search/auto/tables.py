"""Whether a latency table is of the space that is searched, and whether it reaches the targets."""

from __future__ import annotations

from collections.abc import Sequence

from backbones.errors import UserError
from backbones.figures import shown
from backbones.inference import make_engine
from backbones.inference.hardware import device_name
from backbones.latency import LatencyTable
from backbones.paths import config_path
from detection.deployment import Deployment
from search.auto.request import Request
from search.selection.runtime import RuntimeModel
from search.selection.target import ROUNDING, runtime_range
from search.space import SearchSpace


def misfit(table: LatencyTable, space: SearchSpace, deployment: Deployment) -> str:
    """Why a table is not for the networks of a space in a detector; empty where it is."""
    height, width = deployment.padded_size
    channels = table.constant.fpn_channels
    if table.task != "detection":
        return "is for classifiers, without a feature pyramid"
    if table.input_size != (height, width):
        return f"is for {table.input_size[0]}×{table.input_size[1]} images, not {height}×{width}"
    if channels != deployment.fpn_channels:
        return f"is for a pyramid of {channels} channels, not {deployment.fpn_channels}"
    try:
        RuntimeModel(space, table)
    except UserError:
        return f"does not have all layers of search space '{space.name}'"
    return ""


def check_table(name: str, space: SearchSpace, deployment: Deployment) -> LatencyTable:
    """The table that a command names.

    Raises:
        UserError: if there is none, or it is for something else.
    """
    table = LatencyTable.load(name)
    if reason := misfit(table, space, deployment):
        raise UserError(
            f"--table is '{name}', but that {reason}; name one that was profiled for this space, "
            "size and pyramid, or leave --table out, which profiles this machine"
        )
    return table


def shipped_table(request: Request, space: SearchSpace, deployment: Deployment) -> str:
    """The name of a table that comes with the package, of this very device; empty without one.

    It has to be for exactly this space, size and pyramid, by this engine with one thread in fp32.
    """
    device = device_name(make_engine(request.engine, request.device).device)
    for path in sorted(config_path("latency").glob("*.json")):
        table = LatencyTable.load(path.stem)
        made = (table.engine, table.device, table.threads, table.precision)
        if made != (request.engine, device, 1, "float32"):
            continue
        if not misfit(table, space, deployment):
            return path.stem
    return ""


def check_reachable(
    targets: Sequence[float], seed: str, space: SearchSpace, table: LatencyTable, kept: str = ""
) -> None:
    """Insists on networks of the space at all targets.

    Args:
        targets: in the table's unit.
        seed: network that the space is around.
        space: that is searched.
        table: of the device.
        kept: what to say of a table that has just been made.

    Raises:
        UserError: naming the nearest runtime that there is.
    """
    low, high = runtime_range(space, RuntimeModel(space, table))
    height, width = table.input_size
    for target in targets:
        if target < low * (1 - ROUNDING):
            raise UserError(
                f"--target is {target:g} ms, but the smallest network around '{seed}' takes "
                f"{shown(low)} ms at {height}×{width} by latency table '{table.name}'{kept}; ask "
                f"for {_up(low)}ms or more, a smaller --size, or another --seed-network"
            )
        if target > high * (1 + ROUNDING):
            raise UserError(
                f"--target is {target:g} ms, but the largest network around '{seed}' takes "
                f"{shown(high)} ms at {height}×{width} by latency table '{table.name}'{kept}; ask "
                f"for {_up(low)}ms to {high * 0.999:.3g}ms, a larger --size, or another "
                "--seed-network"
            )


def _up(runtime: float) -> str:
    """A runtime with three digits, not below what it was."""
    text = f"{runtime:.3g}"
    return text if float(text) >= runtime else f"{runtime * 1.005:.3g}"
