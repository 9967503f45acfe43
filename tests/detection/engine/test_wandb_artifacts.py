"""What runs hand on, read from the files that W&B leaves offline."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from backbones import load_architecture
from backbones.errors import UserError
from backbones.version import project_version
from detection.engine import wandb_artifacts
from detection.engine.wandb_artifacts import Artifacts, Item, inputs, outputs
from detection.engine.wandb_writer import WandbSettings, WandbWriter
from tests.wandb_files import of_kind, wait_for_end

OFFLINE = WandbSettings(mode="offline")
LOGGER = "detection.engine.wandb_artifacts"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No account, and a place of its own for what W&B keeps outside of a run's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb_home"))
    return tmp_path / "wandb_home"


def run(
    folder: Path, config: Mapping[str, Any] | None = None, settings: WandbSettings = OFFLINE
) -> WandbWriter:
    """A run that has begun."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config or {})))
    return WandbWriter(settings, folder)


def searched(folder: Path, settings: WandbSettings = OFFLINE) -> WandbWriter:
    """A search at its end, with a network of a family."""
    writer = run(folder, {"SEARCH": {"LATENCY_TABLE": "pixel1"}}, settings)
    network = load_architecture("mnasnet_b1")
    provenance = {"predicted_runtime": 74.25, "unit": "ms", "config": {"TARGET": 75.0}}
    object.__setattr__(network, "provenance", provenance)
    for place in (folder, folder / "family" / "60"):
        place.mkdir(parents=True, exist_ok=True)
        network.save(place / "architecture.json")
        (place / "backbone.pth").write_bytes(b"weights" * 100)
    (folder / "model_final.pth").write_bytes(b"supernet")
    (folder / "report.html").write_text("<p>report")
    found = {"predicted_runtime": 74.25, "unit": "ms", "latency_table": "pixel1"}
    scores = {"val": {"top1": 50.0, "loss": None}}
    (folder / "results.json").write_text(json.dumps({"search": {**found, **scores}}))
    return writer


def ended(writer: WandbWriter, folder: Path, processes: int = 1) -> list[Any]:
    """The artifacts of a run, behind its end."""
    writer.log_outputs()
    writer.close()
    wait_for_end(folder, processes)
    return of_kind(folder, "artifact")


def md5(file: Path) -> str:
    return base64.b64encode(hashlib.md5(file.read_bytes()).digest()).decode()


def group(folder: Path) -> str:
    return str(of_kind(folder, "run")[-1].run_group)


def test_what_a_search_makes_the_next_stage_uses(tmp_path: Path, home: Path) -> None:
    search, classifier = tmp_path / "search", tmp_path / "classifier"
    made = ended(searched(search), search)
    run_id = (search / "wandb_run_id").read_text()
    by_name = {artifact.name: artifact for artifact in made}
    assert {name: a.type for name, a in by_name.items()} == {
        "latency_table-pixel1": "latency_table",
        f"architecture-{run_id}": "architecture",
        f"backbone-{run_id}": "model",
        f"family-60-architecture-{run_id}": "architecture",
        f"family-60-backbone-{run_id}": "model",
        f"report-{run_id}": "report",
    }
    # the table was there before; all others are the run's
    assert [a.name for a in made if a.use_after_commit] == ["latency_table-pixel1"]
    assert not [a for a in made if not a.use_after_commit and a.user_created]
    facts = json.loads(by_name[f"backbone-{run_id}"].metadata)
    assert facts["spnas"] == project_version()
    assert (facts["predicted_runtime"], facts["target_runtime"]) == (74.25, 75)
    assert (facts["val/top1"], facts["run"], facts["unit"]) == (50, run_id, "ms")
    assert "val/top1" not in json.loads(by_name[f"family-60-backbone-{run_id}"].metadata)

    config = {
        "MODEL": {
            "SPNAS": {"ARCH": str(search / "architecture.json")},
            "WEIGHTS": str(search / "backbone.pth"),
        }
    }
    used = ended(run(classifier, config), classifier)
    assert {a.name for a in used} == {f"architecture-{run_id}", f"backbone-{run_id}"}
    for artifact in used:
        assert artifact.use_after_commit and artifact.user_created
        assert artifact.digest == by_name[artifact.name].digest
    assert group(classifier) == group(search) == f"search-{run_id}"
    # nothing of it lies in the account's folders
    assert not [path for path in home.rglob("artifacts/**/*") if path.is_file()]


def test_the_content_stays_as_it_was_logged(tmp_path: Path) -> None:
    """Although a report is written anew, and is at hand for the upload without a copy."""
    folder = tmp_path / "search"
    made = ended(searched(folder), folder)
    for artifact in made:
        (entry,) = artifact.manifest.contents
        assert entry.digest == md5(Path(entry.local_path))
    (report,) = (a for a in made if a.type == "report")
    kept = Path(report.manifest.contents[0].local_path)
    assert kept.samefile(folder / "report.html")
    new = folder / "new.html"
    new.write_text("<p>another")
    new.replace(folder / "report.html")
    assert kept.read_text() == "<p>report"


def test_a_large_file_is_a_path_with_a_checksum(tmp_path: Path) -> None:
    folder = tmp_path / "search"
    small = WandbSettings(mode="offline", artifact_mb=0.0006)  # 600 bytes; the weights have 700
    made = ended(searched(folder, small), folder)
    entries = {a.name.partition("-")[0]: a.manifest.contents[0] for a in made}
    weights = folder / "backbone.pth"
    assert entries["backbone"].ref == weights.as_uri() and not entries["backbone"].local_path
    assert entries["backbone"].digest == md5(weights)
    assert entries["report"].local_path and not entries["report"].ref


def test_no_artifacts_where_none_are_wanted(tmp_path: Path) -> None:
    search, classifier = tmp_path / "search", tmp_path / "classifier"
    off = WandbSettings(mode="offline", artifacts=False)
    assert ended(searched(search, off), search) == []
    config = {"MODEL": {"WEIGHTS": str(search / "backbone.pth")}}
    assert ended(run(classifier, config, off), classifier) == []
    assert group(classifier) == group(search)
    with pytest.raises(UserError, match="WANDB.ARTIFACT_MB is -1; expected a size in MB"):
        WandbSettings(artifact_mb=-1)


def _place(folder: Path, run_id: str, group: str) -> None:
    (folder / "family" / "60").mkdir(parents=True)
    (folder / "wandb_run_id").write_text(run_id)
    (folder / "wandb_folder.json").write_text(json.dumps({"group": group}))
    for place in (folder, folder / "family" / "60"):
        for name in ("architecture.json", "backbone.pth", "model_0000009.pth"):
            (place / name).write_text("{}")


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"SEARCH": {"START": "first"}}, ["architecture-one", "backbone-one"]),
        ({"SEARCH": {"START": "first/family/60"}},
         ["family-60-architecture-one", "family-60-backbone-one"]),
        ({"CLASSIFICATION": {"TEACHER": "first/architecture.json"}},
         ["architecture-one", "backbone-one"]),
        ({"MODEL": {"SPNAS": {"ARCH": "first/family/60/architecture.json"},
                    "WEIGHTS": "second/model_0000009.pth"}},
         ["family-60-architecture-one", "model_0000009-two"]),
        ({"MODEL": {"SPNAS": {"ARCH": "spnas_100"}, "WEIGHTS": "package://lite0"}}, []),
        ({"MODEL": {"WEIGHTS": "loose.pth"}, "SEARCH": {"START": ""}}, []),
        ({"MODEL": {"WEIGHTS": "own/backbone.pth"}}, []),
        ({"MODEL": {"WEIGHTS": "x" * 5000}}, []),
    ],
)  # fmt: skip
def test_where_files_are_from(
    config: Mapping[str, Any], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, run_id in (("first", "one"), ("second", "two"), ("own", "three")):
        _place(tmp_path / folder, run_id, f"group of {run_id}")
    (tmp_path / "loose.pth").touch()
    found = inputs(config, tmp_path / "own")
    assert [item.name for item in found] == names
    expected = "group of one" if names else ""
    assert wandb_artifacts.group_of(found) == expected


def test_the_group_is_the_users_where_they_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = tmp_path / "search"
    ended(searched(search), search)
    config = {"SEARCH": {"START": str(search)}}
    mine = WandbSettings(mode="offline", group="mine")
    for folder, settings in ((tmp_path / "b", mine), (tmp_path / "c", OFFLINE)):
        ended(run(folder, config, settings), folder)
        monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    assert (group(tmp_path / "b"), group(tmp_path / "c")) == ("mine", "theirs")
    # a resumed run stays where it was, and what it leads to comes along
    monkeypatch.delenv("WANDB_RUN_GROUP")
    ended(run(tmp_path / "c", config), tmp_path / "c", 2)
    assert group(tmp_path / "c") == "theirs"
    (tmp_path / "c" / "backbone.pth").touch()
    detector = tmp_path / "d"
    ended(run(detector, {"MODEL": {"WEIGHTS": str(tmp_path / "c" / "backbone.pth")}}), detector)
    assert group(detector) == "theirs"


def test_the_last_checkpoint_counts_without_weights(tmp_path: Path) -> None:
    _place(tmp_path, "one", "")
    (tmp_path / "model_final.pth").touch()
    (tmp_path / "model_best.pth").touch()
    names = [item.name for item in outputs(tmp_path)]
    assert "model_best-one" in names and "model_final-one" not in names
    (tmp_path / "backbone.pth").unlink()
    assert "model_final-one" in [item.name for item in outputs(tmp_path)]


def test_a_failure_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_of: Callable[[str], list[str]]
) -> None:
    """Of a version without what is needed offline, say; the other artifacts are made."""
    lines = log_of(LOGGER)
    folder = tmp_path / "search"
    writer = searched(folder)

    def gone(*_: Any) -> None:
        raise AttributeError("'Run' object has no attribute '_log_artifact'")

    monkeypatch.setattr(Artifacts, "_use", gone)
    made = ended(writer, folder)
    assert {a.type for a in made} == {"architecture", "model", "report"}
    (line,) = lines
    assert line.startswith("WARNING: W&B does not have '") and "pixel1.json' as an input" in line
    assert "no attribute '_log_artifact'" in line and line.endswith("the run goes on")


class _Artifact:
    """Stands for one of W&B's; an upload takes ``answer``."""

    answer = threading.Event()

    def __init__(self, name: str, type: str, metadata: dict[str, Any]) -> None:
        self.name, self.type, self.files = name, type, []

    def add_file(self, path: str, **options: Any) -> None:
        self.files.append((path, options["policy"]))

    def wait(self) -> None:
        self.answer.wait(60)


def test_online_they_are_w_and_bs_own_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_of: Callable[[str], list[str]]
) -> None:
    """An upload that does not end is given up, and said."""
    lines = log_of(LOGGER)
    file = tmp_path / "pixel1.json"
    file.write_text("{}")
    calls: list[tuple[str, _Artifact]] = []

    def log_artifact(artifact: _Artifact) -> _Artifact:
        calls.append(("made", artifact))
        return artifact

    run = SimpleNamespace(
        use_artifact=lambda artifact: calls.append(("used", artifact)), log_artifact=log_artifact
    )
    artifacts = Artifacts(SimpleNamespace(Artifact=_Artifact), run, False, 1.0)
    table = Item("latency_table-pixel1", "latency_table", file)
    artifacts.used(table)
    _Artifact.answer.set()
    artifacts.made([table])
    assert [call for call, _ in calls] == ["used", "made"]
    for _, artifact in calls:
        assert (artifact.name, artifact.type) == ("latency_table-pixel1", "latency_table")
        assert artifact.files == [(str(file), "immutable")]
    assert lines == ["INFO: Uploading 1 artifacts of 0.0 MB to W&B"]
    _Artifact.answer.clear()
    monkeypatch.setattr(wandb_artifacts, "_SECONDS", 0.05)
    artifacts.made([table])
    _Artifact.answer.set()
    assert "as an output of this run (TimeoutError: no answer within" in lines[-1]
