"""Published weights: found by address, fetched by their library, renamed to ours."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import nn

from backbones.architecture import IMAGENET, Architecture, InputSpec
from backbones.conversion import convert_weights
from backbones.errors import UserError
from backbones.hub import HubModel, find_on_hub, is_hub_name
from backbones.network import build_classifier
from backbones.packaged import packaged_state
from backbones.states import library_of, model_state, network_state
from backbones.weights import StateDict, read_checkpoint
from backbones.zoo import (
    PublishedWeights,
    list_models,
    list_published,
    load_architecture,
    nearest,
    published_weights,
)

logger = logging.getLogger(__name__)

SCHEMES = ("timm://", "torchvision://", "package://")
_TENSORS_ALONE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def find_published(address: str) -> PublishedWeights:
    """The weights of the zoo at an address, with the tag that may follow a dot.

    Raises:
        UserError: if no network of the zoo has weights there; the message lists near addresses.
    """
    known = list_published()
    base, _, tag = address.partition(".")
    if base not in known:
        near = nearest(base, known) or sorted(known)
        raise UserError(
            f"no network of the zoo has weights at '{address}'; nearest: {', '.join(near)}; or "
            "name a file"
        )
    return dataclasses.replace(known[base], tag=tag)


def published_for(architecture: Architecture, width_mult: float = 1.0) -> PublishedWeights:
    """The preferred published weights of an architecture at a width multiplier.

    Raises:
        UserError: if there are none.
    """
    entries = published_weights(architecture)
    for weights in entries:
        if weights.width_mult == width_mult:
            return weights
    others = ", ".join(f"{w.address} (width_mult={w.width_mult:g})" for w in entries)
    raise UserError(
        f"there are no pretrained weights for architecture '{architecture.name}' at width_mult="
        f"{width_mult:g}{f', only {others}' if others else ''}; train it with "
        "spnas train-classifier and pass checkpoint_path"
    )


def download(weights: PublishedWeights) -> StateDict:
    """ImageNet weights, downloaded by their library or from an installed package, by our names.

    Raises:
        UserError: if the library or package is missing, has no such tag, or the download fails.
    """
    state = _FETCHERS[weights.library](weights)
    return convert_weights(weights.architecture, state, weights.norm_eps)


def load_state(source: str | os.PathLike[str], architecture: Architecture) -> StateDict:
    """Weights for an architecture, by our names.

    Args:
        source: an address, a name of timm's (``hf-hub:``, ``local-dir:``), or a file: one of
            ours, or of the same network by timm, torchvision, pytorchcv or others, in whatever
            container and with whatever prefix its trainer wrote it.
        architecture: with its width multiplier applied.

    Raises:
        UserError: if there is no such file or address, or a foreign file is of another network.
    """
    text = os.fspath(source)
    if text.startswith(SCHEMES):
        return download(find_published(text))
    file = hub_weights(text) if is_hub_name(text) else text
    return own_state(architecture, model_state(read_checkpoint(file), text), text)


def hub_weights(source: str) -> str:
    """The local file with the weights at a name of timm's.

    Warns if they were trained on images normalised otherwise than its network of the zoo has it.

    Raises:
        UserError: as :func:`backbones.hub.find_on_hub` does.
    """
    model = find_on_hub(source)
    if model.normalisation:
        try:
            expected = hub_architecture(model)[0].input
        except UserError:  # the zoo does not have it
            expected = IMAGENET
        warn_of_normalisation(f"the weights '{source}'", *model.normalisation, expected)
    return str(model.weights)


def hub_architecture(model: HubModel) -> tuple[Architecture, float]:
    """The network that a configuration of timm's names, and its width multiplier.

    It is of the zoo, or of a shared model, whose configuration has the architecture itself.

    Raises:
        UserError: if it is neither, or the architecture is impossible.
    """
    if model.architecture_data is not None:
        return Architecture.from_dict(
            model.architecture_data, f"the architecture of '{model.source}'"
        ), 1.0
    name = model.architecture
    for address, weights in list_published().items():
        if address == f"timm://{name}":
            return load_architecture(
                weights.architecture.name.partition("_x")[0]
            ), weights.width_mult
    for own in (name, name.removeprefix("spnas_")):  # as this project and as timm's registry has it
        if own in list_models():
            return load_architecture(own), 1.0
    known = sorted(w.name for w in list_published().values() if w.library == "timm")
    raise UserError(
        f"'{model.source}' is of the network '{name}', which the zoo does not have; it has timm's "
        f"{', '.join(known)}"
    )


def own_state(architecture: Architecture, state: StateDict, where: str) -> StateDict:
    """The network's tensors by our names.

    Args:
        architecture: of the network.
        state: by our names or another library's, perhaps with the prefix of a wrapper.
        where: the file, for messages.

    Returns:
        ``state`` itself where nothing is to be done.

    Raises:
        UserError: if it is of another library's other network.
    """
    state = network_state(state, where)
    library = library_of(state)
    if library == "spnas" or (library is None and _has_own_names(architecture, state)):
        return state
    entries = [w for w in published_weights(architecture) if w.library == library]
    norm_eps = entries[0].norm_eps if entries else None
    return convert_weights(architecture, state, norm_eps, f"the checkpoint '{where}'")


def _has_own_names(architecture: Architecture, state: StateDict) -> bool:
    with torch.device("meta"):
        names = set(build_classifier(architecture, 1).state_dict())
    return bool(names & set(state))


@contextlib.contextmanager
def downloading(what: str, way_out: str) -> Iterator[None]:
    """Turns what a failed download raises into a UserError.

    PyTorch reads the downloaded file as tensors and plain data alone, whatever the library asks
    for (torchvision asks for any pickle).
    """
    before = os.environ.get(_TENSORS_ALONE)
    os.environ[_TENSORS_ALONE] = "1"
    try:
        yield
    except (OSError, RuntimeError, UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"could not download {what} ({reason}); {way_out}") from None
    finally:
        if before is None:
            del os.environ[_TENSORS_ALONE]
        else:
            os.environ[_TENSORS_ALONE] = before


def warn_of_normalisation(
    what: str, mean: Sequence[float], std: Sequence[float], expected: InputSpec
) -> None:
    """Warns if weights were trained on images normalised otherwise than their network has it."""
    if not expected.normalises_as(mean, std):
        logger.warning(
            "%s were trained with mean %s and deviation %s of images in [0, 1]; normalise alike "
            "(MODEL.PIXEL_MEAN and MODEL.PIXEL_STD, times 255)",
            what,
            tuple(mean),
            tuple(std),
        )


def _from_package(weights: PublishedWeights) -> StateDict:
    others = [
        address
        for address, other in list_published().items()
        if other.architecture == weights.architecture and other.library != "package"
    ]
    return packaged_state(weights, others)


def _import(library: str) -> ModuleType:
    try:
        return import_module(library)
    except ModuleNotFoundError:
        raise UserError(f"{library}'s weights need {library}: pip install {library}") from None


def _from_timm(weights: PublishedWeights) -> StateDict:
    timm = _import("timm")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{weights.name}.*")]
    _check_tag(weights, tags)
    name = f"{weights.name}.{weights.tag}" if weights.tag else weights.name
    source: Any = timm.get_pretrained_cfg(name)
    with downloading(f"timm's weights '{name}'", _way_out(source.url or source.hf_hub_id)):
        model: nn.Module = timm.create_model(name, pretrained=True)
    expected = weights.architecture.input
    warn_of_normalisation(f"timm's weights '{name}'", source.mean, source.std, expected)
    return model.state_dict()


def _from_torchvision(weights: PublishedWeights) -> StateDict:
    torchvision = _import("torchvision")
    options = torchvision.models.get_model_weights(weights.name)
    _check_tag(weights, [item.name for item in options])
    chosen = options[weights.tag] if weights.tag else options.DEFAULT
    what = f"torchvision's weights '{weights.name}'"
    with downloading(what, _way_out(chosen.url)):
        model: nn.Module = torchvision.models.get_model(weights.name, weights=chosen)
    return model.state_dict()


_FETCHERS: Mapping[str, Callable[[PublishedWeights], StateDict]] = {
    "timm": _from_timm,
    "torchvision": _from_torchvision,
    "package": _from_package,
}
"""By what an address begins with: fetches the tensors, by their names there."""


def _check_tag(weights: PublishedWeights, tags: Sequence[str]) -> None:
    if weights.tag and weights.tag not in tags:
        raise UserError(
            f"{weights.library} has no weights '{weights.tag}' of '{weights.name}'; expected "
            f"{', '.join(f'{weights.address}.{tag}' for tag in tags)}"
        )


def _way_out(url: str) -> str:
    return f"download {url} elsewhere and name the file (MODEL.WEIGHTS, or checkpoint_path)"
