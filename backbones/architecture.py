"""Architectures as typed, validated data, saved as JSON.

Every network, searched or published, is one :class:`Architecture`: a stem, a list of layers and
a head. A layer that a search dropped stays in the list as ``skip``, so that the position of a
layer is the same in the network, in the search space and in a latency table.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backbones.errors import UserError
from backbones.files import read_json, write_json
from backbones.schema import expect, parse_versioned
from backbones.specs import (
    IMAGENET,
    KERNEL_SIZES,
    Activation,
    Gate,
    HeadSpec,
    InputSpec,
    LayerSpec,
    Padding,
    SEReference,
    StemSpec,
    check_channels,
    check_head,
    check_input,
    check_layer,
    make_divisible,
    scaled_head,
    scaled_spec,
    without_defaults,
)

__all__ = [
    "FEATURE_STRIDES",
    "IMAGENET",
    "SCHEMA_VERSION",
    "Activation",
    "Architecture",
    "Gate",
    "HeadSpec",
    "InputSpec",
    "LayerSpec",
    "Padding",
    "SEReference",
    "StemSpec",
    "make_divisible",
]

SCHEMA_VERSION = 1
FEATURE_STRIDES = (2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Architecture:
    """A whole network, checked when it is built.

    Attributes:
        name: what logs and tables call it.
        stem: first convolution.
        layers: the trunk, skipped layers included.
        head: last convolution and what follows it, of the classifier only.
        norm_eps: epsilon of every batch norm.
        provenance: where it comes from: source and pretrained weights of a published network;
            config, seed, latency table and predicted runtime of a searched one.
        padding: of every convolution with stride 2: ``symmetric``, or ``same``, TensorFlow's, which
            has one row and column less above and on the left where the input's side is even.
        input: the images that it is made for.
        fixed_stem: whether the stem keeps its channels at every width, as EfficientNet-Lite's.

    Raises:
        UserError: if a value is impossible; the message names the field.
    """

    name: str
    stem: StemSpec
    layers: tuple[LayerSpec, ...]
    head: HeadSpec
    norm_eps: float = 1e-5
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)
    padding: Padding = "symmetric"
    input: InputSpec = IMAGENET
    fixed_stem: bool = False

    def __post_init__(self) -> None:
        _check_architecture(self)

    @property
    def in_channels(self) -> tuple[int, ...]:
        """Input channels of every layer."""
        return (self.stem.out_channels, *(layer.out_channels for layer in self.layers[:-1]))

    @property
    def reductions(self) -> tuple[int, ...]:
        """Stride of every layer's output relative to the image."""
        strides, total = [], 2
        for layer in self.layers:
            total *= layer.stride
            strides.append(total)
        return tuple(strides)

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """Index of the last layer at stride 2, 4, 8, 16 and 32."""
        last = {stride: index for index, stride in enumerate(self.reductions)}
        return tuple(last[stride] for stride in FEATURE_STRIDES)

    def scaled(self, width_mult: float) -> Architecture:
        """The same network with all channels multiplied (Fig. 7), rounded to multiples of 8.

        The last layer before the classifier does not shrink, and grows where the head says so.
        """
        if not 0.1 <= width_mult <= 10:
            raise UserError(f"width_mult is {width_mult:g}; expected a factor from 0.1 to 10")
        if width_mult == 1:
            return self
        return dataclasses.replace(
            self,
            name=f"{self.name}_x{width_mult:g}",
            stem=self.stem if self.fixed_stem else scaled_spec(self.stem, width_mult),
            layers=tuple(scaled_spec(layer, width_mult) for layer in self.layers),
            head=scaled_head(self.head, width_mult),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without fields of layers and head, and conventions, at their default."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "stem": dataclasses.asdict(self.stem),
            "layers": [without_defaults(layer, ("op", "out_channels")) for layer in self.layers],
            "head": without_defaults(self.head, ("out_channels", "activation")),
            "norm_eps": self.norm_eps,
            "provenance": dict(self.provenance),
        }
        return {**data, **conventions(self)}

    @classmethod
    def from_dict(cls, data: Any, where: str = "architecture") -> Architecture:
        """Reads what :meth:`to_dict` wrote.

        Args:
            data: the decoded JSON.
            where: named in error messages, e.g. the file.
        """
        architecture: Architecture = parse_versioned(cls, data, SCHEMA_VERSION, where)
        return architecture

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the architecture as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Architecture:
        """Reads an architecture file.

        Raises:
            UserError: if the file is missing, is not JSON, or holds an impossible network.
        """
        return cls.from_dict(read_json(path, "architecture"), where=str(path))


def conventions(network: Any) -> dict[str, Any]:
    """JSON-ready: what an architecture or a space says of padding, input and stem, if unusual."""
    found = {
        "padding": network.padding,
        "input": without_defaults(network.input),
        "fixed_stem": network.fixed_stem,
    }
    usual: dict[str, Any] = {"padding": "symmetric", "input": {}, "fixed_stem": False}
    return {key: value for key, value in found.items() if value != usual[key]}


def _check_architecture(architecture: Architecture) -> None:
    where = f"architecture '{architecture.name}'"
    expect(bool(architecture.name), f"{where}: name", architecture.name, "a name")
    check_channels(architecture.stem.out_channels, f"{where}: stem")
    kernel = architecture.stem.kernel_size
    expect(kernel in KERNEL_SIZES, f"{where}: stem.kernel_size", kernel, "3, 5 or 7")
    expect(len(architecture.layers) > 0, f"{where}: layers", [], "at least one layer")
    for index, (layer, channels) in enumerate(
        zip(architecture.layers, architecture.in_channels, strict=True)
    ):
        check_layer(layer, channels, f"{where}: layers[{index}]")
    check_head(architecture.head, f"{where}: head")
    expect(0 < architecture.norm_eps < 1, f"{where}: norm_eps", architecture.norm_eps, "in (0, 1)")
    check_input(architecture.input, f"{where}: input")
    strides = sorted(set(architecture.reductions))
    expect(
        strides == list(FEATURE_STRIDES),
        f"{where}: the strides that its layers reach",
        strides,
        f"{list(FEATURE_STRIDES)}: a first layer with stride 1, then four layers with stride 2",
    )
