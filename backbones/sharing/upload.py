"""The upload of a shared model's folder to Hugging Face's hub."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from backbones.errors import UserError, first_of
from backbones.exported import SHARED_FILE
from backbones.extras import require
from backbones.hub import is_repository

_LOGIN = "log in with: hf auth login (or set HF_TOKEN to a token that may write)"


def check_upload(repository: str) -> None:
    """Insists on a name that the hub takes, and on a login.

    Raises:
        UserError: naming what is missing.
    """
    require("huggingface_hub")
    if not is_repository(repository):
        raise UserError(
            f"'{repository}' is no name of a repository; expected USER/NAME in letters, digits, "
            "'-', '_' and '.', at most 96 in each, e.g. your-name/spnas-pixel1-80ms"
        )
    if not import_module("huggingface_hub").get_token():
        raise UserError(f"'{repository}' cannot be written without a login; {_LOGIN}")


def push_to_hub(
    folder: str | Path, repository: str, *, private: bool = False, replace: bool = False
) -> str:
    """Uploads the folder of a shared model, as one commit.

    Args:
        folder: of ``save_pretrained`` or of ``tools/publish_model.py``.
        repository: ``USER/NAME``; it is made if there is none.
        private: whether a new repository is one that its owner alone sees.
        replace: whether the files of a repository that holds some may be replaced; its history
            keeps them.

    Returns:
        The repository's address.

    Raises:
        UserError: if the folder has no weights, the name is none, nobody is logged in, the
            repository holds files, or the hub refuses.
    """
    check_upload(repository)
    if not Path(folder, SHARED_FILE).is_file():
        raise UserError(
            f"'{folder}' has no {SHARED_FILE}; write the folder first: spnas publish RUN "
            f"--output {folder}"
        )
    api = import_module("huggingface_hub").HfApi(library_name="spnas")
    try:
        if not replace:
            _check_empty(api, repository)
        address = str(api.create_repo(repository, private=private, exist_ok=True))
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"Upload {Path(folder).resolve().name}",
            ignore_patterns=[".*"],
        )
    except UserError:
        raise
    except Exception as error:  # its HTTP library raises types of its own
        raise _refused(repository, error) from None
    return address


def _check_empty(api: Any, repository: str) -> None:
    if not api.repo_exists(repository):
        return
    names = [name for name in api.list_repo_files(repository) if not name.startswith(".git")]
    if names:
        raise UserError(
            f"the repository '{repository}' holds files already ({first_of(sorted(names))}); name "
            "another one, or replace them: --replace (replace=True)"
        )


def _refused(repository: str, error: Exception) -> UserError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = (str(error) or type(error).__name__).splitlines()[0][:200]
    if status in (401, 403) or type(error).__name__ == "LocalTokenNotFoundError":
        return UserError(
            f"the hub does not let you write '{repository}' ({reason}); name a repository of your "
            f"own, or {_LOGIN}"
        )
    return UserError(
        f"cannot upload to '{repository}' ({type(error).__name__}: {reason}); check the network, "
        "and repeat the command: what is uploaded already is not sent again"
    )
