"""Configurations are data: what is in them is never run, wherever they come from."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from detectron2.config import get_cfg
from detectron2.model_zoo import get_config_file

from backbones.errors import UserError
from backbones.paths import config_names, config_path
from detection.config import add_spnas_config
from detection.engine.config_file import merge_file
from detection.engine.plain_yaml import load_with_bases
from search.config import add_search_config

MARKER = "ran"
TAGS = {
    "os.system": '!!python/object/apply:os.system ["touch ran"]',
    "eval": "!!python/object/apply:eval [\"open('ran', 'w')\"]",
    "spelt out": '!<tag:yaml.org,2002:python/object/apply:os.system> ["touch ran"]',
    "new": '!!python/object/new:os.system ["touch ran"]',
    "name": "!!python/name:os.system",
    "module": "!!python/module:antigravity",
    "own": "!anything [1]",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """Of ``folder``, served by this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_tags_are_refused_by_name(folder: Path, tag: str) -> None:
    file = write(folder / "run.yaml", f"VERSION: 2\nOUTPUT_DIR: {tag}\n")
    with pytest.raises(UserError) as caught:
        merge_file(get_cfg(), file)
    message = str(caught.value)
    name = tag.split(" ")[0].strip("!<>").replace("tag:yaml.org,2002:", "")
    assert f"{name}' in line 2; a configuration is data" in message
    assert "run.yaml" in message
    assert "write plain values" in message
    assert "\n" not in message
    assert not (folder / MARKER).exists()


@pytest.mark.parametrize("base", ["bad.yaml", "../{here}/bad.yaml", "~/bad.yaml", "{folder}"])
@pytest.mark.parametrize("form", ["{}", "[good.yaml, {}]"])
def test_tags_in_bases(folder: Path, base: str, form: str) -> None:
    """Relative, of the home folder, absolute; alone and in lists; at the end of a chain."""
    write(folder / "bad.yaml", f"A:\n  B: {TAGS['os.system']}\n")
    write(folder / "good.yaml", "A: {B: 1}\n")
    base = base.format(here=folder.name, folder=folder / "bad.yaml")
    write(folder / "middle.yaml", f"_BASE_: {form.format(base)}\n")
    file = write(folder / "run.yaml", "_BASE_: middle.yaml\nA: {B: 2}\n")
    with pytest.raises(UserError, match=r"bad.yaml', the _BASE_ of '.*middle.yaml' has the tag"):
        merge_file(get_cfg(), file)
    assert not (folder / MARKER).exists()


def test_tags_in_remote_bases(folder: Path, address: str) -> None:
    """A chain of addresses, the second of them relative to the first."""
    write(folder / "far/bad.yaml", f"A: {TAGS['os.system']}\n")
    write(folder / "far/first.yaml", "_BASE_: bad.yaml\n")
    file = write(folder / "run.yaml", f"_BASE_: {address}/far/first.yaml\n")
    with pytest.raises(UserError, match=rf"{address}/far/bad.yaml', the _BASE_ of '{address}/far/"):
        merge_file(get_cfg(), file)
    assert not (folder / MARKER).exists()


def test_remote_bases(folder: Path, address: str) -> None:
    write(folder / "far/base.yaml", "SOLVER: {BASE_LR: 0.5, MAX_ITER: 3}\n")
    write(folder / "far/first.yaml", "_BASE_: base.yaml\nSOLVER: {MAX_ITER: 4}\n")
    file = write(folder / "run.yaml", f"_BASE_: {address}/far/first.yaml\nVERSION: 2\n")
    cfg = get_cfg()
    merge_file(cfg, file)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (0.5, 4)
    file.write_text(f"_BASE_: {address}/absent.yaml\n")
    with pytest.raises(UserError, match=r"cannot read .*absent.yaml', the _BASE_ of .*404"):
        merge_file(get_cfg(), file)
    write(folder / "far/loop.yaml", f"_BASE_: {address}/far/loop.yaml\n")
    file.write_text(f"_BASE_: {address}/far/loop.yaml\n")
    with pytest.raises(UserError, match="is its own _BASE_"):
        merge_file(get_cfg(), file)


def test_tuples_and_merge_keys_are_data(folder: Path) -> None:
    text = "BASE: &base {A: !!python/tuple [1, [2]]}\nC:\n  <<: *base\n  D: 2020-01-02\n"
    values = load_with_bases(str(write(folder / "run.yaml", "\N{BYTE ORDER MARK}" + text)))
    assert values["C"]["A"] == (1, [2])
    assert str(values["C"]["D"]) == "2020-01-02"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A: &a [*a]", "an anchor that holds itself in line 1"),
        ("A: &a {B: *a}", "an anchor that holds itself"),
        ("A: " + "[" * 5000, "nested too deeply"),
        ("A: " + "9" * 5000, "not valid YAML"),
        ("A: 2020-99-99", "not valid YAML"),
        ("A: !!python/tuple 3", "the tag '!!python/tuple' in line 1"),
        ("A: 1\n---\nA: 2", "not valid YAML"),
        ("A: \x00", "not valid YAML"),
        (
            "A0: &a0 [1]\n"
            + "".join(f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
            "repeats its anchors",
        ),
    ],
)
def test_files_that_would_hang_or_break(folder: Path, text: str, expected: str) -> None:
    file = write(folder / "run.yaml", text + "\n")
    with pytest.raises(UserError, match=expected) as caught:
        merge_file(get_cfg(), file)
    assert "\n" not in str(caught.value)


def test_a_value_that_becomes_a_section(folder: Path) -> None:
    write(folder / "base.yaml", "A: 1\n")
    file = write(folder / "run.yaml", "_BASE_: base.yaml\nA: {B: 2}\n")
    with pytest.raises(UserError, match="makes a section of 'A', which is a value in its base"):
        merge_file(get_cfg(), file)


ZOO = sorted(Path(get_config_file("Base-RCNN-FPN.yaml")).parent.rglob("*.yaml"))


@pytest.mark.parametrize("file", ZOO, ids=lambda path: str(path.relative_to(ZOO[0].parents[1])))
def test_the_model_zoo_is_as_detectron2_loads_it(file: Path) -> None:
    """Base-RetinaNet.yaml among them, whose anchors are an expression in Python."""
    ours, theirs = get_cfg(), get_cfg()
    merge_file(ours, file)
    theirs.merge_from_file(str(file))
    assert ours == theirs


@pytest.mark.parametrize(
    "file",
    [config_path(name) for name in config_names()],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_our_own_files_are_as_detectron2_loads_them(file: Path) -> None:
    ours, theirs = get_cfg(), get_cfg()
    for cfg in (ours, theirs):
        (add_spnas_config if file.parent.name == "detection" else add_search_config)(cfg)
    merge_file(ours, file)
    theirs.merge_from_file(str(file))
    assert ours == theirs


def test_an_old_version_is_upgraded(folder: Path) -> None:
    file = write(folder / "run.yaml", "VERSION: 1\nMODEL: {WEIGHT: old.pkl}\n")
    cfg = get_cfg()
    merge_file(cfg, file)
    assert cfg.MODEL.WEIGHTS == "old.pkl"
    assert get_cfg().VERSION == cfg.VERSION
