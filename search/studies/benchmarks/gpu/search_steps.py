"""Part b: a search step beside the largest fixed network's, in every precision, and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from search.profiling.counting import load_table
from search.space import SearchSpace
from search.studies.benchmarks.costs import Case, costs, with_ratios
from search.studies.benchmarks.gpu.setting import Figures, Measurement, Setting
from search.studies.benchmarks.search_step import NETWORKS, make_step

BATCH, SIZE, REPEATS = 128, 224, 5
TINY_BATCH, TINY_SIZE = 2, 32

REFERENCE = "largest"

COMPILED = ("supernet", REFERENCE)
"""Of the multi-path supernet's many paths a compiler makes minutes of work."""


def measurements(setting: Setting) -> Iterator[Measurement]:
    """Eager first; what is compiled takes longest, the supernet most of all."""
    for precision in setting.precisions:
        yield precision, partial(_measured, setting, precision, NETWORKS, "")
    last = setting.precisions[-1]
    backend = "aot_eager" if setting.tiny else "inductor"
    for networks in ((REFERENCE,), COMPILED):
        name = f"{last}, compiled {' and '.join(networks)}"
        yield name, partial(_measured, setting, last, networks, backend)


def _measured(setting: Setting, precision: str, networks: tuple[str, ...], backend: str) -> Figures:
    batch, size = (TINY_BATCH, TINY_SIZE) if setting.tiny else (BATCH, SIZE)
    space = SearchSpace.load("digits_small" if setting.tiny else "imagenet")
    table = load_table("macs" if setting.tiny else "pixel1", space, (size, size))
    device = torch.device(setting.device)
    cases = [
        Case(
            name,
            partial(make_step, name, space, table, device, batch, size, precision, backend),
        )
        for name in reversed(networks)
    ]
    found = costs(cases, setting.device, 1 if setting.tiny else REPEATS)
    return {"batch": batch, "size": size, "steps": with_ratios(found, REFERENCE)}
