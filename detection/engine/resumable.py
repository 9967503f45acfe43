"""A trainer base whose checkpoints hold the whole state of a run."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from detectron2.engine import DefaultTrainer, TrainerBase, hooks, train_loop
from detectron2.engine.train_loop import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from detection.engine.best import BestModel
from detection.engine.checkpoint_files import adopt_checkpoints
from detection.engine.deferred import DeferredStorage
from detection.engine.metrics import has_row, is_due, recent_scalars, restore_scalars
from detection.engine.preemption import Preempted, asked, defer
from detection.engine.random_state import capture_random_state, restore_random_state
from detection.engine.replicas import unite_buffers
from detection.engine.user_errors import without_tracebacks_of_user_errors

logger = logging.getLogger(__name__)

# What follows a checkpoint in its own step, and is made up for where the process ended before it.
_OBSERVERS = (hooks.EvalHook, BestModel, hooks.PeriodicWriter)
_LATE_HOOKS = (hooks.PeriodicCheckpointer, *_OBSERVERS)


class ResumableTrainer(TrainerBase):
    """A trainer whose checkpoints hold all of its state.

    Beyond Detectron2's iteration and first stateful hook of each class: every stateful hook, the
    state of ``DefaultTrainer``'s inner trainer (optimizer, gradient scaler), and the random
    states of every rank. A resumed run then computes what the uninterrupted one would have, bit
    for bit, as far as its operations are deterministic and its data comes in the same order
    (:class:`~detection.engine.sampler.ResumableSampler`).

    Hooks leave the random stream of the training alone: what they draw after a step (a data
    loader for an evaluation draws a seed) is undone before the next one, because a run resumed
    between the two would not have drawn it.

    What is due behind a checkpoint and the end of the process came before, is done when the run
    is resumed: the evaluation of that iteration and its row in ``metrics.json``, and all that
    follows the last iteration. A training that was stopped early is complete.

    Use it alone or in front of another trainer:
    ``class DetectionTrainer(ResumableTrainer, DefaultTrainer)``.

    Attributes:
        finished: iterations of training that are done, in this process and in those before it.
        ending: called at the end of a complete training, when all but W&B's run is closed.
    """

    finished: int = 0
    ending: Callable[[], object] | None = None
    iter: int
    max_iter: int
    _step_states: list[dict[str, Any]] | None = None
    _loaded_state: dict[str, Any] | None = None
    _loaded_scalars: Mapping[str, Any] = {}
    _checkpoint_periods: frozenset[int] = frozenset()
    _stop_reason: str = ""
    _leaving: bool = False

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in the base class; of a run that is complete, only what is missing behind its end."""
        start, end = (*args, *kwargs.values()) or (self.start_iter, self.max_iter)
        if start > 0 and comm.is_main_process():
            adopt_checkpoints(self._hooks, self.checkpointer.get_checkpoint_file())
        with without_tracebacks_of_user_errors():
            if start < end and self._has_stopped(start):
                end = self.max_iter = start
            if not 0 < start >= end:
                # whose name the loop of Detectron2's trainer looks up
                deferred = mock.patch.object(train_loop, "EventStorage", DeferredStorage)
                with deferred, contextlib.suppress(_Stopped):
                    return super().train(*args, **kwargs)
                return None
            logger.info("All %d iterations are done: nothing to train", end)
            if comm.is_main_process() and start == end:
                self._keep_final()
            if not comm.all_gather(self.settled())[0]:
                self._settle(start)
        return None

    def stop_early(self, reason: str) -> None:
        """Ends the training behind the present step, as if it were the last of the run.

        Args:
            reason: for the log.
        """
        self._stop_reason = reason

    def _has_stopped(self, finished: int) -> bool:
        """Whether an earlier process ended the training early, behind its last iteration."""
        if not comm.all_gather(has_row(self.folder, finished - 1))[0]:
            return False  # that evaluation is still to come
        found = [hook for hook in self._hooks if isinstance(hook, BestModel)]
        for hook in found:
            hook.load()
        return finished > 0 and any(hook.exhausted(finished) for hook in found)

    def _stop_if_asked(self, state: dict[str, Any]) -> None:
        """Makes the present iteration the last one."""
        if not self._stop_reason:
            return
        logger.info("%s", self._stop_reason)
        self._step_states = comm.all_gather(state)
        self.checkpointer.save("model_final", iteration=self.iter)
        self._step_states = None
        self.iter = self.max_iter = self.finished = self.iter + 1
        raise _Stopped

    def progress_note(self) -> str:
        """What a line of progress on the console says at its end, beside the losses."""
        return ""

    def settled(self) -> bool:
        """Whether all that a complete run leaves behind its last iteration is there.

        An earlier process may not have got to it: a final evaluation can fail, for a broken image,
        with the training complete.
        """
        return True

    def _keep_final(self) -> None:
        """Makes the last periodic checkpoint the final one, where a kill came between the two.

        A final one that is there may be of an earlier, shorter training.
        """
        last = Path(self.checkpointer.get_checkpoint_file())
        for hook in self._hooks:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                self.checkpointer.keep_as(last, f"{hook.file_prefix}_final.pth")

    def _settle(self, finished: int) -> None:
        """What the loop does behind its last iteration."""
        with EventStorage(finished) as self.storage:
            self.before_train()
            self.iter = finished
            self.after_train()

    def before_train(self) -> None:
        """Runs the hooks, then continues the random stream of the checkpoint, if any."""
        periods = [
            hook.period for hook in self._hooks if isinstance(hook, hooks.PeriodicCheckpointer)
        ]
        # Only rank 0 has the checkpointer, but all ranks must know when to send their states.
        self._checkpoint_periods = frozenset(comm.all_gather(periods)[0])
        super().before_train()
        # Detectron2's main branch makes the iterator, which draws a seed, when it is first used.
        getattr(getattr(self, "_trainer", None), "_data_loader_iter", None)
        if self.start_iter > 0:
            self._catch_up()
        if self._loaded_state is not None:
            restore_random_state(self._loaded_state)
            self._loaded_state = None
        defer(True)

    def _catch_up(self) -> None:
        """What follows a checkpoint in its own step, where the row of that step is missing."""
        iteration, present = self.start_iter - 1, self.iter
        written = comm.all_gather(has_row(self.folder, iteration))[0]
        # without a further step, what is restored would be written once more
        if not (written and self.start_iter >= self.max_iter):
            restore_scalars(self.storage, self._loaded_scalars, written)
        if written:
            return
        self.iter = self.storage.iter = iteration
        for hook in self._hooks:
            if isinstance(hook, _OBSERVERS):
                hook.after_step()
        self._stop_if_asked(self._loaded_state or capture_random_state())
        self.iter = self.storage.iter = present

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.checkpointer.save_dir)

    def after_step(self) -> None:
        """Runs the hooks without letting them disturb the random stream.

        Those that change the run come first. What is then saved or evaluated is the same in all
        processes. A run that is asked to leave does so before its evaluations, which are made up
        for when it is resumed.
        """
        self.finished = self.iter + 1
        state = capture_random_state()
        signal = asked()
        saves = bool(signal) or self._checkpoint_is_due()
        if comm.get_world_size() == 1:
            self._step_states = [state]
        elif saves:
            self._step_states = comm.all_gather(state)
        self._run_hooks(lambda hook: not isinstance(hook, _LATE_HOOKS))
        if saves or self._evaluation_is_due():
            unite_buffers(self._saved_modules())
        self._run_hooks(lambda hook: isinstance(hook, hooks.PeriodicCheckpointer))
        if signal:
            self._leave(signal)
        self._run_hooks(lambda hook: isinstance(hook, _OBSERVERS))
        self._step_states = None
        restore_random_state(state)
        self._stop_if_asked(state)

    def after_train(self) -> None:
        """Runs the hooks; of a run that leaves, only what closes its files.

        One that fails in its last step is not evaluated, as Detectron2 would.
        """
        defer(False)
        if not self._leaving:
            if self.iter >= self.max_iter and (signal := asked()):
                raise Preempted(signal, " behind the last iteration")
            if self.iter < self.max_iter:
                self._hooks[:] = [h for h in self._hooks if not isinstance(h, hooks.EvalHook)]
            super().after_train()
            return
        for hook in self._hooks:
            for writer in hook._writers if isinstance(hook, hooks.PeriodicWriter) else ():
                writer.close()

    def _run_hooks(self, wanted: Callable[[HookBase], bool]) -> None:
        for hook in filter(wanted, self._hooks):
            hook.after_step()

    def _leave(self, signal: int) -> None:
        """Ends this process behind the present step, with a checkpoint of it."""
        if not self._checkpoint_is_due():
            self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
        self._leaving = True
        raise Preempted(signal, f" after iteration {self.finished} of {self.max_iter}")

    def _saved_modules(self) -> list[nn.Module]:
        """The model, and averages of it."""
        states = self.checkpointer.checkpointables.values()
        return [self.checkpointer.model, *(s for s in states if isinstance(s, nn.Module))]

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, except model and checkpointables."""
        state = super().state_dict()
        state["hooks"] = self._hook_states()
        inner = getattr(self, "_trainer", None)
        if inner is not None:
            state["_trainer"] = inner.state_dict()
        if (storage := getattr(self, "storage", None)) is not None:
            state["scalars"] = recent_scalars(storage)
        if self._step_states is not None:
            state["random_states"] = self._step_states
        elif comm.get_world_size() == 1:
            state["random_states"] = [capture_random_state()]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over a state; the random one when the training starts."""
        state = dict(state_dict)
        hook_states = state.pop("hooks", {})
        random_states = state.pop("random_states", None)
        self._loaded_scalars = state.pop("scalars", {})
        super().load_state_dict(state)
        self.finished = self.iter + 1
        self._load_hook_states(hook_states)
        inner = getattr(self, "_trainer", None)
        # Detectron2 0.6 forgets its inner trainer, the main branch has just loaded it.
        loaded = "load_state_dict" in vars(DefaultTrainer)
        if inner is not None and "_trainer" in state and not loaded:
            inner.load_state_dict(state["_trainer"])
        if random_states is not None and len(random_states) == comm.get_world_size():
            self._loaded_state = random_states[comm.get_rank()]
        else:
            logger.warning(
                "The checkpoint holds the random states of %d processes, this run has %d: its "
                "random numbers start afresh",
                len(random_states or ()),
                comm.get_world_size(),
            )

    def _checkpoint_is_due(self) -> bool:
        finished = self.iter + 1
        return finished >= self.max_iter or any(
            finished % period == 0 for period in self._checkpoint_periods
        )

    def _evaluation_is_due(self) -> bool:
        return any(is_due(hook, self.iter + 1) for hook in self._hooks)

    def _named_hooks(self) -> list[tuple[str, HookBase]]:
        """Hooks by class name; from the second of a class on, with their position in the class.

        The first keeps Detectron2's own name, so that either reads the other's checkpoints.
        """
        seen: Counter[str] = Counter()
        named = []
        for hook in self._hooks:
            name = type(hook).__qualname__
            seen[name] += 1
            named.append((name if seen[name] == 1 else f"{name}#{seen[name]}", hook))
        return named

    def _hook_states(self) -> dict[str, Any]:
        states = {name: _stateful(hook).state_dict() for name, hook in self._named_hooks()}
        return {name: state for name, state in states.items() if state}

    def _load_hook_states(self, states: Mapping[str, Any]) -> None:
        by_name = dict(self._named_hooks())
        for name, state in states.items():
            if name not in by_name:
                logger.warning("This run has no hook '%s': its saved state is ignored", name)
            elif hasattr(_stateful(by_name[name]), "load_state_dict"):
                _stateful(by_name[name]).load_state_dict(state)


class _Stopped(BaseException):
    """Ends the loop of Detectron2's trainer, which takes an ``Exception`` for a failure."""


def _stateful(hook: HookBase) -> Any:
    """Where the state of a hook is.

    Detectron2 0.6 takes current PyTorch's schedulers for stateless ones, hence directly. A
    ``ParamScheduler`` has no state: its hook derives the progress from the iteration.
    """
    if isinstance(hook, hooks.LRScheduler) and hasattr(hook.scheduler, "load_state_dict"):
        return hook.scheduler
    return hook
