"""A configuration with everything that the data decide: names, classes, iterations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from backbones.errors import UserError, first_of
from detection.data.checks import PATH_FORM, check_registered
from detection.data.headers import read_header
from detection.data.layouts import Source, splits_of
from detection.data.own import OwnSet, parse_entry, parse_named, register, with_names
from detection.modeling.meta_arch import num_classes_key

_CLASS_SECTIONS = ("ROI_HEADS", "RETINANET")


def resolve_data(cfg: CfgNode, training: bool = True) -> tuple[CfgNode, list[str]]:
    """Settles what a detector's configuration leaves to the data; every process calls it.

    - ``DATA.ROOT``, and paths in ``DATASETS.TRAIN`` and ``DATASETS.TEST``, become short names;
      ``DATA.SETS`` says what they stand for, and Detectron2 knows them from now on.
    - ``NUM_CLASSES`` 0 becomes the number of classes of the data.
    - ``SOLVER.EPOCHS`` becomes ``SOLVER.MAX_ITER``, with the schedule scaled along.

    What comes out stays as it is when it is resolved again, and so does a run's ``config.yaml``.

    Args:
        cfg: with `detection.config.add_spnas_config`; it is left as it is.
        training: settle what only a training needs, and insist on its data.

    Returns:
        The frozen configuration, and a line for each thing that was settled, for the log.

    Raises:
        UserError: if there is no such data, or it is not clear which is meant.
    """
    cfg = cfg.clone()
    cfg.defrost()
    notes = [*_use_root(cfg, training), *_use_paths(cfg, training), *_use_class_count(cfg)]
    if training and not cfg.DATASETS.TRAIN:
        raise UserError(f"DATASETS.TRAIN is empty; name your data by {PATH_FORM}")
    if training:
        notes += _use_epochs(cfg)
    cfg.freeze()
    return cfg, notes


def _use_root(cfg: CfgNode, training: bool) -> list[str]:
    root = cfg.DATA.ROOT
    if not root:
        return []
    train, held_out, note = splits_of(Path(root).expanduser(), training)
    cfg.DATASETS.TRAIN = (str(train),) if train else ()
    cfg.DATASETS.TEST = (str(held_out),)
    cfg.DATA.ROOT = ""
    return [f"DATA.ROOT is '{root}'{note}"]


def _use_paths(cfg: CfgNode, training: bool) -> list[str]:
    """Puts names in the place of paths."""
    named = parse_named(cfg.DATA.SETS)
    entries = {key: list(cfg.DATASETS[key]) for key in ("TRAIN", "TEST")}
    found: dict[tuple[str, str], OwnSet] = {}
    for key, names in entries.items():
        for entry in names:
            own = _parsed(entry, key, named, optional=key == "TRAIN" and not training)
            if own:
                found[key, entry] = own
    sources = with_names(list(found.values()))
    for name, source in sources.items():
        register(name, source)
    notes = []
    for key, names in entries.items():
        short = [
            _name_of(found[key, entry].source, sources) if (key, entry) in found else entry
            for entry in names
        ]
        notes += [
            f"DATASETS.{key}: '{new}' is {sources[new]}"
            for new, old in zip(short, names, strict=True)
            if (key, old) in found and old not in named
        ]
        if key == "TEST" and not cfg.MODEL.LOAD_PROPOSALS:  # results are by name
            short = list(dict.fromkeys(short))
        if short != names:
            cfg.DATASETS[key] = tuple(short)
    cfg.DATA.SETS = [f"{name}={source}" for name, source in sources.items()]
    return notes


def _parsed(entry: str, key: str, named: dict[str, Source], optional: bool) -> OwnSet | None:
    try:
        return parse_entry(entry, f"DATASETS.{key}", named)
    except UserError:
        if optional:  # an evaluation needs no training images
            return None
        raise


def _name_of(source: Source, sources: dict[str, Source]) -> str:
    return next(name for name, there in sources.items() if there.resolved() == source.resolved())


def _use_class_count(cfg: CfgNode) -> list[str]:
    zero = [section for section in _CLASS_SECTIONS if cfg.MODEL[section].NUM_CLASSES == 0]
    key = num_classes_key(cfg) if zero else None
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if key is None or key.split(".")[1] not in zero or not names:
        return []
    name, classes = _first_with_classes(names)
    for section in zero:
        cfg.MODEL[section].NUM_CLASSES = len(classes)
    return [f"{key} is {len(classes)}, as in '{name}': {first_of(classes)}"]


def _first_with_classes(names: Sequence[str]) -> tuple[str, list[str]]:
    """The classes of the first data set that is there; in an evaluation the others may not be."""
    problems = []
    for name in names:
        try:
            return name, _classes(name)
        except UserError as error:
            problems.append(error)
    raise problems[0]


def _classes(name: str) -> list[str]:
    check_registered(name)
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None and metadata.get("json_file"):
        classes = list(read_header(_json_file(name)).classes)
    else:
        if metadata.get("thing_classes") is None:
            DatasetCatalog.get(name)
        classes = [str(title) for title in metadata.get("thing_classes") or ()]
    if not classes:
        raise UserError(
            f"NUM_CLASSES is 0, which takes the number from the data, but data set '{name}' has no "
            "classes; name them in its categories, or set the number"
        )
    return classes


def _json_file(name: str) -> Path:
    return Path(PathManager.get_local_path(MetadataCatalog.get(name).json_file))


def _use_epochs(cfg: CfgNode) -> list[str]:
    """Iterations from epochs; the steps of the schedule keep their places in it."""
    epochs, before = cfg.SOLVER.EPOCHS, cfg.SOLVER.MAX_ITER
    if epochs < 0:
        raise UserError(
            f"SOLVER.EPOCHS is {epochs:g}; expected 0, which leaves SOLVER.MAX_ITER as it is, or "
            "a number of passes over the training images"
        )
    if not epochs or not cfg.DATASETS.TRAIN or cfg.SOLVER.IMS_PER_BATCH < 1:
        return []
    images = sum(_training_images(cfg, name) for name in cfg.DATASETS.TRAIN)
    batch = cfg.SOLVER.IMS_PER_BATCH
    iterations = max(1, round(epochs * images / batch))
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.EPOCHS = iterations, 0.0
    steps = tuple(round(step * iterations / before) for step in cfg.SOLVER.STEPS if before > 0)
    cfg.SOLVER.STEPS = tuple(step for step in dict.fromkeys(steps) if 0 < step < iterations)
    schedule = f", SOLVER.STEPS {cfg.SOLVER.STEPS}" if steps else ""
    longest = max(1, iterations // 10)
    if longest < cfg.SOLVER.WARMUP_ITERS:
        cfg.SOLVER.WARMUP_ITERS = longest
        schedule += f", SOLVER.WARMUP_ITERS {longest}, a tenth"
    return [
        f"SOLVER.EPOCHS {epochs:g} on {images} images by {batch}: SOLVER.MAX_ITER {iterations}"
        f"{schedule}"
    ]


def _training_images(cfg: CfgNode, name: str) -> int:
    check_registered(name)
    json_file = MetadataCatalog.get(name).get("json_file")
    if json_file is None or not os.path.isfile(json_file):
        return len(DatasetCatalog.get(name))
    header = read_header(_json_file(name))
    return header.with_objects if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS else header.images
