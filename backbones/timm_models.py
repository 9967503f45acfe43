"""The networks of this project in timm's registry: importing this module puts them there.

``spnas_searched`` is any architecture (``architecture=``: an ``architecture.json``, the folder of
a run, or the same as data); a network of the zoo is ``spnas_NAME``. timm's own names stay timm's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
)
from torch import nn

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.published import SCHEMES, load_state, own_state, published_for
from backbones.timm_network import CLASSIFIER, FIRST_CONV, TimmFeatures, TimmNetwork
from backbones.trained import named_architecture, named_weights
from backbones.weights import StateDict
from backbones.zoo import list_models, load_architecture, published_weights

PREFIX = "spnas_"
SEARCHED = f"{PREFIX}searched"

__all__ = ["spnas_searched"]

_SOURCES = ("file", "url", "hf_hub_id", "state_dict")
"""Keys of timm's pretrained configurations that say where weights are."""

Named = str | os.PathLike[str] | Mapping[str, Any] | Architecture


def pretrained_config(architecture: Architecture) -> dict[str, Any]:
    """What timm has to know of a network: its images, and which modules depend on the data."""
    images = architecture.input
    return {
        "input_size": (3, images.size, images.size),
        "mean": images.mean,
        "std": images.std,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "first_conv": FIRST_CONV,
        "classifier": CLASSIFIER,
    }


def spnas_searched(
    pretrained: bool = False,
    *,
    architecture: Named | None = None,
    width_mult: float = 1.0,
    pretrained_cfg: Any = None,
    **kwargs: Any,
) -> nn.Module:
    """Any architecture, as ``timm.create_model("spnas_searched", architecture=...)``.

    Args:
        pretrained: load the weights beside the architecture (``backbone.pth`` of a run,
            ``model.safetensors`` of a shared model), or published ones.
        architecture: a path, the folder of a run, a name of the zoo, or the decoded JSON.
        width_mult: channel multiplier (Fig. 7).
        pretrained_cfg: as of any model of timm's: a configuration, or the tag of published weights.
        kwargs: as of any model of timm's: ``features_only``, ``out_indices``, and what
            :class:`TimmNetwork` takes.

    Raises:
        UserError: if there is no such architecture, or there are no weights that fit.
    """
    return _create(SEARCHED, pretrained, architecture, width_mult, pretrained_cfg, kwargs)


def _create(
    variant: str,
    pretrained: bool,
    architecture: Named | None,
    width_mult: float,
    pretrained_cfg: Any,
    kwargs: Mapping[str, Any],
) -> nn.Module:
    """:func:`spnas_searched` by the name that timm shall know the network by."""
    if architecture is None:
        raise UserError(
            f"'{SEARCHED}' needs architecture=..., the path of an architecture.json or the folder "
            f"of a run; networks of the zoo are {PREFIX}NAME, in timm.list_models('{PREFIX}*')"
        )
    base = _read(architecture)
    scaled = base.scaled(width_mult)
    if isinstance(pretrained_cfg, PretrainedCfg):
        pretrained_cfg = pretrained_cfg.to_dict()
    given = pretrained_cfg if isinstance(pretrained_cfg, Mapping) else {}
    config = {**pretrained_config(scaled), **given}
    told = {**given, **(kwargs.get("pretrained_cfg_overlay") or {})}
    if pretrained and not any(told.get(key) for key in _SOURCES):
        source = _weights_of(architecture, base, width_mult)
        source += f".{pretrained_cfg}" if isinstance(pretrained_cfg, str) else ""
        classes = _class_count(source, scaled)
        config |= {"file": source, "custom_load": True, "num_classes": classes}
    return _build(variant, scaled, pretrained, config, kwargs)


def _build(
    variant: str,
    architecture: Architecture,
    pretrained: bool,
    config: Mapping[str, Any],
    kwargs: Mapping[str, Any],
) -> nn.Module:
    """What timm builds of :class:`TimmNetwork`."""

    def by_our_names(state: StateDict, model: TimmNetwork) -> StateDict:
        own = own_state(architecture, state, "the pretrained weights")
        return {name: value for name, value in own.items() if not name.startswith(model.left_out)}

    options = dict(kwargs)
    if options.get("features_only"):
        options["num_features"] = 0  # maps need no head
    model: nn.Module = build_model_with_cfg(
        TimmNetwork,
        variant,
        pretrained,
        pretrained_cfg=dict(config),
        pretrained_filter_fn=by_our_names,
        feature_cfg={"out_indices": (0, 1, 2, 3, 4), "feature_cls": TimmFeatures},
        architecture=architecture,
        **options,
    )
    return model


def _read(architecture: Named) -> Architecture:
    if isinstance(architecture, Architecture):
        return architecture
    if isinstance(architecture, Mapping):
        return Architecture.from_dict(architecture)
    return named_architecture(os.fspath(architecture))


def _weights_of(architecture: Named, base: Architecture, width_mult: float) -> str:
    """Where the weights of what a user named are."""
    if isinstance(architecture, Mapping | Architecture):
        raise UserError(
            f"architecture '{base.name}' is given as data, which says nothing of weights; name "
            "its file for those beside it, or give checkpoint_path"
        )
    name = os.fspath(architecture)
    if name in list_models():
        return published_for(base, width_mult).address
    return named_weights(name, "architecture")


def _class_count(source: str, architecture: Architecture) -> int:
    """Of the classifier in weights; 0 without one. Published ones are of ImageNet."""
    if source.startswith(SCHEMES):
        return 1000
    weight = load_state(source, architecture).get(f"{CLASSIFIER}.weight")
    return 0 if weight is None else len(weight)


def _zoo_name(name: str) -> str:
    return name if name.startswith(PREFIX) else f"{PREFIX}{name}"


def _register(name: str) -> None:
    """An entry of the zoo; timm takes its name and its module from the function."""

    def create(
        pretrained: bool = False,
        *,
        width_mult: float = 1.0,
        pretrained_cfg: Any = None,
        **kwargs: Any,
    ) -> nn.Module:
        return _create(_zoo_name(name), pretrained, name, width_mult, pretrained_cfg, kwargs)

    create.__name__ = create.__qualname__ = _zoo_name(name)
    create.__doc__ = f"The network '{name}' of the zoo; arguments as of ``{SEARCHED}``."
    globals()[create.__name__] = register_model(create)


def _default(name: str) -> dict[str, Any]:
    architecture = load_architecture(name)
    addresses = [w.address for w in published_weights(architecture) if w.width_mult == 1]
    config = pretrained_config(architecture)
    return {**config, "file": addresses[0], "custom_load": True} if addresses else config


default_cfgs = generate_default_cfgs(
    {
        SEARCHED: pretrained_config(load_architecture("spnas_100")),
        **{_zoo_name(name): _default(name) for name in list_models()},
    }
)
"""By name, as timm's own modules have them."""

register_model(spnas_searched)
for _name in list_models():
    _register(_name)
