"""Where the numbers of a run go: console, ``metrics.json``, TensorBoard and W&B."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable

from detectron2.utils.events import (
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

from backbones.files import cannot_write
from detection.engine.metrics import METRICS_FILE, mend_metrics
from detection.engine.progress import ProgressPrinter
from detection.engine.wandb_writer import WandbSettings, WandbWriter


def build_run_writers(
    output_dir: str,
    max_iter: int,
    wandb: WandbSettings | None = None,
    start_iter: int = 0,
    note: Callable[[], str] = str,
) -> list[EventWriter]:
    """Detectron2's default writers, and W&B.

    Args:
        output_dir: the run folder; created if needed.
        max_iter: for the estimated time of arrival.
        wandb: None is no W&B.
        start_iter: TensorBoard hides what an interrupted run wrote at later iterations.
        note: what to add to every line of progress on the console.
    """
    os.makedirs(output_dir, exist_ok=True)
    mend_metrics(output_dir)
    writers: list[EventWriter] = [
        ProgressPrinter(max_iter, note),
        _MetricsWriter(os.path.join(output_dir, METRICS_FILE)),
    ]
    if wandb is not None and wandb.with_environment().active:
        writers.append(WandbWriter(wandb, output_dir))
    # Last, since it empties the storage's images and histograms after writing them.
    if importlib.util.find_spec("tensorboard") is None:
        logging.getLogger(__name__).warning(
            "tensorboard is not installed: no TensorBoard files (pip install tensorboard)"
        )
        writers.append(_ImageDiscarder())
    else:
        purge_step = start_iter if start_iter > 0 else None
        writers.append(TensorboardXWriter(output_dir, purge_step=purge_step))
    return writers


class _MetricsWriter(JSONWriter):
    """Detectron2's; it names its file where the disk is full, and then writes no more."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path

    def write(self) -> None:
        if self._file_handle.closed:
            return
        try:
            super().write()
        except OSError as error:
            self.close()
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what has not reached the disk is lost
            super().close()


class _ImageDiscarder(EventWriter):
    """Empties images and histograms, which otherwise pile up without TensorBoard's writer."""

    def write(self) -> None:
        storage = get_event_storage()
        storage.clear_images()
        storage.clear_histograms()
