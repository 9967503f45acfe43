"""Runtimes of networks that a latency table is not about, on the table's scale."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.inference import Engine
from backbones.latency import LatencyTable, input_sizes, layer_runtimes, predict_runtime
from detection.deployment import PYRAMID_STRIDES, Deployment
from search.profiling.evaluation import table_engine
from search.profiling.networks import measure_architectures

logger = logging.getLogger(__name__)

By = Literal["table", "engine", "macs"]
"""What says a runtime."""

_ROUNDS = 8


@dataclass(frozen=True)
class Scale:
    """A latency table, with one network that it predicts to compare others with.

    Other networks are measured beside that one: their ratio is free of how fast the machine is at
    the moment, and of what the table has wrong for all.

    Attributes:
        table: of any device.
        start: the network that it predicts.
        start_runtime: predicted, in the table's unit.
        engine: the table's, on this machine; None where it is of another device.
    """

    table: LatencyTable
    start: Architecture
    start_runtime: float
    engine: Engine | None

    @classmethod
    def of(cls, table: LatencyTable, start: Architecture) -> Scale:
        """The scale of a table.

        Raises:
            UserError: if the table does not cover the network.
        """
        engine: Engine | None = None
        try:
            engine = table_engine(table)
        except UserError as error:
            logger.info("Networks are compared by their multiply-accumulates: %s", error)
        return cls(table, start, predict_runtime(start, table), engine)

    def runtimes(self, networks: Sequence[Architecture]) -> list[tuple[float, By]]:
        """Runtimes in the table's unit: by the table where it covers a network, else measured.

        Args:
            networks: of any kind.

        Returns:
            Each with what says it.
        """
        covered = [not layer_runtimes(network, self.table)[1] for network in networks]
        others = [network for network, known in zip(networks, covered, strict=True) if not known]
        measured = iter(self._measured(others))
        return [
            (predict_runtime(network, self.table), "table") if known else next(measured)
            for network, known in zip(networks, covered, strict=True)
        ]

    def rough(self, network: Architecture) -> float:
        """By multiply-accumulates, with the pyramid or the classifier that the table is for."""
        deployment = Deployment.of(self.table)
        ours, theirs = (convolution_macs(n, deployment) for n in (network, self.start))
        return self.start_runtime * ours / theirs

    def _measured(self, networks: Sequence[Architecture]) -> list[tuple[float, By]]:
        if not networks:
            return []
        if self.engine is None:
            return [(self.rough(network), "macs") for network in networks]
        deployment = Deployment.of(self.table)
        rows = measure_architectures([self.start, *networks], self.engine, deployment, _ROUNDS)
        start, *others = (row["measured"] for row in rows)
        return [(self.start_runtime * runtime / start, "engine") for runtime in others]


def convolution_macs(network: Architecture, deployment: Deployment) -> int:
    """Multiply-accumulates of a network's convolutions, without building it.

    Args:
        network: of any kind.
        deployment: the image size, and what is behind the trunk: the pyramid's convolutions, or the
            head's.
    """
    sizes = input_sizes(network, deployment.padded_size)
    height, width = sizes[0]
    stem = network.stem
    total = 3 * stem.out_channels * stem.kernel_size**2 * height * width
    for layer, channels, (height, width) in zip(
        network.layers, network.in_channels, sizes, strict=True
    ):
        if layer.op == "skip":
            continue
        area = math.ceil(height / layer.stride) * math.ceil(width / layer.stride)
        expanded = layer.expanded_channels(channels)
        expansion = channels * expanded * height * width if layer.op == "mbconv" else 0
        squeeze = 2 * expanded * layer.squeeze_channels(channels)
        depthwise = expanded * layer.kernel_size**2 * area
        total += expansion + depthwise + squeeze + expanded * layer.out_channels * area
    return total + _behind(network, deployment)


def _behind(network: Architecture, deployment: Deployment) -> int:
    height, width = deployment.padded_size

    def area(stride: int) -> int:
        return math.ceil(height / stride) * math.ceil(width / stride)

    if deployment.task == "classification":
        return network.layers[-1].out_channels * network.head.out_channels * area(32)
    features = [network.layers[index].out_channels for index in network.feature_layers[1:]]
    each = deployment.fpn_channels
    return sum(
        (channels * each + 9 * each**2) * area(stride)
        for channels, stride in zip(features, PYRAMID_STRIDES, strict=True)
    )
