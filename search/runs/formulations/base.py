"""What a formulation of the search is, and what it sees of the training that it is a part of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

from detectron2.config import CfgNode
from torch import Tensor
from torch.utils.data import Subset

from backbones.blocks import NormLayer
from search.classification.data import ImageSet, build_train_loader
from search.runs.formulations.encodings import Encoding
from search.runs.found import decided
from search.runs.runtime_loss import log_decisions, runtime_loss
from search.selection.runtime import RuntimeModel
from search.selection.tradeoff import FixedTradeOff, TargetTradeOff
from search.space import Choice, SearchSpace
from search.supernets.one_shot import OneShot

Parts: TypeAlias = "tuple[Subset[Any], Subset[Any]]"
"""The training images for the weights, and those held out: for decisions, or to judge on."""


class Judge(Protocol):
    """How good the networks of a supernet are, with its weights, on images held out."""

    def fitness(self, choices: Sequence[Choice]) -> float:
        """Of a network with statistics of its own, on all of them; larger is better."""

    def loss(self, choices: Sequence[Choice]) -> float:
        """Of a network with statistics of its own, on as many as ``SEARCH.SENSITIVITY`` says.

        With ``SEARCH.REFIT_BATCHES``, layers that are not the reference's are fitted to those.
        """

    def exported_loss(self, choices: Sequence[Choice]) -> float:
        """As :meth:`loss`, with all layers fitted that are fitted in what is exported."""

    def blind_loss(self, choices: Sequence[Choice]) -> float:
        """As :meth:`loss`, where the images have each other's labels: a control."""

    def hold(self, choices: Sequence[Choice], layers: int) -> None:
        """Prepares for the losses of networks that share the first searchable layers of one."""

    def gate_gradients(self, choices: Sequence[Choice]) -> Tensor:
        """(L, G) of every layer: mean magnitude, over images, of the loss's gradient by indicators.

        The magnitude is taken for every image: at an optimum the mean gradient is 0.
        """


class Search(Protocol):
    """A search under way, on a classifier's or a detector's losses.

    Attributes:
        cfg: the configuration.
        space: the search space.
        runtime_model: of that space.
        tradeoff: sets λ.
        iter: the present iteration.
        finished: iterations that are done.
        reference: the choices of the network that the search started from, or of the largest one.
    """

    cfg: CfgNode
    space: SearchSpace
    runtime_model: RuntimeModel
    tradeoff: FixedTradeOff | TargetTradeOff
    iter: int
    finished: int
    reference: Sequence[Choice]

    @property
    def supernet(self) -> OneShot:
        """Of the space, or of the space with other widths."""

    @property
    def progress(self) -> float:
        """Part of the search that is done, from 0 to 1."""


class SupernetRun(Protocol):
    """What trains a supernet and ends with a network of it."""

    def resume_or_load(self, path: str, resume: bool) -> None:
        """Continues the run, or starts from the weights in ``path``."""

    def train(self) -> None:
        """Trains to the end."""

    def evaluate_only(self) -> None:
        """Judges the supernet as it is."""


@dataclass(frozen=True)
class Formulation(ABC):
    """A way to search.

    Attributes:
        summary: what it is, as the documentation says it.
        source: section and equations of the paper, or the paper that it is from.
        study_options: keys that a study of methods changes with it, and their values, in turns.
        kind: what it is called with others that are trained as it is.
        schedule: what is trained when, as the documentation says it.
    """

    summary: str
    source: str
    study_options: tuple[str, ...] = field(default=(), kw_only=True)
    kind: ClassVar[str]
    schedule: ClassVar[str]

    @property
    def on_detectors(self) -> bool:
        """Whether a search on a detector's losses can follow it.

        That one has supernet, step, losses and log from the formulation; its images and its
        gradients are those of any training of a detector.
        """
        return False

    @abstractmethod
    def run(
        self,
        cfg: CfgNode,
        on_supernet: Callable[[CfgNode], SupernetRun],
        resume: bool,
        eval_only: bool,
    ) -> None:
        """One search on classification images, which leaves its network in ``cfg.OUTPUT_DIR``.

        Args:
            cfg: the configuration.
            on_supernet: makes the run of a search that trains a supernet.
            resume: continue from the last checkpoint in ``cfg.OUTPUT_DIR``.
            eval_only: do not train; judge the supernet of ``MODEL.WEIGHTS``, or of the folder.

        Raises:
            UserError: for a mistake in the configuration.
        """


@dataclass(frozen=True)
class SupernetFormulation(Formulation):
    """Trains a supernet, and ends with a network of it.

    As it stands, decisions are trained with the runtime in the loss (Eq. 10), and the network is
    the one that they stand for.

    Attributes:
        encoding: the supernet, and how choices are encoded in it.
        trains_decisions: whether decisions get gradients; else they are frozen, since
            ``DistributedDataParallel`` waits for a gradient of all that trains.
    """

    encoding: Encoding
    trains_decisions: bool = field(default=True, kw_only=True)

    def run(
        self,
        cfg: CfgNode,
        on_supernet: Callable[[CfgNode], SupernetRun],
        resume: bool,
        eval_only: bool,
    ) -> None:
        """Trains the supernet, or judges it."""
        run = on_supernet(cfg)
        if eval_only:
            run.evaluate_only()
            return
        run.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        run.train()

    def check(self, search: Search) -> None:
        """Insists, before the first step, on a network at every target of the search.

        Raises:
            UserError: if there is none, or the configuration lacks what the formulation needs.
        """
        for target in targets(search.cfg):
            decided(search.cfg, search.runtime_model, search.supernet, target)

    def build_supernet(
        self,
        cfg: CfgNode,
        space: SearchSpace,
        num_classes: int,
        norm_layer: NormLayer | None = None,
    ) -> OneShot:
        """The supernet of a search.

        Args:
            cfg: the configuration.
            space: of the supernet's own widths.
            num_classes: outputs of the classifier.
            norm_layer: normalisation; batch norm by default.
        """
        supernet = self.encoding.build(cfg, space, num_classes, norm_layer)
        for parameter in supernet.decision_parameters():
            parameter.requires_grad_(self.trains_decisions)
        return supernet

    @abstractmethod
    def parts(self, cfg: CfgNode, images: ImageSet) -> Parts:
        """The training images as the search uses them.

        Raises:
            UserError: if a part has less than a batch.
        """

    def batches(self, cfg: CfgNode, parts: Parts, start_iter: int) -> Iterator[Any]:
        """Endless batches from iteration ``start_iter`` on: of the images for the weights."""
        return iter(build_train_loader(cfg, parts[0], start_iter))

    def step(self, search: Search) -> AbstractContextManager[None]:
        """The context of one step: what the supernet is in it."""
        return nullcontext()

    def losses(self, search: Search) -> dict[str, Tensor]:
        """Terms beside the training loss, after a forward pass: λ·log R (Eq. 10)."""
        term = runtime_loss(search.supernet, search.runtime_model, search.tradeoff, search.progress)
        return {"loss_runtime": term}

    def mask_gradients(self, search: Search) -> None:
        """Between gradients and update: drops the gradients of what is to stay."""

    def log(self, search: Search) -> None:
        """Puts the decisions of every layer beside the other metrics."""
        log_decisions(search.supernet, search.space)

    def has_network(self, complete: bool) -> bool:
        """Whether there is a network to judge: decisions stand for one at any time.

        Args:
            complete: the training is at its end.
        """
        return True

    def choose(self, search: Search, target: float, judge: Judge) -> list[Choice]:
        """The network that the search would end with now, one choice a searchable layer.

        Args:
            search: the search.
            target: runtime to select at; 0 takes the supernet's own decisions.
            judge: of networks.
        """
        return decided(search.cfg, search.runtime_model, search.supernet, target)


def targets(cfg: CfgNode) -> list[float]:
    """The runtimes to end at: ``SEARCH.TARGET``, where there is one, and ``SEARCH.FAMILY``."""
    return [target for target in (cfg.SEARCH.TARGET, *cfg.SEARCH.FAMILY) if target]
