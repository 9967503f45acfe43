"""Writes the metrics, images and tables of a run to Weights & Biases.

A failure of W&B (package missing, server unreachable, disk full) is logged as one warning, and
the run continues without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage

from detection.engine.metrics import read_metrics
from detection.engine.overlays import Overlay
from detection.engine.results import to_json
from detection.engine.wandb_artifacts import Artifacts, group_of, inputs, outputs, table_of
from detection.engine.wandb_calls import FINISH_SECONDS, bounded, reason, started
from detection.engine.wandb_files import mended, segments, sync_command
from detection.engine.wandb_media import media, overlaid
from detection.engine.wandb_memory import WandbMemory
from detection.engine.wandb_settings import WandbSettings, has_api_key, resolve_mode

__all__ = ["WandbSettings", "WandbWriter"]

logger = logging.getLogger(__name__)

_SMOOTHING_WINDOW = 20  # iterations, as in Detectron2's writers


class WandbWriter(EventWriter):
    """Sends an ``EventStorage`` to W&B; on rank 0 only, elsewhere it does nothing.

    What the run folder remembers (:class:`WandbMemory`) lets a resumed run continue the same W&B
    run. Its steps never go back: resumed from an older checkpoint, it waits until the training
    has passed the last step sent. Rows of ``metrics.json`` that an earlier process did not get to
    W&B, because it was killed or W&B was off, are sent first.
    """

    def __init__(
        self,
        settings: WandbSettings,
        output_dir: str | os.PathLike[str],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts or continues the W&B run of a run folder.

        Args:
            settings: see there; W&B's environment variables replace what is at its default.
            output_dir: the run folder.
            config: shown with the run; by default the folder's ``config.yaml``.
        """
        self._folder = Path(output_dir)
        self._run: Any = None
        self._wandb: Any = None
        self._offline = False
        self._memory: WandbMemory | None = None
        self._artifacts: Artifacts | None = None
        self._config: Mapping[str, Any] = {}
        self._last_written = -1
        self._step = 0
        self._caught_up = False
        settings = settings.with_environment()
        if not settings.active or not comm.is_main_process():
            return
        with self._guarded("start"):
            self._start(settings, config)

    @property
    def run_id(self) -> str | None:
        """W&B's identifier of the run; None if W&B is not in use."""
        return self._run.id if self._run is not None else None

    def write(self) -> None:
        """Sends scalars, histograms and images that were not sent yet."""
        if self._run is None:
            return
        storage = get_event_storage()
        by_step: dict[int, dict[str, Any]] = defaultdict(dict)
        for name, (value, step) in storage.latest_with_smoothing_hint(_SMOOTHING_WINDOW).items():
            if step > self._last_written:
                by_step[step][name] = value
        with self._guarded("write"):
            self._catch_up(min(by_step, default=storage.iter))
            if storage.iter >= self._step and (storage._vis_data or storage._histograms):
                by_step[max(storage.iter, *by_step, 0)].update(media(self._wandb, storage))
            for step in sorted(by_step):
                self._log(by_step[step], step)
                self._last_written = step

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Sends a table, such as AP by object scale, at the present step."""
        if self._run is None:
            return
        with self._guarded("write a table"):
            table = self._wandb.Table(columns=list(columns), data=to_json(rows))
            self._log({name: table}, self._step)

    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Sets final numbers of the run."""
        if self._run is None:
            return
        with self._guarded("write the summary"):
            self._run.summary.update(to_json(values))

    def log_overlays(self, name: str, overlays: Sequence[Overlay]) -> None:
        """Sends pictures with the boxes and masks of ground truth and predictions over them."""
        if self._run is None or not overlays:
            return
        with self._guarded("write pictures"):
            self._log({name: [overlaid(self._wandb, overlay) for overlay in overlays]}, self._step)

    def log_outputs(self) -> None:
        """Makes what a finished run has left artifacts of it, as far as these are wanted."""
        if self._run is None or self._artifacts is None:
            return
        with self._guarded("look for artifacts"):
            if table := table_of(self._folder, self._config):
                self._artifacts.used(table)
            self._artifacts.made(outputs(self._folder))

    def close(self) -> None:
        """Finishes the W&B run, within a bounded time."""
        if self._run is None:
            return
        with self._guarded("finish"):
            run, self._run = self._run, None
            bounded(run.finish, FINISH_SECONDS + 10)
            assert self._memory is not None
            self._memory.mark(closed=True)
            if self._offline:
                folder = Path(run.dir).parent
                command = sync_command(
                    segments(folder.parent, run.id) or [folder],
                    str(getattr(self._wandb, "__version__", "")),
                )
                logger.info("W&B is in '%s'; upload it with: %s", folder, command)

    def _start(self, settings: WandbSettings, config: Mapping[str, Any] | None) -> None:
        import wandb

        self._wandb = wandb
        memory = self._memory = WandbMemory(self._folder)
        mode = resolve_mode(settings.mode, wandb)
        place = Path(os.environ.get("WANDB_DIR") or self._folder)
        place.mkdir(parents=True, exist_ok=True)
        self._config = dict(config) if config is not None else self._saved_config()
        sources = inputs(self._config, self._folder)
        name = settings.name or self._folder.resolve().name
        memory.group = (
            settings.group or memory.group or group_of(sources) or f"{name}-{memory.run_id}"
        )
        arguments = {
            "project": settings.project,
            "entity": settings.entity or None,
            "name": name,
            "group": memory.group,
            "tags": list(settings.tags),
            "notes": settings.notes or None,
            "job_type": settings.job_type or None,
            "id": memory.run_id,
            "dir": str(place),
            "config": dict(self._config),
        }
        try:
            if mode == "online" and not has_api_key(wandb):
                # W&B would ask for one on the console, and wait.
                raise PermissionError("no API key; run: wandb login")
            self._run = started(wandb, mode, arguments)
            self._offline = mode == "offline"
        except Exception as error:  # wandb raises types of its own that differ by version
            if mode != "online":
                raise
            logger.warning(
                "W&B cannot be used online (%s): logging offline; upload later with: wandb sync %s",
                reason(error),
                place / "wandb" / f"offline-run-*-{memory.run_id}",
            )
            # The failed attempt lives on in W&B's background process and occupies the run's id.
            bounded(wandb.teardown, FINISH_SECONDS)
            self._run = started(wandb, "offline", arguments)
            self._offline = True
        last = self._last_step(memory)
        memory.mark(closed=False)
        self._last_written, self._step = last, last + 1
        if settings.artifacts:
            self._artifacts = Artifacts(wandb, self._run, self._offline, settings.artifact_mb)
            for item in sources:
                self._artifacts.used(item)

    def _last_step(self, memory: WandbMemory) -> int:
        """The last step that W&B has of the run, as far as it was not lost in a kill."""
        here = Path(self._run.dir).parent
        earlier = [path for path in segments(here.parent, self._run.id) if path != here]
        # An online run knows the first step that it still accepts.
        server = int(getattr(self._run, "starting_step", 0) or 0) - 1
        if not self._offline and hasattr(self._run, "starting_step"):
            return server
        if memory.closed or any(here.parent.glob(f"run-*-{self._run.id}")):
            return max(memory.last_step, server)
        try:
            kept = [step for path in earlier if (step := mended(path)) is not None]
        except Exception as error:  # another version's files: what was sent counts as kept
            logger.debug("cannot read W&B's files: %s", reason(error))
            return memory.last_step
        return max(kept, default=-1) if earlier else memory.last_step

    def _catch_up(self, before: int) -> None:
        """Sends the rows of ``metrics.json`` between W&B's last step and a new one."""
        if self._caught_up:
            return
        self._caught_up = True
        missing: dict[int, dict[str, Any]] = defaultdict(dict)
        for row in read_metrics(self._folder):
            step = row.pop("iteration", None)
            if isinstance(step, int) and self._last_written < step < before:
                missing[step].update(row)
        for step in sorted(missing):
            self._log(missing[step], step)
            self._last_written = step

    def _saved_config(self) -> dict[str, Any]:
        path = self._folder / "config.yaml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log(dict(values), step=step)
        if self._memory is not None and step != self._memory.last_step:
            self._memory.remember(step)
        self._step = step

    @contextlib.contextmanager
    def _guarded(self, action: str) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            self._run = None
            logger.warning(
                "W&B is not installed (%s): this run goes on without it; pip install wandb, or "
                "silence this with WANDB.ENABLED False",
                reason(error),
            )
        except Exception as error:  # no failure of W&B may end a training
            self._run = None
            logger.warning(
                "W&B failed to %s (%s): this run goes on without it", action, reason(error)
            )
