"""The upload, to a stand-in for the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from backbones import UserError
from backbones.sharing.upload import check_upload, push_to_hub


class Hub:
    """Stands for ``huggingface_hub.HfApi``: keeps what is uploaded."""

    repositories: dict[str, dict[str, bytes]]
    private: set[str]
    error: Exception | None

    def __init__(self, **_: Any) -> None:
        self.commits: list[str] = []

    def repo_exists(self, repo_id: str) -> bool:
        return repo_id in self.repositories

    def list_repo_files(self, repo_id: str) -> list[str]:
        return list(self.repositories[repo_id])

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        if self.error:
            raise self.error
        assert exist_ok or repo_id not in self.repositories
        self.repositories.setdefault(repo_id, {".gitattributes": b""})
        if private:
            self.private.add(repo_id)
        return f"https://hub/{repo_id}"

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str, ignore_patterns: list[str]
    ) -> None:
        assert commit_message == "Upload m" and ignore_patterns == [".*"]
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        self.repositories[repo_id].update(files)


class RefusedError(Exception):
    """As of the hub's HTTP library."""

    def __init__(self, status: int) -> None:
        super().__init__("the hub says no\nand more")
        self.response = type("Response", (), {"status_code": status})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    Hub.repositories, Hub.private, Hub.error = {}, set(), None
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a token")
    return Hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    for name in ("model.safetensors", "README.md"):
        (tmp_path / "m" / name).write_text(name)
    return tmp_path / "m"


def test_a_new_repository(hub: type[Hub], folder: Path) -> None:
    assert push_to_hub(folder, "you/it", private=True) == "https://hub/you/it"
    assert hub.repositories["you/it"]["model.safetensors"] == b"model.safetensors"
    assert hub.private == {"you/it"}


def test_one_that_is_there(hub: type[Hub], folder: Path) -> None:
    hub.repositories["you/it"] = {".gitattributes": b""}
    push_to_hub(folder, "you/it")
    before = dict(hub.repositories["you/it"])
    (folder / "README.md").write_text("new")
    with pytest.raises(UserError, match=r"holds files already \(README.md, .*--replace"):
        push_to_hub(folder, "you/it")
    assert hub.repositories["you/it"] == before
    push_to_hub(folder, "you/it", replace=True)
    assert hub.repositories["you/it"]["README.md"] == b"new" and not hub.private


@pytest.mark.parametrize(
    "name", ["it", "you/it/so", "you/", "/it", "you/-it", "you/i t", "you/a--b", "y/" + 97 * "a"]
)
def test_names(hub: type[Hub], name: str) -> None:
    with pytest.raises(UserError, match="is no name of a repository; expected USER/NAME"):
        check_upload(name)
    with pytest.raises(huggingface_hub.errors.HFValidationError):
        huggingface_hub.utils.validate_repo_id(name if "/" in name else f"{name}/")


def test_nobody_is_logged_in(hub: type[Hub], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="'you/it' cannot be written without a login; .*hf auth"):
        push_to_hub(folder, "you/it")
    assert not hub.repositories


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RefusedError(403),
            r"not let you write 'you/it' \(the hub says no\); .*hf auth login",
        ),
        (
            RefusedError(500),
            r"upload to 'you/it' \(RefusedError: the hub says no\); check",
        ),
        (ConnectionError("offline"), r"\(ConnectionError: offline\); check the network"),
    ],
)
def test_the_hub_refuses(hub: type[Hub], folder: Path, error: Exception, message: str) -> None:
    hub.error = error
    with pytest.raises(UserError, match=message):
        push_to_hub(folder, "you/it")


def test_a_folder_without_weights(hub: type[Hub], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no model.safetensors; write the folder first"):
        push_to_hub(tmp_path, "you/it")
