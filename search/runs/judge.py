"""How good the networks of a supernet are, with its weights, on images held out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import Subset

from detection.engine.random_state import seeded
from search.classification.accuracy import evaluate
from search.classification.calibration import calibration_batches, estimate_statistics
from search.classification.data import build_val_loader
from search.runs.found import FoundNetworks
from search.space import Choice
from search.supernets.export import export_network
from search.supernets.single_path import Supernet

Batch = tuple[Tensor, Tensor]


class ClassifierJudge:
    """Judges by the cross entropy of a classifier.

    The images of ``SEARCH.SENSITIVITY`` stay in memory: 0.6 MB each at 224 pixels.

    Args:
        networks: of the supernet, with its images.
    """

    def __init__(self, networks: FoundNetworks) -> None:
        self._networks = networks
        self._cfg = networks.cfg

    def fitness(self, choices: Sequence[Choice]) -> float:
        """As :meth:`FoundNetworks.fitness`."""
        return self._networks.fitness(choices)

    @torch.no_grad()
    def loss(self, choices: Sequence[Choice]) -> float:
        """Cross entropy of a network with statistics of its own."""
        supernet = self._networks.supernet
        network = export_network(supernet, choices, supernet.space.architecture(choices, "found"))
        with seeded(self._cfg.SEED):
            estimate_statistics(network, self._statistics, len(self._statistics))
        return evaluate(network.eval(), self._held_out)["loss"]

    def gate_gradients(self, choices: Sequence[Choice]) -> list[Tensor]:
        """(G_i,) of every layer: mean magnitude of the cross entropy's gradient by indicators."""
        supernet = self._networks.supernet
        assert isinstance(supernet, Supernet)
        before = {name: value.clone() for name, value in supernet.named_buffers()}
        mode = supernet.training
        with supernet.using(choices), seeded(self._cfg.SEED):
            estimate_statistics(supernet, self._statistics, len(self._statistics))
        supernet.eval()
        totals: list[Tensor] = []
        count = 0
        with supernet.gated(choices) as gates:
            for images, targets in self._held_out:
                for image, target in zip(images, targets, strict=True):
                    logits = supernet(image[None].to(gates[0].device)).float()
                    loss = F.cross_entropy(logits, target[None].to(logits.device))
                    found = [g.abs() for g in torch.autograd.grad(loss, gates)]
                    totals = [a + b for a, b in zip(totals, found, strict=True)] or found
                    count += 1
        for name, value in supernet.named_buffers():
            value.copy_(before[name])
        supernet.train(mode)
        parts = comm.all_gather(([total.cpu() for total in totals], count))
        images_seen = sum(number for _, number in parts)
        return [sum(layer) / images_seen for layer in zip(*(p for p, _ in parts), strict=True)]

    @cached_property
    def _statistics(self) -> list[Tensor]:
        """Training batches for the statistics, the same for every network."""
        node, supernet = self._cfg.SEARCH.SENSITIVITY, self._networks.supernet
        device = supernet.stem.conv.weight.device
        with seeded(self._cfg.SEED):
            batches = calibration_batches(self._cfg, self._networks.train_data)
            return [images.to(device) for images, _ in islice(batches, node.CALIBRATION_BATCHES)]

    @cached_property
    def _held_out(self) -> list[Any]:
        """Batches of this process's images to judge on."""
        images = self._networks.held_out
        count = min(self._cfg.SEARCH.SENSITIVITY.IMAGES, len(images))
        return list(build_val_loader(self._cfg, Subset(images, range(count))))
