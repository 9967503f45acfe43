"""The zoo: the architectures that come with the package, and where their weights are published.

An architecture's provenance names its published ImageNet weights by address
(``timm://mobilenetv2_100``, ``torchvision://mobilenet_v2``, ``package://efficientnet_lite0``),
with what differs from the architecture itself: the width multiplier that they are for, the epsilon
of the batch norms; and with the package of the package index that has them as a file.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from backbones.architecture import IMAGENET, Architecture
from backbones.schema import expect, named_file, named_files, parse_dataclass

ARCHS = "archs"


def list_models() -> list[str]:
    """Names of the architectures that come with the package."""
    return named_files(ARCHS)


def load_architecture(name_or_path: str | os.PathLike[str]) -> Architecture:
    """An architecture of the zoo by name, or any other by the path of its JSON file.

    Raises:
        UserError: if there is neither.
    """
    return Architecture.load(named_file(name_or_path, "architecture", ARCHS))


@dataclass(frozen=True)
class PublishedWeights:
    """ImageNet weights that another library publishes.

    Attributes:
        address: ``timm://NAME``, ``torchvision://NAME`` or ``package://NAME``.
        architecture: what they are for, its width multiplier applied.
        width_mult: that multiplier.
        norm_eps: epsilon of that library's batch norms; None where it is the architecture's.
        tag: which of several weights of that name; empty for the library's default.
        package: distribution on the package index, at ``package://``.
    """

    address: str
    architecture: Architecture
    width_mult: float = 1.0
    norm_eps: float | None = None
    tag: str = ""
    package: str = ""

    @property
    def library(self) -> str:
        """``timm``, ``torchvision`` or ``package``."""
        return self.address.partition("://")[0]

    @property
    def name(self) -> str:
        """What the library calls the network."""
        return self.address.partition("://")[2]


@dataclass(frozen=True)
class _Options:
    """What an architecture file says of an address."""

    width_mult: float = 1.0
    norm_eps: float | None = None
    package: str = ""


def published_weights(architecture: Architecture) -> list[PublishedWeights]:
    """The weights that an architecture's provenance names, the preferred ones first.

    Args:
        architecture: as its file has it; ``width_mult`` is relative to that.

    Raises:
        UserError: if the provenance has them in another form.
    """
    where = f"architecture '{architecture.name}': provenance: weights"
    entries = architecture.provenance.get("weights")
    if entries is None:  # files from before there were addresses name timm's network alone
        name = architecture.provenance.get("timm")
        entries = {f"timm://{name}": {}} if name else {}
    expect(isinstance(entries, dict), where, entries, "an object of addresses")
    found = []
    for address, entry in entries.items():
        options = parse_dataclass(_Options, entry, f"{where}: {address}")
        scaled = architecture.scaled(options.width_mult)
        if address.startswith("package://"):
            expect(bool(options.package), f"{where}: {address}: package", "", "the package's name")
        found.append(PublishedWeights(address, scaled, **dataclasses.asdict(options)))
    return found


def list_published() -> dict[str, PublishedWeights]:
    """Every published weight of the zoo, by address."""
    zoo = map(load_architecture, list_models())
    return {weights.address: weights for item in zoo for weights in published_weights(item)}


def timm_equivalent(architecture: Architecture) -> PublishedWeights | None:
    """The entry of timm's network that computes the same as an architecture; None without one.

    Only what a network computes counts: not its name, its images, or what it came from.
    """
    wanted = _computed(architecture)
    for weights in list_published().values():
        if weights.library == "timm" and _computed(weights.architecture) == wanted:
            return weights
    return None


def _computed(architecture: Architecture) -> Architecture:
    return dataclasses.replace(
        architecture,
        name="network",
        provenance={},
        input=IMAGENET,
        fixed_stem=False,
    )


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names that look like ``name``, most alike first; empty if none does."""
    plain = {item.rpartition("//")[2]: item for item in known}
    alike = difflib.get_close_matches(name.rpartition("//")[2], plain, count)
    return [plain[item] for item in alike]
