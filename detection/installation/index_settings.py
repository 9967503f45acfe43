"""Where pip would look for a distribution: its configuration, read through pip itself."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from backbones.errors import UserError

_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True)
class IndexSettings:
    """Where and how pip itself would look for a distribution.

    Attributes:
        index_urls: simple indexes, the main one first; empty if pip is told to use none.
        find_links: folders, files and pages with links to distributions.
        trusted_hosts: hosts whose certificate is not checked.
        certificates: a file or folder of certificate authorities, if not the default.
        timeout: seconds.
    """

    index_urls: tuple[str, ...]
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    certificates: str | None = None
    timeout: float = 15.0


def read_index_settings(environment: Mapping[str, str] | None = None) -> IndexSettings:
    """Reads pip's configuration: its files and its ``PIP_*`` variables, in pip's own precedence.

    Args:
        environment: environment variables; the process's own by default.

    Raises:
        UserError: if pip cannot be run.
    """
    environment = os.environ if environment is None else environment
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=dict(environment),
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        raise UserError(
            f"'{sys.executable} -m pip config list' failed: {last_line(listing.stderr)}; "
            "install pip into this environment (python -m ensurepip) or mend its configuration"
        )
    return _parse_settings(listing.stdout, environment)


def _parse_settings(listing: str, environment: Mapping[str, str]) -> IndexSettings:
    options: dict[str, str] = {}
    # Later sections win, as in pip: every command's, the command's own, the environment.
    for section in ("global", "download", ":env:"):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                options[key.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    index_urls = (options.get("index-url") or _default_index(), *_words(options, "extra-index-url"))
    certificates = options.get("cert") or next(
        (environment[name] for name in _CERTIFICATE_VARIABLES if environment.get(name)), None
    )
    return IndexSettings(
        index_urls=() if _is_true(options.get("no-index", "")) else index_urls,
        find_links=_words(options, "find-links"),
        trusted_hosts=_words(options, "trusted-host"),
        certificates=certificates,
        timeout=float(options.get("timeout") or options.get("default-timeout") or 15),
    )


def _words(options: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(options.get(name, "").split())


def _is_true(value: str) -> bool:
    return value.strip().lower() in ("1", "y", "yes", "t", "true", "on")


def _default_index() -> str:
    from pip._internal.models.index import PyPI

    return str(PyPI.simple_url)


def last_line(text: str) -> str:
    """The last line that says something: where Python and pip put the error."""
    return (text.strip().splitlines() or ["no message"])[-1]
