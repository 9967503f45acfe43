"""What a model card states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["backbone", "classifier", "detector"]


PLACEHOLDER = "USER/NAME"
"""Stands for a repository that is not known, in :attr:`Facts.repository` and in how to use it."""


@dataclass(frozen=True)
class Score:
    """How good a model was found on a data set.

    Attributes:
        task: as the hub calls it, e.g. ``image-classification``.
        dataset: that it was judged on.
        metric: e.g. ``top-1`` or ``box AP, small objects``.
        value: in percent.
        metric_type: as the hub calls it: ``accuracy`` or ``map``.
    """

    task: str
    dataset: str
    metric: str
    value: float
    metric_type: str


@dataclass(frozen=True)
class Runtime:
    """A runtime of a model.

    Attributes:
        what: ``target``, ``predicted``, ``measured``, ….
        value: in ``unit``.
        unit: usually ``ms``.
        where: the latency table and its device, or engine and device that were measured.
        of: what of the model at which image size; empty where it is not known.
    """

    what: str
    value: float
    unit: str
    where: str
    of: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of a model, apart from its weights and its architecture.

    Attributes:
        name: of the model.
        kind: what it is.
        license: of the weights, as the hub writes it (``apache-2.0``).
        datasets: that it was trained on.
        summary: of the figures that have no table of their own, by what they are.
        scores: on held-out images.
        runtimes: target, predicted and measured.
        recipe: the settings of its training that matter most, by key.
        source: what it came from, in sentences.
        repository: ``USER/NAME`` on the hub, where it has one.
    """

    name: str
    kind: Kind
    license: str = "apache-2.0"
    datasets: tuple[str, ...] = ()
    summary: Mapping[str, str] = field(default_factory=dict)
    scores: tuple[Score, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    recipe: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    repository: str = PLACEHOLDER
