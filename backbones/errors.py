"""The one exception for mistakes that a user can make and mend."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence


class UserError(ValueError):
    """A wrong path, key, file or value given by the user.

    The message names the value, what was expected and the way out. Command-line tools print it
    without a traceback and exit with code 2; from Python it is an ordinary ``ValueError``.
    """


def first_of(names: Sequence[str]) -> str:
    """The first names of a list, for a message that has to stay readable: ``a, b, c, …``."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def require(*modules: str, extra: str = "") -> None:
    """Checks that optional packages are installed.

    Args:
        modules: names to import.
        extra: of the distribution, that installs them; empty if they are packages of their names.

    Raises:
        UserError: naming the first that is missing, and how to install it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            wanted = f"'spnas[{extra}]'" if extra else module
            raise UserError(
                f"the package '{module}' is not installed; get it with: pip install {wanted}"
            )
