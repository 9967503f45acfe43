"""A backbone as it is deployed: the network whose runtime counts, and that runtime."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import Tensor, nn

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.inference import Engine, make_engine
from backbones.inference.board.turns import visit
from backbones.inference.hardware import device_name
from backbones.inference.measurement import Measurement
from backbones.latency import LatencyTable, predict_runtime
from backbones.network import build_classifier
from detection.modeling.backbone import SPNASBackbone, build_trunk
from detection.modeling.pyramid import spnas_fpn

logger = logging.getLogger(__name__)

Task = Literal["classification", "detection"]
OWN_TABLE = "auto"
PUBLISHED_TABLE = "pixel1"
PYRAMID_STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Deployment:
    """What a backbone is part of, and the size of its images.

    Attributes:
        task: ``classification`` (head, pooling and classifier) or ``detection`` (feature pyramid).
        input_size: height and width of the image in pixels.
        num_classes: of the classifier.
        fpn_channels: of every level of the pyramid.
    """

    task: Task = "classification"
    input_size: tuple[int, int] = (224, 224)
    num_classes: int = 1000
    fpn_channels: int = 256

    @classmethod
    def of(cls, table: LatencyTable) -> Deployment:
        """The one that a table was made for."""
        if table.task == "detection":
            return cls("detection", table.input_size, fpn_channels=table.constant.fpn_channels)
        return cls("classification", table.input_size)

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width that the network sees: a detector pads to multiples of 32."""
        if self.task == "classification":
            return self.input_size
        height, width = (math.ceil(side / 32) * 32 for side in self.input_size)
        return height, width

    @property
    def description(self) -> str:
        """What a runtime in this setting is of, in words."""
        height, width = self.padded_size
        what = "classifier" if self.task == "classification" else "backbone with pyramid"
        return f"{what} at {height}×{width}"

    def network(self, architecture: Architecture) -> nn.Module:
        """The whole network, freshly initialised with no branch at zero.

        Takes images (1, 3, H, W); returns logits (1, K), or the maps (1, C, H/s, W/s) of the
        pyramid at strides 4 to 64.
        """
        if self.task == "classification":
            return build_classifier(architecture, self.num_classes, residual_scale=1.0).eval()
        backbone = SPNASBackbone(build_trunk(architecture, "BN", residual_scale=1.0))
        return Pyramid(spnas_fpn(backbone, out_channels=self.fpn_channels)).eval()

    def pyramid(self, channels: Sequence[int]) -> nn.Module:
        """The feature pyramid alone, over maps (1, C_i, H/s, W/s) at strides 4 to 32."""
        features = _Features(channels)
        names = list(features.output_shape())
        fpn = FPN(features, names, self.fpn_channels, top_block=LastLevelMaxPool())
        return Pyramid(fpn).eval()


class Pyramid(nn.Module):
    """A feature pyramid that returns its maps as a list, as inference engines need."""

    def __init__(self, fpn: FPN) -> None:
        super().__init__()
        self.fpn = fpn

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        """An image, or the bottom-up maps → maps at strides 4 to 64."""
        return list(self.fpn(inputs[0] if len(inputs) == 1 else inputs).values())


class _Features(Backbone):
    """Stands for a backbone whose maps are given."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.output_shape(), maps, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            f"res{index + 2}": ShapeSpec(channels=channels, stride=stride)
            for index, (channels, stride) in enumerate(
                zip(self.channels, PYRAMID_STRIDES, strict=True)
            )
        }


def runtime_table(named: str, architecture: Architecture | None) -> LatencyTable | None:
    """The latency table that a network's runtime is predicted with.

    Args:
        named: ``MODEL.SPNAS.LATENCY_TABLE``: a name or path, ``auto``, or empty for none.
        architecture: of the network; with ``auto``, the table that it was searched on (its
            provenance names it), and ``pixel1`` for a published one.

    Returns:
        None where there is none: none is named, or the network was searched on counts, or on a
        table that is not here (a warning says so).

    Raises:
        UserError: if a table is named that cannot be read.
    """
    if named != OWN_TABLE:
        return LatencyTable.load(named) if named else None
    provenance = architecture.provenance if architecture else {}
    searched_on = provenance.get("config", {}).get(
        "LATENCY_TABLE", provenance.get("latency_table", PUBLISHED_TABLE)
    )
    try:
        return LatencyTable.load(searched_on)
    except UserError as error:
        logger.warning(
            "No predicted runtime: the network was searched on '%s' (%s); name another table with "
            "MODEL.SPNAS.LATENCY_TABLE",
            searched_on,
            error,
        )
        return None


def predicted_runtime(architecture: Architecture, table: LatencyTable) -> float | None:
    """Runtime by a table in its unit; None, with a warning, where the table does not cover it."""
    try:
        return predict_runtime(architecture, table)
    except UserError as error:
        logger.warning("No predicted runtime: %s", error)
        return None


def measured_runtime(
    architecture: Architecture,
    deployment: Deployment,
    engine: str,
    device: str = "cpu",
    threads: int = 1,
    precision: str = "fp32",
    visits: int = 5,
) -> Measurement:
    """Runtime of a whole network on this machine, in ms.

    Raises:
        UserError: if the engine is unknown, not installed, cannot use the device, or has not the
            precision.
    """
    images = torch.randn(1, 3, *deployment.padded_size)
    program = make_engine(engine, device, threads, precision).compile(
        lambda: deployment.network(architecture), [images]
    )
    session = program.load()
    return Measurement.of([visit(session) for _ in range(visits)])


def measured_with(engine: Engine, deployment: Deployment) -> str:
    """What a runtime was measured with, in words: engine, device, threads and image size.

    A precision other than single stands behind the engine.
    """
    name = engine.name if engine.precision == "fp32" else f"{engine.name} {engine.precision}"
    threads = "1 thread" if engine.threads == 1 else f"{engine.threads} threads"
    height, width = deployment.padded_size
    return f"{name}, {device_name(engine.device)}, {threads}, {height}×{width}"
