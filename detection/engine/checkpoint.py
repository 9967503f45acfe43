"""Checkpoints that are written whole, read safely, and never silently half-loaded."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import _filter_reused_missing_keys
from torch import nn

from backbones.errors import UserError, first_of
from backbones.files import atomic_path, write_atomic
from backbones.states import below, model_state, prefix_for
from backbones.weights import check_finite, check_types, read_checkpoint, save_checkpoint
from detection.engine.checkpoint_files import LAST, last_whole
from detection.engine.console import FILE_ONLY
from detection.engine.plain_pickle import read_pickle
from detection.engine.replicas import from_first_process

logger = logging.getLogger(__name__)

# Detectron2 fills these from the configuration; they say nothing about the architecture.
_FROM_CONFIG = frozenset({"pixel_mean", "pixel_std"})


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with checks.

    Files are replaced atomically and read without running code in them, and tensors without a
    home are named. ``.pkl`` files of Detectron2's model zoo, ``.pyth`` files of pycls, and files
    with ``matching_heuristics`` work as in Detectron2.

    Attributes:
        strict: whether a model file must fit completely. Resuming always insists on that.
        optional: prefixes of tensors that need not fit all the same.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | os.PathLike[str] = "",
        *,
        strict: bool = False,
        optional: tuple[str, ...] = (),
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """Remembers what to save.

        Args:
            model: unwrapped if it is a ``DistributedDataParallel``.
            save_dir: the run folder.
            strict: True for evaluating or deploying a whole model; False for fine-tuning from a
                backbone or from another set of classes.
            optional: with ``strict``, prefixes of tensors that need not fit (``classifier.``).
            save_to_disk: by default only on rank 0.
            checkpointables: objects with ``state_dict`` and ``load_state_dict``, by name.
        """
        super().__init__(model, os.fspath(save_dir), save_to_disk=save_to_disk, **checkpointables)
        self.strict = strict
        self.optional = optional
        self._resuming = False
        self._resumed: Path | None = None
        self._path = ""

    def save(self, name: str, **kwargs: Any) -> None:
        """Writes ``name.pth`` and points ``last_checkpoint`` at it, whole or not at all.

        Raises:
            UserError: if the disk is full or the folder cannot be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        content = {"model": self.model.state_dict()}
        content.update({key: plain(obj.state_dict()) for key, obj in self.checkpointables.items()})
        content.update(plain(kwargs))
        self._write(name, content)
        self.tag_last_checkpoint(f"{name}.pth")

    def save_aside(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        """Writes the weights of a model alone, which no run is resumed from.

        Args:
            name: of the file, without ``.pth``.
            model: it may be another than the one in training, such as its average.
            kwargs: plain data to keep beside the weights.

        Raises:
            UserError: as for :meth:`save`.
        """
        if self.save_dir and self.save_to_disk:
            self._write(name, {"model": model.state_dict(), **plain(kwargs)})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        path = Path(self.save_dir) / f"{name}.pth"
        self.logger.info("Saving checkpoint to %s", path)
        save_checkpoint(path, content)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Writes ``last_checkpoint``."""
        self._resumed = None
        write_atomic(Path(self.save_dir) / LAST, last_filename_basename)

    def keep_as(self, file: Path, name: str) -> None:
        """Copies a checkpoint of the run folder, unless it has that name, as its last one."""
        if file.name != name and file.exists():
            with atomic_path(Path(self.save_dir) / name) as temporary:
                shutil.copyfile(file, temporary)
            self.tag_last_checkpoint(name)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Loads a model file and, unless told otherwise, the other states in it.

        Args:
            path: a file, a URL, or a name of the model zoo; empty loads nothing.
            checkpointables: names of the states to load besides the model; None is all of them.

        Returns:
            What else the file holds, e.g. ``iteration``.

        Raises:
            UserError: if the file is missing, broken, belongs to another architecture, or, when
                resuming or ``strict``, does not fit completely.
        """
        self._path = path
        if not path:
            return {}
        self._check_exists(path)
        try:
            rest = super().load(path, checkpointables=[])
        finally:
            # Detectron2's main branch sets this while it loads and insists that it is unset.
            if hasattr(self, "_parsed_url_during_load"):
                self._parsed_url_during_load = None
        wanted = self.checkpointables if checkpointables is None else checkpointables
        self._load_checkpointables(list(wanted), rest)
        return rest

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Continues from the last checkpoint, if asked to and there is one, else loads ``path``.

        Of a last checkpoint that is damaged the one before it is taken
        (:func:`~detection.engine.checkpoint_files.last_whole`).
        """
        if not (resume and self.has_checkpoint()):
            return self.load(path, checkpointables=[])
        self._resumed = from_first_process(lambda: last_whole(Path(self.save_dir)))
        self._resuming = True
        try:
            return self.load(str(self._resumed))
        finally:
            self._resuming = False

    def get_checkpoint_file(self) -> str:
        """The last checkpoint of the run: the one resumed from, until there is another."""
        return str(self._resumed or super().get_checkpoint_file())

    def _check_exists(self, path: str) -> None:
        name = path.split("?")[0]
        try:
            found = os.path.isfile(name) or os.path.isfile(self.path_manager.get_local_path(name))
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"cannot fetch the weights '{path}' ({error}); check the address and the network, "
                "or download the file and name its path"
            ) from error
        if not found:
            raise UserError(f"no checkpoint at '{path}'; check the path (MODEL.WEIGHTS)")

    def _earlier(self) -> str:
        """How to go on from an older checkpoint of the run; empty if there is none."""
        names = [file.name for file in sorted(Path(self.save_dir).glob("model_[0-9]*.pth"))]
        names = [name for name in names if name != Path(self._path).name]
        where = Path(self.save_dir, LAST)
        return f", or go on from an earlier one: write {names[-1]} into '{where}'" if names else ""

    def _load_file(self, filename: str) -> dict[str, Any]:
        name = filename.split("?")[0]
        if name.endswith(".pkl"):
            return self._load_pickle(filename)
        if name.endswith(".pyth"):  # pycls'; no one else has the suffix
            state = read_checkpoint(filename).get("model_state")
            return _matched(self._path, state, "pycls", "num_batches_tracked")
        if hasattr(DetectionCheckpointer, "_torch_load"):
            return super()._load_file(filename)  # the main branch; it calls _torch_load below
        return self._torch_load(filename)

    def _load_pickle(self, filename: str) -> dict[str, Any]:
        """A file of Detectron2's model zoo, or of Caffe2's, which says nothing of itself."""
        content = read_pickle(filename, "checkpoint")
        if not isinstance(content, dict):
            return _matched(self._path, content, "Caffe2", "_momentum")
        if {"model", "__author__"} <= set(content):
            self.logger.info("Reading a file from '%s'", content["__author__"])
            _check_state(self._path, content["model"])
            return content
        return _matched(self._path, content.get("blobs", content), "Caffe2", "_momentum")

    def _torch_load(self, filename: str) -> dict[str, Any]:
        content = read_checkpoint(filename)
        if self._resuming and isinstance(content.get("model"), dict):
            return content
        state = model_state(content, self._path)
        return {**content, "model": state} if _has_model(content) else {"model": state}

    def _load_model(self, checkpoint: Any) -> Any:
        if not checkpoint.get("matching_heuristics"):
            checkpoint["model"] = self._unwrapped(checkpoint["model"])
        before = self.model.state_dict()
        # a buffer may be infinite by design, as the masks of some transformers are
        unusual = {name for name, value in before.items() if not value.isfinite().all()}
        check_types(_tensors(checkpoint["model"]), before, self._path)
        try:
            incompatible = super()._load_model(checkpoint)
        except ValueError as error:
            # Detectron2: something that is no tensor, or a name that fits in two places.
            raise UserError(f"cannot load the checkpoint '{self._path}': {error}") from error
        expected = set(_without_counters(self.model.state_dict())) - _FROM_CONFIG
        wrong_shapes = {name for name, *_ in incompatible.incorrect_shapes}
        loaded = expected - set(incompatible.missing_keys) - wrong_shapes
        if expected and not loaded:
            sample = ", ".join(incompatible.unexpected_keys[:2]) or "none"
            raise UserError(
                f"nothing in the checkpoint '{self._path}' fits: it belongs to another "
                f"architecture (its tensors: {sample}; the model's: "
                f"{', '.join(sorted(expected)[:2])})"
            )
        logger.info("Loaded %d tensors from %s", len(loaded), self._path)
        tensors = {k: v for k, v in self.model.state_dict().items() if k in loaded - unusual}
        way_out = "name an earlier checkpoint, or train it again"
        check_finite(tensors, self._path, f"{way_out}{self._earlier() if self._resuming else ''}")
        return incompatible

    def _unwrapped(self, state: dict[str, Any]) -> dict[str, Any]:
        """``state`` without the prefix of a wrapper, if no name fits the model as it is."""
        expected = self.model.state_dict()
        if any(name in expected for name in state):
            return state
        prefix = prefix_for(state, expected)
        return below(state, prefix, self._path) if prefix is not None else state

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        shapes = [
            f"{name} ({_shape(saved)} in the file, {_shape(wanted)} in the model)"
            for name, saved, wanted in incompatible.incorrect_shapes
        ]
        wrong = {name for name, *_ in incompatible.incorrect_shapes}
        missing = [name for name in incompatible.missing_keys if name not in wrong]
        # A parameter with two names is loaded if the file has one of them.
        missing = sorted(_filter_reused_missing_keys(self.model, missing))
        problems = [
            ("tensors of the file have another shape", shapes),
            ("tensors of the model are not in the file", _without_counters(missing)),
            ("tensors of the file have no place", _without_counters(incompatible.unexpected_keys)),
        ]
        serious = [name for _, names in problems for name in names if self._must_fit(name)]
        if serious:
            found = "; ".join(
                f"{len(names)} {what}: {first_of(names)}" for what, names in problems if names
            )
            reason = "another number of classes or another architecture"
            raise UserError(
                f"the checkpoint '{self._path}' belongs to {reason}: {found}; use the "
                "configuration that it was trained with (config.yaml in its folder)"
            )
        for what, names in problems:
            if names:
                logger.warning("%d %s: %s", len(names), what, first_of(names))
                every = ", ".join(names)
                logger.info("All %d of them: %s", len(names), every, extra=FILE_ONLY)

    def _must_fit(self, name: str) -> bool:
        return self._resuming or (self.strict and not name.startswith(self.optional))

    def _load_checkpointables(self, names: Sequence[str], rest: dict[str, Any]) -> None:
        for name in names:
            if name not in rest:
                self.logger.warning(
                    "Checkpoint '%s' has no state of the %s: it starts afresh", self._path, name
                )
                continue
            try:
                self.checkpointables[name].load_state_dict(rest.pop(name))
            except (KeyError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(
                    f"the {name} state in the checkpoint '{self._path}' does not fit this run "
                    f"({error}); resume with the configuration that wrote it (config.yaml in its "
                    "folder)"
                ) from error


def plain(value: Any) -> Any:
    """NumPy numbers and arrays as Python numbers and tensors, so that safe loading accepts them."""
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _matched(path: str, state: Any, author: str, unused: str) -> dict[str, Any]:
    """Weights whose tensors have other names, as Detectron2 wants them for matching.

    Args:
        path: for error messages.
        state: arrays or tensors by name.
        author: decides how names are converted.
        unused: end of the names that are left out.
    """
    _check_state(path, state)
    kept = {name: value for name, value in state.items() if not name.endswith(unused)}
    return {"model": kept, "__author__": author, "matching_heuristics": True}


def _check_state(path: str, state: Any) -> None:
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray | torch.Tensor)
        for name, value in state.items()
    ):
        raise UserError(
            f"the checkpoint '{path}' holds no model weights (arrays by name); expected a file of "
            "Detectron2's, Caffe2's or pycls's model zoo"
        )


def _tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _has_model(content: dict[str, Any]) -> bool:
    return isinstance(content.get("model"), dict)


def _without_counters(names: Iterable[str]) -> list[str]:
    # Batch norm's step counters hold no weights; frozen batch norm does not have them.
    return [name for name in names if not name.endswith("num_batches_tracked")]


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"
