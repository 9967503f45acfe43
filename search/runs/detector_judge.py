"""How good the networks of a detector's supernet are, by the detector's own losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads import ROIHeads
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.architecture import Architecture
from detection.checkpointing import backbone_prefix
from detection.engine.random_state import seeded
from detection.modeling.backbone import SPNASBackbone
from detection.trainer import DetectionTrainer
from search.classification.calibration import estimate_statistics
from search.runs.detector_backbone import backbone_in, fixed_backbone, image_tensors
from search.runs.judge import FittedLayers, SupernetJudge, mean, statistics_kept
from search.space import Choice
from search.start.refitting import Which, changed_layers, fit_layers, layer_rows, layers_to_fit
from search.supernets.single_path import Supernet


class DetectorJudge(SupernetJudge):
    """Judges by the sum of a detector's losses on training images.

    The detector has seen them; but so have all its networks, which share its weights. Anchors and
    proposals are drawn once for each image, those of the reference: every network drawing its own
    would hide the difference that one layer makes.

    Args:
        cfg: of the training loader; ``SEARCH.SENSITIVITY`` says how many images.
        detector: with the supernet in it.
        supernet: whose networks are judged.
        reference: the network whose proposals the heads are judged on.
    """

    def __init__(
        self, cfg: CfgNode, detector: Any, supernet: Supernet, reference: Sequence[Choice]
    ) -> None:
        super().__init__(supernet, cfg.SEED)
        self._cfg = cfg
        self._cut_out = partial(fixed_backbone, cfg, supernet)
        self._detector = detector
        self._reference = reference
        self._proposals: dict[str, list[Any]] = {}
        self._fitted = FittedLayers()  # in the network held

    def fitness(self, choices: Sequence[Choice]) -> float:
        """Less the loss."""
        return -self.loss(choices)

    def hold(self, choices: Sequence[Choice], layers: int) -> None:
        """Fits the changed layers of a network, for all that differ from it in one layer.

        No maps are kept: most of a detector's step is behind its backbone.
        """
        fits = bool(self._cfg.SEARCH.REFIT_BATCHES)
        if fits and (layers == 0 or self._fitted.around != tuple(choices)):
            self._fitted = FittedLayers()
            backbone = self._cut(choices, changed_layers)
            changed = changed_layers(backbone.architecture, self._start_rows[0])
            fitted = {index: backbone.layers[index] for index in changed}
            ahead = len(self.supernet.space.first)
            self._fitted = FittedLayers(tuple(choices), fitted, ahead)

    def loss(self, choices: Sequence[Choice]) -> float:
        """Sum of the losses, mean over images, of a network with statistics of its own.

        The layers that it has otherwise than the reference are fitted; those that it shares with
        the network held stay as they were fitted in that one.
        """
        return self._mean_loss(choices, self._images, "own objects")

    def exported_loss(self, choices: Sequence[Choice]) -> float:
        """As :meth:`loss`, with all layers fitted that are fitted in what is exported."""
        return self._mean_loss(choices, self._images, "own objects", layers_to_fit)

    def blind_loss(self, choices: Sequence[Choice]) -> float:
        """As :meth:`loss`, where every image has the objects of the one before."""
        images = [image for batch in self._images for image in batch]
        shifted = zip(images, [*images[-1:], *images[:-1]], strict=True)
        batches = [[{**image, "instances": other["instances"]}] for image, other in shifted]
        return self._mean_loss(choices, batches, "other objects")

    def _mean_loss(
        self,
        choices: Sequence[Choice],
        batches: list[Any],
        objects: str,
        which: Which = changed_layers,
    ) -> float:
        heads = getattr(self._detector, "roi_heads", None)
        if not isinstance(heads, ROIHeads):
            return mean(self._losses(choices, batches, which))
        if objects not in self._proposals:
            drawn: list[Any] = []
            with replaced(heads, _recording(heads.label_and_sample_proposals, drawn)):
                list(self._losses(self._reference, batches, which))
            self._proposals[objects] = drawn
        known = iter(self._proposals[objects])
        with replaced(heads, lambda proposals, targets: next(known)):
            return mean(self._losses(choices, batches, which))

    @torch.no_grad()
    def _losses(
        self, choices: Sequence[Choice], batches: list[Any], which: Which
    ) -> Iterator[float]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(statistics_kept(self._detector))
            stack.enter_context(EventStorage())
            stack.enter_context(exchanged(self._detector, self._cut(choices, which)))
            with seeded(self.seed):
                self.estimate()
            for batch in batches:
                with seeded(self.seed):
                    loss = float(self._loss(batch))
                yield loss

    def _cut(self, choices: Sequence[Choice], which: Which) -> SPNASBackbone:
        """A network as a backbone, of which the statistics are to be estimated."""
        backbone = self._cut_out(choices)
        if self._cfg.SEARCH.REFIT_BATCHES:
            start, rows = self._start_rows
            kept = self._fitted.shared_by(choices) if which is changed_layers else {}
            for index, layer in kept.items():
                backbone.layers[index] = layer
            wanted = which(backbone.architecture, start)
            fitted = [index for index in wanted if index not in kept]
            fit_layers(backbone, self._pixels, rows, fitted)
        return backbone

    @cached_property
    def _start_rows(self) -> tuple[Architecture, Mapping[int, Sequence[Tensor]]]:
        """The start, and what its layers are to compute in other networks."""
        start = self._cut_out(self._reference)
        return start.architecture, layer_rows(start, self._pixels)

    @cached_property
    def _pixels(self) -> list[Tensor]:
        """What backbones see of the training batches for the statistics."""
        return list(image_tensors(self._detector, self._statistics))

    def gate_gradients(self, choices: Sequence[Choice]) -> Tensor:
        """As of any supernet; the detector's own statistics stay as they are."""
        with statistics_kept(self._detector), EventStorage():
            return super().gate_gradients(choices)

    def estimate(self) -> None:
        """On training batches; afterwards losses are those of these statistics."""
        detector, count = self._detector.train(), len(self._statistics)
        backbone = detector.get_submodule("backbone")
        if _norms(detector) == _norms(backbone):  # then heads and losses need not be computed
            estimate_statistics(backbone, image_tensors(detector, self._statistics), count)
        else:
            estimate_statistics(detector, self._statistics, count)
        for module in _norms(detector):
            module.eval()

    def image_losses(self) -> Iterator[Tensor]:
        """Sums of the losses."""
        for batch in self._images:
            for image in batch:
                yield self._loss([image])

    def _loss(self, batch: list[dict[str, Any]]) -> Tensor:
        return torch.stack(list(self._detector(batch).values())).sum()

    @cached_property
    def _statistics(self) -> list[Any]:
        return self._drawn[: self._calibration]

    @cached_property
    def _images(self) -> list[Any]:
        return self._drawn[self._calibration :]

    @property
    def _calibration(self) -> int:
        """Batches of this process for the statistics."""
        cfg = self._cfg
        return int(cfg.SEARCH.SENSITIVITY.CALIBRATION_BATCHES * cfg.SOLVER.ACCUMULATE)

    @cached_property
    def _drawn(self) -> list[Any]:
        """Training batches for statistics and for losses, the same for every network."""
        node, solver = self._cfg.SEARCH.SENSITIVITY, self._cfg.SOLVER
        steps = node.CALIBRATION_BATCHES + -(-node.IMAGES // solver.IMS_PER_BATCH)
        with seeded(self.seed):
            loader = DetectionTrainer.build_train_loader(self._cfg)
            return list(islice(loader, steps * solver.ACCUMULATE))


@contextlib.contextmanager
def exchanged(detector: nn.Module, backbone: SPNASBackbone) -> Iterator[None]:
    """The detector with another backbone in the place of its own, in the same mode."""
    path, own = str(backbone_prefix(detector))[:-1], backbone_in(detector)
    parent, _, name = path.rpartition(".")
    backbone.train(own.training)
    setattr(detector.get_submodule(parent), name, backbone)
    try:
        yield
    finally:
        setattr(detector.get_submodule(parent), name, own)


@contextlib.contextmanager
def replaced(heads: ROIHeads, sample: Callable[..., Any]) -> Iterator[None]:
    """Draws the proposals that the heads learn from by another function."""
    before = heads.label_and_sample_proposals
    heads.label_and_sample_proposals = sample
    try:
        yield
    finally:
        heads.label_and_sample_proposals = before


def _norms(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, _BatchNorm)]


def _recording(sample: Callable[..., Any], drawn: list[Any]) -> Callable[..., Any]:
    def draw(proposals: Any, targets: Any) -> Any:
        drawn.append(sample(proposals, targets))
        return drawn[-1]

    return draw
