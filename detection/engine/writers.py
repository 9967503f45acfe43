"""Where the numbers of a run go: console, ``metrics.json``, TensorBoard and W&B."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable

from detectron2.engine import hooks
from detectron2.utils.events import (
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
)

from backbones.files import cannot_write
from detection.engine.metrics import METRICS_FILE, is_due, mend_metrics
from detection.engine.progress import ProgressPrinter
from detection.engine.wandb_writer import WandbSettings, WandbWriter


class MetricsHook(hooks.PeriodicWriter):
    """Writes every so many iterations, and at once what an evaluation has found.

    A row that waits for the next period would be lost if the run ended before it.
    """

    def after_step(self) -> None:
        """Writes once, where either is due."""
        if any(is_due(hook, self.trainer.iter + 1) for hook in self.trainer._hooks):
            for writer in self._writers:
                writer.write()
        else:
            super().after_step()

    def after_train(self) -> None:
        """Writes what is left and closes; of a complete run, W&B gets what it has made before."""
        for writer in self._writers:
            writer.write()
        if self.trainer.iter >= self.trainer.max_iter:
            if ending := self.trainer.ending:
                ending()
            for writer in self._writers:
                if isinstance(writer, WandbWriter):
                    writer.log_outputs()
        for writer in self._writers:
            writer.close()


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
