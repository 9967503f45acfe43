"""The packages and the tools use nothing that Windows or macOS lacks, unless they ask first."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("backbones", "configs", "detection", "search", "tools")
FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
}

# Modules of the standard library that one system or the other does not have.
ONE_SYSTEM = {
    "_winapi", "curses", "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "readline", "resource",
    "syslog", "termios", "tty", "winreg", "winsound",
}  # fmt: skip
# Modules that Python 3.10 has and 3.14 has not.
REMOVED = {
    "aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils",
    "imghdr", "imp", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev", "pipes",
    "pkg_resources", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib",
}  # fmt: skip
# Names of `os` and `signal` that are not there on Windows, or not on macOS.
NOT_EVERYWHERE = {
    "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm",
    "chown", "fchmod", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid",
    "getpriority", "getuid", "killpg", "mkfifo", "nice", "pause", "posix_fadvise", "posix_spawn",
    "pthread_sigmask", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sendfile",
    "setitimer", "setpgid", "setpriority", "setsid", "sigwait", "statvfs", "sync", "sysconf",
    "uname", "wait3", "wait4",
}  # fmt: skip
# What kills processes says at its start that a system cannot.
POSIX_ALONE = {"search/studies/kills/processes.py"}
TEXT_METHODS = {"read_text", "write_text"}
# `open` of these is no file of text.
OTHER_OPEN = {"Image", "os", "tarfile", "webbrowser", "zipfile"}


def top_level_imports(tree: ast.Module) -> set[str]:
    """What importing the module imports: all but what stands in a function or a TYPE_CHECKING."""
    found: set[str] = set()
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def unasked_names(tree: ast.Module) -> set[str]:
    """``os.NAME`` and ``signal.NAME`` of functions that do not ask ``hasattr(os, "NAME")``."""
    found: set[str] = set()
    for part in tree.body:
        asked = {
            word.value
            for node in ast.walk(part)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("hasattr", "getattr")
            for word in node.args
            if isinstance(word, ast.Constant)
        }
        found |= {
            node.attr
            for node in ast.walk(part)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("os", "signal")
        } & (NOT_EVERYWHERE - asked)
    return found


def texts_without_encoding(tree: ast.Module) -> list[str]:
    """Calls that read or write text in whatever encoding the system has."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if name in TEXT_METHODS and method:
            found.append(ast.unparse(node))
        if name == "open" and ast.unparse(node.func).partition(".")[0] not in OTHER_OPEN:
            words = [*node.args, *(word.value for word in node.keywords)]
            if not any(isinstance(w, ast.Constant) and "b" in str(w.value) for w in words):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_system_can_import_it(name: str) -> None:
    assert not top_level_imports(FILES[name]) & ONE_SYSTEM


@pytest.mark.parametrize("name", FILES)
def test_every_python_can_import_it(name: str) -> None:
    imported = {
        module.partition(".")[0]
        for node in ast.walk(FILES[name])
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & REMOVED


@pytest.mark.parametrize("name", FILES)
def test_names_that_a_system_lacks_are_asked_for(name: str) -> None:
    if name in POSIX_ALONE:
        assert 'hasattr(os, "killpg")' in ast.unparse(FILES[name]).replace("'", '"')
        return
    assert not unasked_names(FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_text_has_an_encoding(name: str) -> None:
    """Windows reads and writes text in a code page of its own where none is named."""
    # A handler of Detectron2's paths hands on the mode that it is given.
    allowed = {"open(self._get_local_path(path), mode, buffering=buffering)"}
    assert not set(texts_without_encoding(FILES[name])) - allowed


@pytest.mark.parametrize(
    ("code", "check"),
    [
        ("import fcntl", lambda tree: top_level_imports(tree) & ONE_SYSTEM),
        ("try:\n    import resource\nfinally:\n    pass", lambda t: top_level_imports(t)),
        ("import os\ndef f():\n    os.nice(1)", unasked_names),
        ("import signal\nKILL = signal.SIGKILL", unasked_names),
        ("path.read_text()", texts_without_encoding),
        ("open('x', 'w')", texts_without_encoding),
        ("path.open('a')", texts_without_encoding),
    ],
)
def test_what_is_not_portable_is_found(code: str, check: object) -> None:
    assert callable(check) and check(ast.parse(code))


@pytest.mark.parametrize(
    ("code", "check"),
    [
        ("def f():\n    import fcntl", lambda tree: top_level_imports(tree) & ONE_SYSTEM),
        ("def f():\n    if hasattr(os, 'nice'):\n        os.nice(1)", unasked_names),
        ("open('x', 'rb'), path.open('wb'), Image.open(path)", texts_without_encoding),
        ("path.read_text(encoding='utf-8')", texts_without_encoding),
    ],
)
def test_what_is_portable_passes(code: str, check: object) -> None:
    assert callable(check) and not check(ast.parse(code))


_WINDOWS = """
import importlib, os, sys, types
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
calls = []
msvcrt = types.ModuleType("msvcrt")
msvcrt.LK_NBLCK = 2
def locking(descriptor, mode, count):
    calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, count))
    if len(calls) > 1:
        raise PermissionError(13, "Permission denied")
msvcrt.locking = locking
sys.modules["msvcrt"] = msvcrt
from backbones import file_lock
file = open(sys.argv[1], "a+", encoding="utf-8")
file.write("who")
file.flush()
file_lock.os = types.SimpleNamespace(**{**vars(os), "name": "nt"})
print(file_lock.try_lock(file), file_lock.try_lock(file), calls, os.path.getsize(sys.argv[1]))
"""


def test_the_lock_of_windows(tmp_path: Path) -> None:
    """One byte behind the text, so that it stays readable; where the file is at does not change."""
    command = [sys.executable, "-c", _WINDOWS, str(tmp_path / ".lock")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    far = 1 << 30
    assert run.stdout.strip() == f"True False [({far}, 2, 1), ({far}, 2, 1)] 3", run.stderr


def test_a_run_folder_needs_no_fcntl() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import detection.engine.run_folder"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
