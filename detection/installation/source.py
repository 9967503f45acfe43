"""Where the Detectron2 v0.6 source comes from: found on pip's own indexes, checked by its hash.

The distribution ``pb1-detectron2`` holds v0.6's Python files and model-zoo configs unchanged. pip
cannot install it (its build wants C++ sources that it lacks), so the file is only downloaded.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import ssl
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast

from backbones.errors import UserError
from backbones.files import atomic_path
from detection.installation.index_settings import IndexSettings, read_index_settings

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers import Fetcher, PyPIClient

REQUIREMENT = "pb1-detectron2==0.6"
SDIST_NAME = "pb1-detectron2-0.6.tar.gz"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

_LOCAL_FILE = f"on a machine with a network, fetch {SDIST_NAME} and pass it with --sdist PATH"


def check_sdist(path: Path, shown: str = "") -> None:
    """Checks that a file is the source that the mends were written for.

    Args:
        path: the file.
        shown: what the message calls it; its path by default.

    Raises:
        UserError: if it is missing or its SHA-256 differs.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"cannot read the Detectron2 source '{path}': {error.strerror}; "
            f"pass the path of {SDIST_NAME} with --sdist PATH"
        ) from None
    if digest != SHA256:
        raise UserError(
            f"{shown or repr(str(path))} is not the expected {SDIST_NAME}: its SHA-256 is "
            f"{digest}, expected {SHA256}; delete it and fetch it again"
        )


def fetch_sdist(folder: Path, settings: IndexSettings | None = None) -> Path:
    """Returns the checked source from ``folder``, downloading it there if it is missing.

    Args:
        folder: where the source is kept.
        settings: where to look; pip's configuration by default.

    Raises:
        UserError: if it cannot be fetched, or its hash is wrong.
    """
    target = folder / SDIST_NAME
    if target.exists():
        check_sdist(target)
        return target
    if importlib.util.find_spec("unearth") is None:
        raise UserError(
            "downloading Detectron2's source needs the package 'unearth': "
            f"run 'python -m pip install unearth', or {_LOCAL_FILE}"
        )
    ensure_folder(folder)
    with atomic_path(target) as temporary:
        _download(settings or read_index_settings(), temporary)
        check_sdist(temporary, "the downloaded file")
    return target


def ensure_folder(folder: Path) -> None:
    """Creates a folder if it is missing.

    Raises:
        UserError: if that is not possible or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create the folder '{folder}': {error.strerror}; choose another with "
            "--wheel-dir DIR"
        ) from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write to '{folder}'; choose another folder with --wheel-dir DIR")


def _download(settings: IndexSettings, target: Path) -> None:
    """Downloads the source to ``target`` from the first place that has it."""
    failures: list[str] = []
    errors: tuple[type[Exception], ...] = (OSError, ValueError, *_http_errors())
    with _client(settings) as client:
        for place, is_index in _places(settings):
            try:
                link = _find_link(client, settings, place, is_index)
                if link is not None:
                    _stream(client, link, target)
                    return
                failures.append(f"{_redacted(place)}: not there")
            except errors as error:
                failures.append(f"{_redacted(place)}: {error}")
    tried = "; ".join(failures) or "pip is configured to use no index and no links"
    raise UserError(
        f"cannot fetch {REQUIREMENT} ({tried}); check the network and pip's settings "
        f"('pip config list'), or {_LOCAL_FILE}"
    )


def _places(settings: IndexSettings) -> list[tuple[str, bool]]:
    """Where to look, local links first, with whether the place is a simple index."""
    links = [(place, False) for place in settings.find_links]
    return links + [(place, True) for place in settings.index_urls]


def _client(settings: IndexSettings) -> PyPIClient:
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers import PyPIClient

    client = PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=_tls_context(settings.certificates),
        timeout=settings.timeout,
        follow_redirects=True,
    )
    client.auth = MultiDomainBasicAuth(index_urls=list(settings.index_urls))
    return client


def _tls_context(certificates: str | None) -> ssl.SSLContext | bool:
    if certificates is None:
        return True
    path = Path(certificates).expanduser()
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=str(path))
        return ssl.create_default_context(cafile=str(path))
    except OSError as error:
        raise UserError(
            f"cannot load the certificates '{certificates}': {error}; correct pip's 'cert' setting "
            "or REQUESTS_CA_BUNDLE"
        ) from None


def _find_link(
    client: PyPIClient, settings: IndexSettings, place: str, is_index: bool
) -> Link | None:
    from unearth import PackageFinder

    finder = PackageFinder(
        cast("Fetcher", client),
        index_urls=[place] if is_index else [],
        find_links=[] if is_index else [place],
        trusted_hosts=settings.trusted_hosts,
    )
    best = finder.find_best_match(REQUIREMENT).best
    return best.link if best is not None else None


def _stream(client: PyPIClient, link: Link, target: Path) -> None:
    with client.get_stream(link.normalized) as response, target.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_bytes():
            file.write(chunk)


def _http_errors() -> tuple[type[Exception], ...]:
    """The network exceptions of the HTTP library that the installed unearth builds on."""
    from unearth.fetchers import PyPIClient

    # That library differs between unearth's versions (httpx, httpx2); both name their base alike.
    library = importlib.import_module(PyPIClient.__mro__[1].__module__.partition(".")[0])
    return (library.HTTPError, library.InvalidURL)


def _redacted(place: str) -> str:
    """``place`` without the password that an index URL may carry."""
    from unearth import Link

    return Link(place).redacted if "://" in place else place


def unpack_sdist(sdist: Path, folder: Path) -> Path:
    """Unpacks a checked source and returns its top folder.

    Only ordinary files below the archive's one top folder are written; links and anything that
    would land elsewhere are refused.

    Raises:
        UserError: if the archive is damaged or holds such an entry.
    """
    top = folder / SDIST_NAME.removesuffix(".tar.gz")
    try:
        with tarfile.open(sdist) as archive:
            for member in archive:
                if member.isdir():
                    continue
                path = PurePosixPath(member.name)
                content = archive.extractfile(member) if member.isfile() else None
                if content is None or path.parts[0] != top.name or ".." in path.parts:
                    raise UserError(f"'{sdist}' holds the unsafe entry '{member.name}'")
                target = folder.joinpath(*path.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"cannot unpack '{sdist}': {error}; fetch it again") from None
    return top
