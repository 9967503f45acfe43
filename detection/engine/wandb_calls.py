"""Calls of W&B that end in time, and what one of its errors says in a line."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

FINISH_SECONDS = 60
_INIT_SECONDS = 30


def started(wandb: Any, mode: str, arguments: Mapping[str, Any]) -> Any:
    """W&B's run, which prints nothing.

    Args:
        wandb: the module.
        mode: ``online`` or ``offline``.
        arguments: further ones of ``wandb.init``.
    """
    wanted = {
        "silent": True,
        "console": "off",
        "disable_code": True,
        "init_timeout": _INIT_SECONDS,
        "finish_timeout": FINISH_SECONDS,
    }
    # Not every version has every setting: a pydantic model since 0.19, a plain class before.
    known = {*getattr(wandb.Settings, "model_fields", ()), *dir(wandb.Settings)}
    options = {name: value for name, value in wanted.items() if name in known}
    # Offline, W&B takes the id but has nothing to resume, and says so in a warning.
    resume = (os.environ.get("WANDB_RESUME") or "allow") if mode == "online" else None
    return wandb.init(mode=mode, resume=resume, settings=wandb.Settings(**options), **arguments)


def bounded(function: Callable[[], object], seconds: float) -> None:
    """Calls ``function``; gives up waiting after ``seconds``.

    Raises:
        TimeoutError: when giving up.
    """
    errors: list[BaseException] = []

    def target() -> None:
        try:
            function()
        except BaseException as error:  # handed to the caller
            errors.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if errors:
        raise errors[0]


def reason(error: BaseException) -> str:
    """Type and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
