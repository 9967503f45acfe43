"""What has to be the same in all processes of a run, and means over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn

from backbones.errors import UserError

T = TypeVar("T")


def unite_buffers(modules: Iterable[nn.Module]) -> None:
    """Gives all processes the same buffers: means of running statistics, else the first one's.

    Each process's batch norm sees its own part of every batch. A running statistic is linear in
    those of the batches, and so are averages of it over time (EMA): their mean over processes is
    the same whenever, and however often, it is taken.

    Args:
        modules: with the same buffers in all processes.
    """
    count = comm.get_world_size()
    if count == 1:
        return
    for module in modules:
        for name, buffer in module.named_buffers():
            shared = buffer.detach().contiguous()
            if name.rpartition(".")[2].startswith("running_"):
                dist.all_reduce(shared)
                shared /= count
            else:
                dist.broadcast(shared, 0)
            buffer.copy_(shared)


def from_first_process(find: Callable[[], T]) -> T:
    """What the first process finds, in all of them.

    Raises:
        UserError: in all, if the first one does.
    """
    found: tuple[Any, str] = None, ""
    if comm.is_main_process():
        try:
            found = find(), ""
        except UserError as error:
            found = None, str(error)
    value, message = comm.all_gather(found)[0]
    if message:
        raise UserError(message)
    return cast(T, value)


def mean_over_processes(values: Tensor) -> Tensor:
    """(…) values of this process → the same shape, their mean over all; changes ``values``."""
    if comm.get_world_size() > 1:
        dist.all_reduce(values)
        values /= comm.get_world_size()
    return values


def check_same(what: str, tensors: Iterable[Tensor]) -> None:
    """Insists on the same tensors, bit for bit, in all processes.

    Args:
        what: they are, for the message.
        tensors: of this process.

    Raises:
        UserError: in all processes, if one differs.
    """
    if comm.get_world_size() == 1:
        return
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().numpy().tobytes())
    found = comm.all_gather(digest.hexdigest())
    if others := [rank for rank, other in enumerate(found) if other != found[0]]:
        ranks = ", ".join(map(str, others))
        raise UserError(
            f"{what} of process {ranks} are not those of process 0: their machines compute "
            "differently, or one of them is faulty. Use equal machines and software, and continue "
            "from the last checkpoint with --resume"
        )
