"""Runs function calls in several processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

THREADS = 1
"""Of each process that :func:`in_processes` starts."""


def in_processes(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[int, Any]]:
    """Calls a function in several processes of one thread each; results as they come.

    Args:
        function: at the top level of a module.
        arguments: of every call.
        workers: how many processes.

    Yields:
        Which call, by its index, and what it returned.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, start_worker) as pool:
        futures = {pool.submit(function, *args): index for index, args in enumerate(arguments)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def worker_threads(workers: int) -> int:
    """Threads of each process in which work is done; 1 worker is this process itself."""
    return THREADS if workers > 1 else torch.get_num_threads()


def start_worker() -> None:
    """Initialises a worker: one thread, and exit when the parent process ends."""
    torch.set_num_threads(THREADS)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
