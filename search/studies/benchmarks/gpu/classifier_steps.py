"""Part c: the classifier's training step beside timm's own, in every precision."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from search.studies.benchmarks.classifier_step import classifier_costs
from search.studies.benchmarks.gpu.setting import Figures, Measurement, Setting

BATCH, SIZE, REPEATS = 128, 224, 7
TINY_BATCH, TINY_SIZE = 2, 32


def measurements(setting: Setting) -> Iterator[Measurement]:
    """One in every precision."""
    for precision in setting.precisions:
        yield precision, partial(_measured, setting, precision)


def _measured(setting: Setting, precision: str) -> Figures:
    batch, size = (TINY_BATCH, TINY_SIZE) if setting.tiny else (BATCH, SIZE)
    repeats = 1 if setting.tiny else REPEATS
    found = classifier_costs(setting.device, batch, size, precision, repeats)
    return {"batch": batch, "size": size, "steps": found}
