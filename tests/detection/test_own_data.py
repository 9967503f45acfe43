"""Data sets by path: what entries stand for, what they are called, and what follows from them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from detectron2.data import DatasetCatalog

from backbones import UserError
from detection.data import own
from detection.data.checks import load_records
from detection.data.layouts import Source
from detection.data.resolve import resolve_data
from tests.tiny_coco import ROOT, own_config

MASK_RCNN = "MODEL.ROI_HEADS.NUM_CLASSES"


def names(*opts: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    cfg, _ = resolve_data(own_config(*opts))
    return cfg.DATASETS.TRAIN, cfg.DATASETS.TEST


FORMS = ["{0}/train.json:{0}/train", "{0}/train.json", "{0}/train", "('{0}/train.json',)"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("relative", [True, False])
def test_all_forms_are_the_same_data(
    form: str, relative: bool, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    entry = form.format("photos" if relative else photos)
    cfg, notes = resolve_data(own_config("DATASETS.TRAIN", entry, "DATASETS.TEST", "tiny_val"))
    assert cfg.DATASETS.TRAIN == ("photos/train",)
    assert cfg.DATASETS.TEST == ("tiny_val",)
    assert [record["image_id"] for record in load_records("photos/train")] == [*range(100, 106)]
    assert Source(*cfg.DATA.SETS[0].partition("=")[2].split(":")).resolved() == (
        photos / "train.json",
        photos / "train",
    )
    assert cfg.DATA.SETS[0].startswith("photos/train=photos/" if relative else "photos/train=/")
    assert [note.partition(" is ")[0] for note in notes] == ["DATASETS.TRAIN: 'photos/train'"]


def test_resolved_is_resolved(photos: Path, tmp_path: Path) -> None:
    """A run's config.yaml says the same again, here and in a process that knows no names yet."""
    opts = ("DATA.ROOT", str(photos), MASK_RCNN, "0", "SOLVER.EPOCHS", "3")
    cfg, notes = resolve_data(own_config(*opts))
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("photos/train",), ("photos/val",))
    assert (cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.SOLVER.EPOCHS, cfg.DATA.ROOT) == (3, 0.0, "")
    assert len(notes) == 5
    again, nothing = resolve_data(cfg)
    assert (again, nothing) == (cfg, [])
    file = tmp_path / "config.yaml"
    file.write_text(cfg.dump())
    code = (
        "import argparse, sys\n"
        "from detection import add_spnas_config\n"
        "from detection.data.checks import load_records\n"
        "from detection.data.resolve import resolve_data\n"
        "from detection.engine.config_file import load_config\n"
        "args = argparse.Namespace(config_file=sys.argv[1], opts=[], num_gpus=0)\n"
        "cfg, notes = resolve_data(load_config(args, add_spnas_config))\n"
        "print(cfg.dump())\n"
        "assert notes == []\n"
        "assert [len(load_records(name)) for name in cfg.DATASETS.TRAIN] == [6]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == yaml.safe_load(cfg.dump())


def test_what_a_configuration_is_given_stays(photos: Path) -> None:
    before = own_config("DATA.ROOT", str(photos))
    resolve_data(before)
    assert before == own_config("DATA.ROOT", str(photos))


def test_an_evaluation_needs_no_training_images(photos: Path) -> None:
    cfg, _ = resolve_data(own_config("DATA.ROOT", str(photos), MASK_RCNN, "0"))
    (photos / "train.json").unlink()
    opts = ("DATASETS.TRAIN", str(photos / "train.json"), "DATASETS.TEST", str(photos / "val.json"))
    found, _ = resolve_data(own_config(*opts, MASK_RCNN, "0"), training=False)
    assert (found.DATASETS.TEST, found.MODEL.ROI_HEADS.NUM_CLASSES) == (("photos/val",), 3)
    assert resolve_data(cfg, training=False)[0] == cfg
    with pytest.raises(UserError, match="no such file or folder; did you mean"):
        resolve_data(own_config(*opts))


def test_names_are_short_and_apart(photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "photos"
    other.parent.mkdir()
    subprocess.run(["cp", "-r", str(photos), str(other)], check=True)
    two = f"('{photos}/train.json', '{other}/train.json', '{photos}/train')"
    train, test = names("DATASETS.TRAIN", two, "DATASETS.TEST", f"('{photos}/train','{other}/val')")
    assert train == ("photos/train", "other/photos/train", "photos/train")
    assert test == ("photos/train", "photos/val")
    # the same in another order, where both names are known by now
    assert names("DATASETS.TRAIN", str(other / "train.json"))[0] == ("other/photos/train",)
    # one file with two folders of images
    both = f"('{photos}/val.json:{photos}/val', '{photos}/val.json:{photos}/train')"
    assert names("DATASETS.TRAIN", both)[0] != names("DATASETS.TRAIN", both)[0][::-1]


@pytest.mark.parametrize(
    ("json_file", "expected"),
    [
        ("photos/annotations/instances_train2017.json", "photos/train2017"),
        ("photos/train/_annotations.coco.json", "photos/train"),
        ("photos/train/annotations/instances_default.json", "train/default"),
        ("photos/batch 1/result.json", "photos/batch_1"),
        ("photos/train_annotations.json", "photos/train"),
        ("photos/a=b:c.json", "photos/a_b_c"),
    ],
)
def test_names_of_paths(json_file: str, expected: str, tmp_path: Path) -> None:
    source = Source(str(tmp_path / json_file), str(tmp_path))
    assert list(own.with_names([own.OwnSet(source)])) == [expected]


def test_a_link_keeps_its_own_name(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(photos)
    assert names("DATASETS.TRAIN", str(tmp_path / "mine" / "train.json"))[0] == ("mine/train",)


def test_a_name_of_ones_own(photos: Path, tiny_coco: Path) -> None:
    entry = f"parts={photos}/train.json:{photos}/train"
    assert names("DATASETS.TRAIN", entry)[0] == ("parts",)
    assert names("DATASETS.TRAIN", entry, "DATASETS.TEST", "parts") == (("parts",), ("parts",))
    with pytest.raises(UserError, match=r"'parts' names two data sets, '.*' and '.*'; name one"):
        names("DATASETS.TRAIN", entry, "DATASETS.TEST", f"parts={photos}/val.json")
    with pytest.raises(UserError, match=r"'parts' is registered already, .* another name: NAME="):
        names("DATASETS.TRAIN", f"parts={photos}/val.json")
    with pytest.raises(UserError, match="'tiny_val' is registered already"):
        names("DATASETS.TRAIN", f"tiny_val={photos}/val.json")
    with pytest.raises(UserError, match=r"expected NAME=.*letters"):
        names("DATASETS.TRAIN", f"../up={photos}/val.json")


def test_registering_again(photos: Path, register: Callable[..., str]) -> None:
    """By path what is known by name is one more name; what is known by path stays one."""
    passing = register(photos / "train.json", photos / "train")
    assert names("DATASETS.TRAIN", passing)[0] == (passing,)
    for _ in range(2):
        found = names("DATASETS.TRAIN", str(photos / "train"), "DATASETS.TEST", passing)
        assert found == (("photos/train",), (passing,))
    assert len(load_records("photos/train")) == len(load_records(passing))


def test_a_registered_name_comes_before_a_folder(
    photos: Path, tiny_coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos / "train").rename(photos.parent / "tiny_train")
    (photos / "train.json").rename(photos.parent / "tiny_train.json")
    assert names("DATASETS.TRAIN", "tiny_train")[0] == ("tiny_train",)
    assert names("DATASETS.TRAIN", "./tiny_train")[0] == (f"{photos.parent.name}/tiny_train",)


MISTAKES = [
    ("{0}/trian.json", r"no such file or folder; did you mean '\S+/train.json'\?"),
    ("{0}/train.json:{0}/trian", r"no image folder '\S+/trian'; did you mean '\S+/train'\?"),
    ("{0}/trian.json:{0}/train", r"no annotation file '\S+/trian.json'; did you mean"),
    ("{0}/train:{0}/train.json", r"comes first: \S+/train.json:\S+/train$"),
    ("nowhere/at/all", r"expected annotation file:image folder, such as photos/train.json"),
    ("{0}", r"has the splits train, val; name one of them, or the whole folder: DATA.ROOT \S+$"),
    ("{0}/train/0.jpg", "is not valid COCO JSON"),
    (r"C:\photos\train.json:C:\photos\train", r"no annotation file 'C:\\photos\\train.json'"),
]


@pytest.mark.parametrize(("entry", "expected"), MISTAKES)
def test_mistakes_in_an_entry(entry: str, expected: str, photos: Path) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        names("DATASETS.TRAIN", entry.format(photos))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.json:b", ("a.json", "b")),
        (r"C:\a\b.json:C:\a", (r"C:\a\b.json", r"C:\a")),
        ("C:/a/b.json:D:/a", ("C:/a/b.json", "D:/a")),
        (r"a\b.json:D:\a", (r"a\b.json", r"D:\a")),
        ("a/b.json:/abs", ("a/b.json", "/abs")),
        (r"C:\a\b.json", None),
        ("s3://bucket/b.json", None),
        ("a.json:", None),
    ],
)
def test_drive_letters(text: str, expected: tuple[str, str] | None) -> None:
    assert own._halves(text) == expected


def test_sets_of_a_configuration(photos: Path) -> None:
    with pytest.raises(UserError, match="DATA.SETS holds 'train.json'; expected NAME="):
        resolve_data(own_config("DATA.SETS", "['train.json']", "DATASETS.TRAIN", "x"))
    with pytest.raises(UserError, match="DATA.SETS says twice what 'a' is"):
        resolve_data(own_config("DATA.SETS", "['a=b.json:c','a=d.json:c']", "DATASETS.TRAIN", "a"))
    unused = f"['a={photos}/train.json:{photos}/train', 'b={photos}/val.json:{photos}/val']"
    cfg, _ = resolve_data(own_config("DATA.SETS", unused, "DATASETS.TRAIN", "a"))
    assert [f"a={photos}/train.json:{photos}/train"] == cfg.DATA.SETS
    assert "b" not in DatasetCatalog.list()


def test_one_name_alone_in_a_file(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"VERSION: 2\nDATASETS:\n  TRAIN: {photos}/train\n  TEST: ('a', 'b')\n")
    cfg = own_config(file=str(file))
    assert (f"{photos}/train",) == cfg.DATASETS.TRAIN
    assert cfg.DATASETS.TEST == ("a", "b")
