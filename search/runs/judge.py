"""How good the networks of a supernet are, with its weights, on images held out."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn
from torch.utils.data import Subset

from backbones.architecture import Architecture
from backbones.network import Classifier
from detection.engine.random_state import seeded
from search.classification.calibration import calibration_batches, estimate_statistics
from search.classification.data import build_val_loader, images_per_pass
from search.classification.pixels import expected_images, normalised
from search.runs.found import FoundNetworks
from search.runs.prefix import Normalise, Prefix, Wanted
from search.space import Choice
from search.start.refitting import Which, changed_layers, layer_rows, layers_to_fit
from search.supernets.one_shot import OneShot
from search.supernets.single_path import Supernet

_ON_GPU = 512
"""Images at a time: with few, a GPU would wait for the launch of every operation."""

_AHEAD = 2
"""Modules ahead of a network's layers: normalisation and stem."""


@dataclass(frozen=True)
class FittedLayers:
    """Layers that were fitted in one network, for others that share their choices.

    Attributes:
        around: the choices of that network.
        modules: the layers, by index.
        ahead: how many indices are before those of the searchable layers.
    """

    around: tuple[Choice, ...] = ()
    modules: Mapping[int, nn.Module] = field(default_factory=dict)
    ahead: int = 0

    def shared_by(self, choices: Sequence[Choice]) -> dict[int, nn.Module]:
        """Those that a network has as well."""
        return {
            index: module
            for index, module in self.modules.items()
            if choices[index - self.ahead] == self.around[index - self.ahead]
        }


class SupernetJudge(ABC):
    """Gradients by indicators, of a classifier's or a detector's loss.

    Args:
        supernet: whose networks are judged.
        seed: of augmentation, and of what a loss draws: the same for every network.
    """

    def __init__(self, supernet: OneShot, seed: int) -> None:
        self.supernet = supernet
        self.seed = seed

    @abstractmethod
    def estimate(self) -> None:
        """Estimates the statistics of the network that the supernet runs as."""

    @abstractmethod
    def image_losses(self) -> Iterator[Tensor]:
        """The loss of one image of this process after the other, for that network."""

    def gate_gradients(self, choices: Sequence[Choice]) -> Tensor:
        """(L, G) of every layer: mean magnitude, over images, of the loss's gradient by indicators.

        The magnitude is taken for every image: at an optimum the mean gradient is 0.
        """
        assert isinstance(self.supernet, Supernet)
        total, count = torch.zeros_like(self.supernet.thresholds.values), 0
        with statistics_kept(self.supernet), seeded(self.seed):
            with self.supernet.using(choices):
                self.estimate()
            with self.supernet.gated(choices) as gates:
                for loss in self.image_losses():
                    # all images share the part of the graph that makes decisions of indicators
                    total += torch.autograd.grad(loss, gates, retain_graph=True)[0].abs()
                    count += 1
        parts = comm.all_gather((total.cpu(), count))
        found = torch.stack([part for part, _ in parts]).sum(0)
        return found / sum(number for _, number in parts)


class ClassifierJudge(SupernetJudge):
    """Judges by the cross entropy of a classifier.

    The images of ``SEARCH.SENSITIVITY`` stay in memory.

    Args:
        networks: of the supernet, with its images.
    """

    def __init__(self, networks: FoundNetworks) -> None:
        super().__init__(networks.supernet, networks.cfg.SEED)
        self._networks = networks
        self._cfg = networks.cfg
        self._rows: Mapping[int, Sequence[Tensor]] | None = None  # of the reference's layers
        self._fitted = FittedLayers()  # in the network held

    def fitness(self, choices: Sequence[Choice]) -> float:
        """As :meth:`FoundNetworks.fitness`."""
        return self._networks.fitness(choices)

    def loss(self, choices: Sequence[Choice]) -> float:
        """Cross entropy of a network with statistics of its own, and changed layers fitted.

        Those that it shares with the network held stay as they were fitted in that one.
        """
        return self._loss(choices, [labels for _, labels in self._held_out])

    def exported_loss(self, choices: Sequence[Choice]) -> float:
        """As :meth:`loss`, with all layers fitted that are fitted in what is exported."""
        if not self._cfg.SEARCH.REFIT_BATCHES:
            return self.loss(choices)
        with seeded(self.seed):  # of dropout
            network = self._networks.cut(choices)
            wanted = self._wanted(network.architecture, layers_to_fit)
            outputs = self._images.outputs(_from_bytes(network), wanted)
        return self._mean_loss(outputs, [labels for _, labels in self._held_out])

    def blind_loss(self, choices: Sequence[Choice]) -> float:
        """As :meth:`loss`, where every batch's labels are those of its images in reverse order."""
        return self._loss(choices, [labels.flip(0) for _, labels in self._held_out])

    def hold(self, choices: Sequence[Choice], layers: int) -> None:
        """Keeps the maps that these layers make of all images; from 0 layers on, anew."""
        if layers == 0:
            self._rows = None
        if layers == 0 or self._fitted.around != tuple(choices):
            self._fit(choices)
        kept, held = choices[:layers], self._held
        further = held.shared_by(kept) and 0 < layers >= len(held.choices)
        begin = held if further else self._images
        network, wanted = self._modules(choices)
        self._held = begin.extended(network, self._ahead + layers, kept, wanted)

    def _loss(self, choices: Sequence[Choice], labels: list[Tensor]) -> float:
        held = self._held if self._held.shared_by(choices) else self._images
        with seeded(self.seed):  # of dropout
            outputs = held.outputs(*self._modules(choices))
        return self._mean_loss(outputs, labels)

    def _mean_loss(self, outputs: Sequence[Tensor], labels: Sequence[Tensor]) -> float:
        losses = [
            F.cross_entropy(logits.float().cpu(), targets, reduction="none")
            for logits, targets in zip(outputs, labels, strict=True)
        ]
        return mean(torch.cat(losses).double().tolist())

    def _fit(self, choices: Sequence[Choice]) -> None:
        """Fits the changed layers of a network, for all that differ from it in one layer."""
        self._fitted = FittedLayers()
        network, wanted = self._modules(choices)
        if wanted:
            replace(self._images, judged=()).extended(network, max(wanted) + 1, (), wanted)
        fitted = {index: network[index] for index in wanted}
        self._fitted = FittedLayers(tuple(choices), fitted, self._ahead)

    def _modules(self, choices: Sequence[Choice]) -> tuple[list[nn.Module], Wanted]:
        """A network cut out of the supernet, from bytes to logits, and what is fitted in it."""
        network, kept = self._networks.cut(choices), self._fitted.shared_by(choices)
        modules = [kept.get(index, module) for index, module in enumerate(_from_bytes(network))]
        wanted = self._wanted(network.architecture, changed_layers)
        return modules, {index: rows for index, rows in wanted.items() if index not in kept}

    @property
    def _ahead(self) -> int:
        """Modules ahead of the searchable layers."""
        return _AHEAD + len(self.supernet.space.first)

    def _wanted(self, architecture: Architecture, which: Which) -> Wanted:
        """What the layers of a network that are fitted are to compute."""
        if not self._cfg.SEARCH.REFIT_BATCHES:
            return {}
        reference = self._networks.reference
        if self._rows is None:
            start = self._networks.cut(reference)
            normalise = Normalise(start.architecture.input)
            self._rows = layer_rows(start, [normalise(images) for images in self._statistics])
        fitted = which(architecture, self.supernet.space.architecture(reference, "start"))
        return {_AHEAD + index: self._rows[index] for index in fitted}

    @cached_property
    def _images(self) -> Prefix:
        device = self.supernet.stem.conv.weight.device
        judged = [images.to(device) for images, _ in self._held_out]
        return Prefix(0, (), self._statistics, judged)

    @cached_property
    def _held(self) -> Prefix:
        return self._images

    def estimate(self) -> None:
        """On training batches, for the supernet itself."""
        expected = expected_images(self.supernet)
        pixels = (normalised(images, expected) for images in self._statistics)
        with seeded(self.seed):  # of dropout
            estimate_statistics(self.supernet, pixels, len(self._statistics))
        self.supernet.eval()

    def image_losses(self) -> Iterator[Tensor]:
        """Cross entropies."""
        device = self.supernet.stem.conv.weight.device
        for images, targets in self._held_out:
            pixels = normalised(images.to(device), expected_images(self.supernet))
            for image, target in zip(pixels, targets.to(device), strict=True):
                yield F.cross_entropy(self.supernet(image[None]).float(), target[None])

    @cached_property
    def _statistics(self) -> list[Tensor]:
        """Training batches for the statistics, the same for every network."""
        device = self.supernet.stem.conv.weight.device
        count = self._cfg.SEARCH.SENSITIVITY.CALIBRATION_BATCHES * self._cfg.SOLVER.ACCUMULATE
        with seeded(self.seed):
            batches = calibration_batches(self._cfg, self._networks.train_data)
            return [images.to(device) for images, _ in islice(batches, count)]

    @cached_property
    def _held_out(self) -> list[Any]:
        """Batches of this process's images to judge on."""
        held_out = self._networks.held_out
        count = min(self._cfg.SEARCH.SENSITIVITY.IMAGES, len(held_out))
        loader = build_val_loader(self._cfg, Subset(held_out, range(count)))
        on_gpu = self.supernet.stem.conv.weight.is_cuda
        size = _ON_GPU if on_gpu else images_per_pass(self._cfg)
        images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
        return list(zip(images.split(size), labels.split(size), strict=True))


def _from_bytes(network: Classifier) -> list[nn.Module]:
    """The modules of a network that is given bytes."""
    return [Normalise(network.architecture.input), *network.in_sequence()]


@contextlib.contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Puts the buffers and the mode of a module back at the end."""
    before = {name: value.clone() for name, value in module.named_buffers()}
    training = {name: child.training for name, child in module.named_modules()}
    try:
        yield
    finally:
        for name, value in module.named_buffers():
            value.copy_(before[name])
        for name, child in module.named_modules():
            child.training = training[name]


def mean(values: Iterable[float]) -> float:
    """Over all processes."""
    own = list(values)
    parts = comm.all_gather((sum(own), len(own)))
    return sum(total for total, _ in parts) / sum(count for _, count in parts)
