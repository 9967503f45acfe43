"""A page in a real browser: what it looks like, what goes wrong in it, whether it is cut off.

Chromium is told what to do by its DevTools protocol, over a pipe
(https://chromedevtools.github.io/devtools-protocol/): the widths of phones are below the least
width of its windows.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from backbones.errors import UserError
from backbones.files import write_atomic

WIDTHS = (390, 1440)
SCHEMES = ("light", "dark")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_HEIGHT = 900
_SUFFIXES = {"jpeg": "jpg", "png": "png"}
_PATIENCE = 180
"""Seconds for one answer of the browser; a busy machine takes long to start one."""
_OPTIONS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--mute-audio"),
    *("--hide-scrollbars", "--remote-debugging-pipe", "--no-proxy-server"),
)


@dataclass(frozen=True)
class View:
    """A page at one width.

    Attributes:
        width: of the window in CSS pixels.
        scheme: ``light`` or ``dark``.
        scroll_width: what the page takes; more than ``width`` where something is cut off.
        errors: exceptions, and errors on the console.
        picture: the first screen; None where no pictures were asked for.
        whole: the page from top to bottom, likewise.
    """

    width: int
    scheme: str
    scroll_width: int
    errors: tuple[str, ...]
    picture: Path | None
    whole: Path | None


def find_browser() -> str | None:
    """Chromium or Chrome on the search path; None on Windows, which has no such pipes."""
    if os.name == "nt":
        return None
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def look(
    page: Path,
    folder: Path | None = None,
    widths: Sequence[int] = WIDTHS,
    schemes: Sequence[str] = SCHEMES,
) -> list[View]:
    """Opens a page at several widths, light and dark, from top to bottom.

    Args:
        page: an HTML file.
        folder: for ``NAME-WIDTH-SCHEME.jpg``, the first screen, and ``NAME-WIDTH-SCHEME.png``, all
            of it; None takes no pictures.
        widths: in CSS pixels.
        schemes: that the system prefers.

    Raises:
        UserError: if there is no browser, or it does not start.
    """
    with _browser() as browser:
        return [
            _view(browser, page, folder, width, scheme) for width in widths for scheme in schemes
        ]


def _view(browser: _Browser, page: Path, folder: Path | None, width: int, scheme: str) -> View:
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(method: str, **params: Any) -> dict[str, Any]:
        return browser.call(method, session, **params)

    browser.errors.clear()
    for domain in ("Page", "Runtime", "Log"):
        call(f"{domain}.enable")
    call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    size = {"width": width, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": width < 600}
    call("Emulation.setDeviceMetricsOverride", **size)
    call("Page.navigate", url=page.resolve().as_uri())
    browser.wait_for("Page.loadEventFired")
    measured = call("Runtime.evaluate", expression="document.documentElement.scrollWidth")
    height = call("Page.getLayoutMetrics")["cssContentSize"]["height"]
    pictures: list[Path | None] = [None, None]
    if folder is not None:
        for index, (kind, rows) in enumerate((("jpeg", _HEIGHT), ("png", height))):
            place = folder / f"{page.stem}-{width}-{scheme}.{_SUFFIXES[kind]}"
            area = {"x": 0, "y": 0, "width": width, "height": rows, "scale": 1}
            options = {"format": kind, "clip": area, "captureBeyondViewport": True}
            shot = call("Page.captureScreenshot", **options)
            write_atomic(place, base64.b64decode(shot["data"]))
            pictures[index] = place
    found = tuple(browser.errors)
    browser.call("Target.closeTarget", targetId=target)
    return View(width, scheme, int(measured["result"]["value"]), found, *pictures)


class _Browser:
    """Calls and events of a running browser, one JSON text and a zero byte each.

    Attributes:
        errors: of the pages so far.
    """

    def __init__(self, commands: IO[bytes], answers: IO[bytes]) -> None:
        self.errors: list[str] = []
        self._commands, self._answers, self._number = commands, answers, 0
        self._rest = b""
        self._events: list[str] = []

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Calls a method and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise UserError(f"the browser refuses {method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def wait_for(self, event: str) -> None:
        """Waits for an event that may have come already."""
        while event not in self._events:
            self._next()
        self._events.clear()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], _PATIENCE)[0]:
                raise UserError(f"the browser has said nothing for {_PATIENCE} s; try it again")
            part = os.read(self._answers.fileno(), 1 << 16)
            if not part:
                raise UserError("the browser has ended; start it by hand to see why")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        self._events.append(event)
        if event == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"]["text"])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(str([arg.get("value") for arg in params["args"]]))


@contextlib.contextmanager
def _browser() -> Iterator[_Browser]:
    """A browser with a profile of its own, ended at the end."""
    program = find_browser()
    if program is None:
        raise UserError("no browser to look at the page with; install Chromium or Chrome")
    sandbox = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        # the protocol's pipes are descriptors 3 and 4
        shell = f'exec "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
        command = [program, *_OPTIONS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "browser", *command],
            pass_fds=(to_browser[0], from_browser[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            with open(to_browser[1], "wb") as commands, open(from_browser[0], "rb", 0) as answers:
                browser = _Browser(commands, answers)
                yield browser
                with contextlib.suppress(UserError, OSError):
                    browser.call("Browser.close")
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
