"""Part d: Mask R-CNN's training and inference step, ``spnas_100`` beside R50-FPN."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from search.studies.benchmarks.detector_step import detector_costs
from search.studies.benchmarks.gpu.setting import Figures, Measurement, Setting

SIZE, REPEATS = (800, 1216), 3
TINY_SIZE = (64, 96)
BATCHES = {"training": (4, 16), "inference": (1,)}
"""Images per step."""


def measurements(setting: Setting) -> Iterator[Measurement]:
    """Both kinds of steps in every precision but bfloat16, which few detectors are trained in."""
    precisions = [name for name in setting.precisions if name != "bfloat16"]
    for kind, batches in BATCHES.items():
        for batch in batches[:1] if setting.tiny else batches:
            for precision in precisions:
                name = f"{kind}, {precision}, batch {batch}"
                yield name, partial(_measured, setting, kind, precision, batch)


def _measured(setting: Setting, kind: str, precision: str, batch: int) -> Figures:
    size, repeats = (TINY_SIZE, 1) if setting.tiny else (SIZE, REPEATS)
    batch = 1 if setting.tiny else batch
    found = detector_costs(kind, setting.device, batch, size, precision, repeats)
    return {"batch": batch, "size": list(size), "steps": found}
