"""The one exception for mistakes that a user can make and mend."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """A wrong path, key, file or value given by the user.

    The message names the value, what was expected and the way out. Command-line tools print it
    without a traceback and exit with code 2; from Python it is an ordinary ``ValueError``.
    """


def first_of(names: Sequence[str]) -> str:
    """The first names of a list, for a message that has to stay readable: ``a, b, c, …``."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
