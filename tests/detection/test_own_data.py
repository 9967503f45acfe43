"""Data sets by path: what entries stand for, what they are called, and what follows from them."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from backbones import UserError
from backbones.files import read_json
from detection import add_spnas_config
from detection.data import own
from detection.data.checks import load_records
from detection.data.layouts import Source
from detection.data.resolve import resolve_data
from detection.engine.config_file import load_config
from detection.engine.metrics import read_metrics
from detection.trainer import DetectionTrainer
from tests.tiny_coco import BASE, CATEGORIES, ROOT, TINY_MODEL, draw

MASK_RCNN, RETINANET = "MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.RETINANET.NUM_CLASSES"


@pytest.fixture(autouse=True)
def own_catalog() -> Iterator[None]:
    """Takes out of Detectron2's catalog what a test put in."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        own._registered.pop(name, None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``photos/train.json`` with ``photos/train``, and the same for ``val``."""
    folder = tmp_path / "photos"
    for seed, split in enumerate(("train", "val")):
        (folder / split).mkdir(parents=True)
        (folder / f"{split}.json").write_text(json.dumps(draw(folder / split, seed)))
    return folder


def config(*opts: str, file: str = "") -> CfgNode:
    return load_config(
        argparse.Namespace(config_file=file, opts=list(opts), num_gpus=0), add_spnas_config
    )


def names(*opts: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    cfg, _ = resolve_data(config(*opts))
    return cfg.DATASETS.TRAIN, cfg.DATASETS.TEST


FORMS = ["{0}/train.json:{0}/train", "{0}/train.json", "{0}/train", "('{0}/train.json',)"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("relative", [True, False])
def test_all_forms_are_the_same_data(
    form: str, relative: bool, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    entry = form.format("photos" if relative else photos)
    cfg, notes = resolve_data(config("DATASETS.TRAIN", entry, "DATASETS.TEST", "tiny_val"))
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
    cfg, notes = resolve_data(config(*opts))
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
    before = config("DATA.ROOT", str(photos))
    resolve_data(before)
    assert before == config("DATA.ROOT", str(photos))


def test_an_evaluation_needs_no_training_images(photos: Path) -> None:
    cfg, _ = resolve_data(config("DATA.ROOT", str(photos), MASK_RCNN, "0"))
    (photos / "train.json").unlink()
    opts = ("DATASETS.TRAIN", str(photos / "train.json"), "DATASETS.TEST", str(photos / "val.json"))
    found, _ = resolve_data(config(*opts, MASK_RCNN, "0"), training=False)
    assert (found.DATASETS.TEST, found.MODEL.ROI_HEADS.NUM_CLASSES) == (("photos/val",), 3)
    assert resolve_data(cfg, training=False)[0] == cfg
    with pytest.raises(UserError, match="no such file or folder; did you mean"):
        resolve_data(config(*opts))


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
        resolve_data(config("DATA.SETS", "['train.json']", "DATASETS.TRAIN", "x"))
    with pytest.raises(UserError, match="DATA.SETS says twice what 'a' is"):
        resolve_data(config("DATA.SETS", "['a=b.json:c','a=d.json:c']", "DATASETS.TRAIN", "a"))
    unused = f"['a={photos}/train.json:{photos}/train', 'b={photos}/val.json:{photos}/val']"
    cfg, _ = resolve_data(config("DATA.SETS", unused, "DATASETS.TRAIN", "a"))
    assert [f"a={photos}/train.json:{photos}/train"] == cfg.DATA.SETS
    assert "b" not in DatasetCatalog.list()


def test_one_name_alone_in_a_file(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"VERSION: 2\nDATASETS:\n  TRAIN: {photos}/train\n  TEST: ('a', 'b')\n")
    cfg = config(file=str(file))
    assert (f"{photos}/train",) == cfg.DATASETS.TRAIN
    assert cfg.DATASETS.TEST == ("a", "b")


@pytest.mark.parametrize(
    ("architecture", "key"), [("GeneralizedRCNN", MASK_RCNN), ("RetinaNet", RETINANET)]
)
def test_classes_of_the_data(architecture: str, key: str, photos: Path) -> None:
    opts = ("MODEL.META_ARCHITECTURE", architecture, key, "0")
    cfg, notes = resolve_data(config("DATASETS.TRAIN", str(photos / "train"), *opts))
    assert notes[1:] == [f"{key} is 3, as in 'photos/train': box, disc, bar"]
    node = cfg.MODEL.RETINANET if key == RETINANET else cfg.MODEL.ROI_HEADS
    assert node.NUM_CLASSES == 3
    assert MetadataCatalog.get("photos/train").get("thing_classes") is None  # not loaded for it


def test_classes_of_registered_data(
    photos: Path, tiny_coco: Path, register: Callable[..., str]
) -> None:
    for name, count in [
        ("coco_2017_train", 80),
        ("digits_train", 10),
        ("tiny_train", len(CATEGORIES)),
        (register(photos / "val.json", photos / "val"), 3),
    ]:
        cfg, _ = resolve_data(config("DATASETS.TRAIN", name, MASK_RCNN, "0"))
        assert count == cfg.MODEL.ROI_HEADS.NUM_CLASSES
    DatasetCatalog.register("a_function", lambda: [])
    with pytest.raises(UserError, match="data set 'a_function' has no classes"):
        resolve_data(config("DATASETS.TRAIN", "a_function", MASK_RCNN, "0"))
    MetadataCatalog.get("a_function").thing_classes = ["one"]
    cfg, _ = resolve_data(config("DATASETS.TRAIN", "a_function", MASK_RCNN, "0"))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1


def test_another_number_of_classes_is_refused(photos: Path, tiny_cfg: CfgNode) -> None:
    tiny_cfg.DATASETS.TRAIN = (str(photos / "train"),)
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 4
    with pytest.raises(UserError, match=r"NUM_CLASSES is 4, but .*; set .*NUM_CLASSES 3"):
        DetectionTrainer(tiny_cfg)


def test_a_trainer_in_python(photos: Path, tiny_cfg: CfgNode) -> None:
    """A script of one's own names paths as well, and leaves the number to the data."""
    tiny_cfg.DATASETS.TRAIN = (str(photos / "train"),)
    tiny_cfg.DATASETS.TEST = (str(photos / "val.json"),)
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 0
    trainer = DetectionTrainer(tiny_cfg)
    assert trainer.cfg.DATASETS.TEST == ("photos/val",)
    assert trainer.model.roi_heads.num_classes == 3


def test_no_training_data_at_all() -> None:
    with pytest.raises(UserError, match="DATASETS.TRAIN is empty; .*DATA.ROOT photos"):
        resolve_data(config())


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        # five of the six images have an object
        ({"SOLVER.EPOCHS": "6", "SOLVER.IMS_PER_BATCH": "2"}, (15, (11, 14), 1)),
        ({"SOLVER.EPOCHS": "600", "SOLVER.IMS_PER_BATCH": "2"}, (1500, (1125, 1350), 100)),
        ({"SOLVER.EPOCHS": "6", "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "False"}, (2, (), 1)),
        ({"SOLVER.EPOCHS": "0.01"}, (1, (), 1)),
        ({"SOLVER.EPOCHS": "0"}, (2000, (1500, 1800), 100)),
    ],
)
def test_epochs(opts: dict[str, str], expected: tuple[object, ...], photos: Path) -> None:
    schedule = ("SOLVER.MAX_ITER", "2000", "SOLVER.STEPS", "(1500, 1800)")
    pairs = [item for pair in opts.items() for item in pair]
    data = ("DATASETS.TRAIN", str(photos / "train"), "SOLVER.WARMUP_ITERS", "100")
    cfg, _ = resolve_data(config(*data, *schedule, *pairs))
    node = cfg.SOLVER
    assert expected == (node.MAX_ITER, node.STEPS, node.WARMUP_ITERS)
    assert node.EPOCHS == 0


def test_epochs_of_other_data(tiny_coco: Path) -> None:
    cfg, notes = resolve_data(
        config("DATASETS.TRAIN", "('tiny_train', 'tiny_val')", "SOLVER.EPOCHS", "16")
    )
    assert cfg.SOLVER.MAX_ITER == 10
    assert notes[0].startswith("SOLVER.EPOCHS 16 on 10 images by 16: SOLVER.MAX_ITER 10")
    with pytest.raises(UserError, match="SOLVER.EPOCHS is -1; expected 0"):
        resolve_data(config("DATASETS.TRAIN", "tiny_train", "SOLVER.EPOCHS", "-1"))


def test_a_run_by_path(
    train_net: Callable[..., tuple[int, str]], photos: Path, tmp_path: Path
) -> None:
    """Trained, evaluated again from its own config.yaml, and resumed."""
    opts = ("DATA.ROOT", str(photos), MASK_RCNN, "0", "TEST.NUM_VISUALIZATIONS", "1")
    code, text = train_net(*opts)
    assert code == 0, text
    assert f"{MASK_RCNN} is 3, as in 'photos/train': box, disc, bar" in text
    assert "Training on photos/train: 5 images" in text
    folder = tmp_path / "run"
    assert list(read_json(folder / "results.json", "results")["detection"]["scores"]) == [
        "photos/val"
    ]
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["DATASETS"]["TRAIN"] == ["photos/train"]
    assert written["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 3
    assert written["DATA"] == {
        "ROOT": "",
        "SETS": [f"photos/{s}={photos}/{s}.json:{photos}/{s}" for s in ("train", "val")],
    }
    assert (folder / "inference/photos/val/coco_instances_results.json").is_file()
    weights = ("MODEL.WEIGHTS", str(folder / "model_final.pth"))
    two = ("DATASETS.TRAIN", "()", "DATASETS.TEST", f"('{photos}/val', '{photos}/train.json')")
    code, text = train_net("--eval-only", *two, MASK_RCNN, "0", *weights)
    assert code == 0, text
    scores = read_json(folder / "evaluation/results.json", "results")["detection"]["scores"]
    assert list(scores) == ["photos/val", "photos/train"]
    code, text = train_net("--resume", *opts, "SOLVER.MAX_ITER", "3", *two[2:])
    assert code == 0, text
    assert "Resuming at iteration 2 of 3" in text


def test_metrics_of_two_test_sets(
    train_net: Callable[..., tuple[int, str]], photos: Path, tmp_path: Path
) -> None:
    two = f"('{photos}/val', '{photos}/train.json:{photos}/train')"
    code, text = train_net("DATASETS.TEST", two, "SOLVER.MAX_ITER", "1")
    assert code == 0, text
    (row,) = [row for row in read_metrics(tmp_path / "run") if "photos/val/bbox/AP" in row]
    assert "photos/train/segm/APs" in row


def test_a_mistake_is_one_line(train_net: Callable[..., tuple[int, str]], photos: Path) -> None:
    (photos / "val.json").unlink()
    code, text = train_net("DATA.ROOT", str(photos))
    assert code == 2
    assert text.rstrip().splitlines()[-1].startswith("error: DATA.ROOT is '")
    assert "Traceback" not in text
    assert "no validation set" in text


def test_a_comparison_by_path(photos: Path, tmp_path: Path) -> None:
    """Its runs are processes of their own; a second call finds them finished."""
    content = json.loads((photos / "val.json").read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["area"] = (500, 5_000, 50_000)[number % 3]  # of all scales
    (photos / "val.json").write_text(json.dumps(content))
    command = [
        *(sys.executable, "tools/compare_backbones.py", "--config-file", str(BASE)),
        *("--architectures", "spnas_100", "--num-gpus", "0", "--output", str(tmp_path / "out")),
        *TINY_MODEL,
        *("DATA.ROOT", str(photos), MASK_RCNN, "0", "SOLVER.EPOCHS", "0.4", "SOLVER.STEPS", "()"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert "spnas_100" in done.stdout
    found = read_json(tmp_path / "out/spnas_100/seed0/results.json", "results")
    assert list(found["detection"]["scores"]) == ["photos/val"]
    command += ["SOLVER.EPOCHS", "0.8"]
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True)
    assert done.returncode == 2
    assert "SOLVER.MAX_ITER is 1, not 2" in done.stderr
