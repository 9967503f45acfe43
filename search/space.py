"""Search spaces as data: which types every searchable layer may take (Sec. III-A)."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backbones.architecture import (
    IMAGENET,
    Activation,
    Architecture,
    Gate,
    HeadSpec,
    InputSpec,
    LayerSpec,
    Padding,
    SEReference,
    StemSpec,
    conventions,
)
from backbones.errors import UserError
from backbones.layer_types import SKIP, LayerType
from backbones.schema import load_versioned, named_file, to_versioned

SCHEMA_VERSION = 1

_WITH_DEFAULTS = ("activation", "norm_eps", "se_reference", "se_gate", "channel_divisor")
"""Fields that a space's file need not have."""


@dataclass(frozen=True)
class Candidate:
    """One type that a layer can take, as positions in the space's options; None is the skip-op.

    Attributes:
        kernel: index into ``kernel_sizes``.
        expansion: index into ``expansions``.
        se: index into ``se_ratios``.
    """

    kernel: int
    expansion: int
    se: int


Choice = Candidate | None


@dataclass(frozen=True)
class Stage:
    """A block of the macro-architecture: layers of one width; the first has the stride.

    Its ``activation`` is the space's where it is None.
    """

    out_channels: int
    num_layers: int
    stride: int
    activation: Activation | None = None


@dataclass(frozen=True)
class SearchLayer:
    """One searchable layer: its shape, and whether it may be skipped.

    A layer is droppable where the identity has its shape: stride 1 and equal channels. Its
    ``activation`` is the space's where it is None.
    """

    in_channels: int
    out_channels: int
    stride: int
    activation: Activation | None = None

    @property
    def droppable(self) -> bool:
        """Whether the skip-op is among the layer's candidates."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class SearchSpace:
    """A fixed macro-architecture and the options of its searchable layers.

    Attributes:
        name: what logs and architecture files call it.
        stem, first, last, head: the parts that are not searched.
        stages: the searchable blocks.
        kernel_sizes, expansions, se_ratios: the options, in increasing order. Every option is a
            subset of the next (Fig. 3).
        activation: of the searchable layers.
        norm_eps: epsilon of every batch norm.
        se_reference, se_gate, channel_divisor: of the searchable layers, as in ``LayerSpec``.
        padding, input, fixed_stem: as in ``Architecture``.

    Raises:
        UserError: if the options are empty or unordered, or a network of the space is impossible.
    """

    name: str
    stem: StemSpec
    first: tuple[LayerSpec, ...]
    stages: tuple[Stage, ...]
    last: tuple[LayerSpec, ...]
    head: HeadSpec
    kernel_sizes: tuple[int, ...] = (3, 5)
    expansions: tuple[float, ...] = (3, 6)
    se_ratios: tuple[float, ...] = (0, 0.25, 0.5)
    activation: Activation = "relu"
    norm_eps: float = 1e-5
    se_reference: SEReference = "expanded"
    se_gate: Gate = "sigmoid"
    channel_divisor: int = 1
    padding: Padding = "symmetric"
    input: InputSpec = IMAGENET
    fixed_stem: bool = False

    def __post_init__(self) -> None:
        for name in ("kernel_sizes", "expansions", "se_ratios"):
            options = getattr(self, name)
            if not options or list(options) != sorted(set(options)):
                raise UserError(
                    f"search space '{self.name}': {name} is {list(options)}; expected different "
                    "options in increasing order"
                )
        for candidate in self.candidates:
            self.uniform(candidate)

    @property
    def layers(self) -> tuple[SearchLayer, ...]:
        """The searchable layers, in order."""
        layers = []
        channels = self.first[-1].out_channels if self.first else self.stem.out_channels
        for stage in self.stages:
            for index in range(stage.num_layers):
                stride = stage.stride if index == 0 else 1
                shape = channels, stage.out_channels, stride
                layers.append(SearchLayer(*shape, stage.activation))
                channels = stage.out_channels
        return tuple(layers)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every candidate but the skip-op, smallest first."""
        sizes = (len(self.kernel_sizes), len(self.expansions), len(self.se_ratios))
        return tuple(Candidate(*indices) for indices in itertools.product(*map(range, sizes)))

    def choices(self, layer: SearchLayer) -> tuple[Choice, ...]:
        """Every type that a layer may take: 13 in the paper's space, 12 where skip is not one."""
        return (*self.candidates, None) if layer.droppable else self.candidates

    def layer_spec(self, layer: SearchLayer, choice: Choice) -> LayerSpec:
        """The architecture's description of a layer that took ``choice``."""
        if choice is None:
            return LayerSpec(layer.out_channels, op="skip")
        return LayerSpec(
            layer.out_channels,
            kernel_size=self.kernel_sizes[choice.kernel],
            stride=layer.stride,
            expansion=self.expansions[choice.expansion],
            se_ratio=(ratio := self.se_ratios[choice.se]),
            se_reference=self.se_reference if ratio else "expanded",
            se_gate=self.se_gate if ratio else "sigmoid",
            activation=layer.activation or self.activation,
            channel_divisor=self.channel_divisor,
        )

    def choice_type(self, choice: Choice) -> LayerType:
        """The options that ``choice`` takes; as text ``5x5-6-0.25`` or ``skip``."""
        if choice is None:
            return SKIP
        return LayerType(
            self.kernel_sizes[choice.kernel],
            self.expansions[choice.expansion],
            self.se_ratios[choice.se],
        )

    def architecture(
        self, choices: Sequence[Choice], name: str, provenance: Mapping[str, Any] | None = None
    ) -> Architecture:
        """The network in which layer i took ``choices[i]``.

        Raises:
            UserError: if the number of choices is not the number of searchable layers, or a layer
                that cannot be skipped is.
        """
        if len(choices) != len(self.layers):
            raise UserError(
                f"search space '{self.name}' has {len(self.layers)} searchable layers; got "
                f"{len(choices)} choices"
            )
        searched = tuple(map(self.layer_spec, self.layers, choices))
        return Architecture(
            name,
            self.stem,
            (*self.first, *searched, *self.last),
            self.head,
            self.norm_eps,
            provenance or {},
            self.padding,
            self.input,
            self.fixed_stem,
        )

    def uniform(self, choice: Choice) -> Architecture:
        """Every layer takes ``choice``; where it cannot be skipped, the smallest candidate."""
        choices = [
            choice if choice is not None or layer.droppable else self.candidates[0]
            for layer in self.layers
        ]
        return self.architecture(choices, f"{self.name}-{self.choice_type(choice)}")

    def largest(self) -> Architecture:
        """Every option at its maximum."""
        return self.uniform(self.candidates[-1])

    def smallest(self) -> Architecture:
        """Every droppable layer skipped, the others at their minimum."""
        return self.uniform(None)

    def scaled(self, width_mult: float) -> SearchSpace:
        """The same choices in other widths, as :meth:`Architecture.scaled`.

        Raises:
            UserError: if a layer could be skipped at one of the widths alone.
        """
        if width_mult == 1:
            return self
        slim = self.largest().scaled(width_mult)
        begin, end = len(self.first), len(slim.layers) - len(self.last)
        widths = iter(slim.layers[begin:end])
        stages = []
        for stage in self.stages:
            layers = [next(widths) for _ in range(stage.num_layers)]
            stages.append(dataclasses.replace(stage, out_channels=layers[0].out_channels))
        space = dataclasses.replace(
            self,
            name=f"{self.name}_x{width_mult:g}",
            stem=slim.stem,
            first=slim.layers[:begin],
            stages=tuple(stages),
            last=slim.layers[end:],
            head=slim.head,
        )
        if any(a.droppable != b.droppable for a, b in zip(space.layers, self.layers, strict=True)):
            raise UserError(
                f"search space '{self.name}' at width {width_mult:g} has other layers that can be "
                "skipped; choose another SEARCH.WIDTH_MULT"
            )
        return space

    def sample(self, rng: random.Random) -> list[Choice]:
        """Types drawn uniformly and independently."""
        return [rng.choice(self.choices(layer)) for layer in self.layers]

    def choices_of(self, architecture: Architecture) -> list[Choice]:
        """The choices that make ``architecture``: the inverse of :meth:`architecture`.

        Raises:
            UserError: if the network is not of this space.
        """
        begin, end = len(self.first), len(architecture.layers) - len(self.last)
        choices: list[Choice] = []
        for layer, spec in zip(self.layers, architecture.layers[begin:end], strict=False):
            matches = [c for c in self.choices(layer) if self.layer_spec(layer, c) == spec]
            choices.extend(matches)
        if (
            len(choices) != len(self.layers)
            or self.architecture(choices, architecture.name).layers != architecture.layers
            or self.norm_eps != architecture.norm_eps
            or self.padding != architecture.padding
        ):
            raise UserError(
                f"architecture '{architecture.name}' is not a network of search space '{self.name}'"
            )
        return choices

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; activation and what follows are left out at their default."""
        data = to_versioned(self, SCHEMA_VERSION)
        for item in dataclasses.fields(self):
            if item.name in _WITH_DEFAULTS and data[item.name] == item.default:
                del data[item.name]
        for stage in data["stages"]:
            if stage["activation"] is None:
                del stage["activation"]
        for name in ("padding", "input", "fixed_stem"):
            del data[name]
        return {**data, **conventions(self)}

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str]) -> SearchSpace:
        """Reads a space by name (``configs/search/spaces``) or by the path of its JSON file.

        Raises:
            UserError: if it is missing, not JSON, or impossible.
        """
        path = named_file(name_or_path, "search space", "search", "spaces")
        space: SearchSpace = load_versioned(cls, path, "search space", SCHEMA_VERSION)
        return space
