"""Everything that can be said of the data sets of a configuration, for ``tools/check_data.py``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from backbones.errors import UserError
from detection.data.annotations.anchors import (
    configured_anchors,
    input_boxes,
    proposed_anchors,
    proposed_size,
)
from detection.data.annotations.file import AnnotationFile, read_annotations, reading_once
from detection.data.annotations.kinds import MOST
from detection.data.annotations.masks import MaskKind
from detection.data.annotations.overview import classes_table, facts_table
from detection.data.annotations.records import Record, file_of
from detection.data.annotations.structure import class_findings, classes_in
from detection.data.checks import (
    annotation_findings,
    check_any_object,
    check_class_count,
    check_registered,
    image_files,
    load_records,
)
from detection.data.findings import Finding, report
from detection.data.image_checks import check_image_files
from detection.modeling.meta_arch import num_classes, num_classes_key, wants_masks


@dataclass(frozen=True)
class Inspection:
    """What was found in the data sets of a configuration.

    Attributes:
        train: names of the training sets.
        files: annotations of every data set, by its name.
        findings: what is wrong or odd, by data set.
        problems: what a run refuses a data set for, apart from what is counted in it.
    """

    train: tuple[str, ...]
    files: Mapping[str, AnnotationFile]
    findings: Mapping[str, Sequence[Finding]]
    problems: Mapping[str, Sequence[UserError]]

    @property
    def train_files(self) -> list[AnnotationFile]:
        """Annotations of the training sets."""
        return [self.files[name] for name in self.train]

    def check(self, cfg: CfgNode) -> None:
        """Refuses data that a run would refuse.

        Args:
            cfg: the configuration that they are of.

        Raises:
            UserError: for the first error.
        """
        for name, findings in self.findings.items():
            report([found for found in findings if found.severity == "error"], name)
            for problem in self.problems[name]:
                raise problem
        if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and self.train:
            check_any_object(self.train, _objects(self.train_files))


def inspect(cfg: CfgNode, say: Callable[[str], object]) -> None:
    """Says what the data sets are, what is odd or wrong, and which keys fit them.

    Args:
        cfg: the whole configuration.
        say: is called with every part of the text.

    Raises:
        UserError: for the first error, after all is said.
    """
    with reading_once():
        found = look_at(cfg)
        say(facts_table(found.files))
        say(classes_table(found.files))
        for name in found.files:
            say(_listed(name, found.problems[name], found.findings[name]))
        if found.train:
            say(proposals(cfg, found.train_files, list(found.files.values())))
    found.check(cfg)


def look_at(cfg: CfgNode) -> Inspection:
    """Looks at all that can be found of the data sets of a configuration.

    Args:
        cfg: the whole configuration.

    Raises:
        UserError: if none is named, or one cannot be read at all.
    """
    train, test = list(cfg.DATASETS.TRAIN), list(cfg.DATASETS.TEST)
    names = list(dict.fromkeys([*train, *test]))
    if not names:
        raise UserError("DATASETS.TRAIN and DATASETS.TEST are empty; name your data sets")
    with reading_once():
        refused: dict[str, UserError] = {}
        loaded = {name: _load(name, refused) for name in names}
        files = {name: file for name, (file, _) in loaded.items()}
        findings = {
            name: _distinct(
                found
                for training, group in ((True, train), (False, test))
                if name in group
                for found in annotation_findings(cfg, file, training)
            )
            for name, file in files.items()
        }
        first = names[0]
        for name in names[1:]:
            ours, theirs = (classes_in(files[n]) for n in (name, first))
            findings[name] += class_findings(ours, theirs, first)
        for name, (_, records) in loaded.items():
            findings[name] += check_image_files(*image_files(records))
        problems = {name: _problems(cfg, name, refused) for name in names}
    return Inspection(tuple(train), files, findings, problems)


def _load(name: str, refused: dict[str, UserError]) -> tuple[AnnotationFile, list[Record]]:
    """The annotations of a data set, also of one that a run would refuse; its images if not."""
    check_registered(name)
    try:
        records = load_records(name)
        return file_of(name, records), records
    except UserError as error:
        path = MetadataCatalog.get(name).get("json_file")
        try:
            file = read_annotations(path) if path else None
        except (UserError, OSError):
            file = None
        if file is None or not file.images:
            raise
        refused[name] = error
        return file, []


def _problems(cfg: CfgNode, name: str, refused: Mapping[str, UserError]) -> list[UserError]:
    """What a run refuses a data set for, apart from what is counted in it."""
    problems = [refused[name]] if name in refused else []
    try:
        check_class_count(cfg, name)
    except UserError as error:
        problems.append(error)
    return problems


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


def _listed(name: str, problems: Sequence[UserError], findings: Sequence[Finding]) -> str:
    lines = [f"- {found.severity}: {found}" for found in findings]
    known = {str(found) for found in findings}
    for problem in problems:
        text = str(problem).removeprefix(f"data set '{name}': ")
        if text not in known:
            lines.append(f"- error: {text}")
    return "\n".join([f"{name}:", *(lines or ["- nothing is odd"])])


def proposals(
    cfg: CfgNode, train: Sequence[AnnotationFile], every: Sequence[AnnotationFile]
) -> str:
    """Keys and values that fit the data, ready to be pasted behind a command.

    Args:
        cfg: the whole configuration, to start from.
        train: training sets, whose objects decide.
        every: all data sets.
    """
    size = proposed_size(train)
    if size is None:
        return "No keys are proposed: the training set has no object with a box."
    pairs = {**size.pairs(), **other_pairs(cfg, train, every)}
    said = [f"Proposed for {_objects(train):,} objects of the training set:"]
    boxes = input_boxes(train, size)
    anchors, ours = proposed_anchors(cfg, boxes), configured_anchors(cfg, boxes)
    if anchors is not None and ours is not None:
        pairs |= anchors.pairs()
        said.append(
            f"With these anchors an object and the best anchor overlap by {anchors.overlap:.2f} on "
            f"average, {ours.overlap:.2f} with the configuration's own."
        )
    return "\n\n".join([said[0], _pasted(pairs), *said[1:]])


def other_pairs(
    cfg: CfgNode, train: Sequence[AnnotationFile], every: Sequence[AnnotationFile]
) -> dict[str, object]:
    """Keys for classes, masks and detections, where the configuration's do not fit.

    Args:
        cfg: the whole configuration.
        train: training sets.
        every: all data sets.
    """
    pairs: dict[str, object] = {}
    key, classes = num_classes_key(cfg), len(train[0].categories)
    if key is not None and num_classes(cfg) not in (0, classes):
        pairs[key] = classes
    most = max(_most_objects(file) for file in every)
    if most > cfg.TEST.DETECTIONS_PER_IMAGE:
        pairs["TEST.DETECTIONS_PER_IMAGE"] = most
    if wants_masks(cfg):
        kinds = np.concatenate([file.columns.masks.kind[file.columns.objects] for file in train])
        encoded = np.isin(kinds, [MaskKind.RLE, MaskKind.COUNTS])
        if encoded.size and encoded.mean() >= MOST and cfg.INPUT.MASK_FORMAT != "bitmask":
            pairs["INPUT.MASK_FORMAT"] = "bitmask"
        if encoded.size and (kinds > MaskKind.COUNTS).all():
            pairs["MODEL.MASK_ON"] = False
    return pairs


def _objects(files: Sequence[AnnotationFile]) -> int:
    return sum(int(np.count_nonzero(file.columns.objects)) for file in files)


def _most_objects(file: AnnotationFile) -> int:
    images = file.columns.image[file.columns.objects]
    return int(np.bincount(images).max(initial=0))


def _pasted(pairs: Mapping[str, object]) -> str:
    return " \\\n".join(f"    {key} {shlex.quote(str(value))}" for key, value in pairs.items())
