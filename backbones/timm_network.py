"""A network of this project with the interface of timm's models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import create_classifier
from timm.models import adapt_input_conv, checkpoint_seq
from timm.models._features import FeatureGetterNet, feature_take_indices
from torch import Tensor, nn

from backbones.architecture import Architecture
from backbones.blocks import init_weights
from backbones.errors import UserError
from backbones.network import FeatureInfo, build_classifier
from backbones.published import load_state
from backbones.weights import load_weights

FIRST_CONV, CLASSIFIER = "stem.conv", "classifier"
"""What timm has to know of the names: what depends on the channels of images, and on the classes.
"""

_HEAD = ("head.", "hidden.", "classifier.")


class TimmNetwork(nn.Module):
    """What :class:`backbones.network.Classifier` computes, with timm's methods and attributes.

    The parameters have the same names as there, so that ``backbone.pth`` fits.

    Args:
        architecture: of the network.
        num_classes: outputs of the classifier; 0 returns pooled features.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier.
        global_pool: ``avg``, ``max``, ``avgmax``, ``catavgmax``, or empty for none.
        num_features: channels of the head's map; None takes the architecture's, and 0 leaves the
            head out, as for timm's EfficientNets.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        UserError: if a value is impossible.
    """

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        num_features: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        channels = architecture.head.out_channels
        if num_features not in (None, 0, channels):
            raise UserError(
                f"num_features is {num_features}; architecture '{architecture.name}' has "
                f"{channels}, and 0 leaves the head out"
            )
        network = build_classifier(architecture, num_classes, drop_rate)
        self.architecture = architecture
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.grad_checkpointing = False
        self.feature_layers = architecture.feature_layers
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": item.num_chs, "reduction": item.reduction, "module": item.module}
            for item in FeatureInfo.of(architecture)
        ]
        self.stem, self.layers = network.stem, network.layers
        self.head: nn.Module = network.head
        self.hidden: nn.Module = network.hidden
        self.dropout, self.classifier = network.dropout, network.classifier
        self.num_features, self._pooled = network.num_features, network.head_hidden_size
        if in_chans != 3:
            _set_in_channels(self.stem.conv, in_chans)
            init_weights(self.stem)
        if num_features == 0:
            self._leave_head_out(architecture.layers[-1].out_channels)
        self._set_pool(global_pool)
        if num_features == 0 or self.head_hidden_size != network.head_hidden_size:
            self.reset_classifier(num_classes)
        self.to(device=device, dtype=dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) → the head's map (N, num_features, H/32, W/32)."""
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint_seq(self.layers, x)
        else:
            for layer in self.layers:
                x = layer(x)
        return self.head(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The head's map → logits (N, num_classes), or what the classifier sees."""
        x = self.global_pool(x)
        if x.dim() == 4:  # without pooling there is a map, and no classifier
            return x
        x = self.dropout(self.hidden(x))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, in_chans, H, W) → logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The maps at strides 2 to 32, and the head's map.

        Args:
            x: images (N, in_chans, H, W).
            indices: which of the five maps; a number is that many of the last, None is all.
            norm: of no effect, as every layer ends with a batch norm.
            stop_early: compute nothing behind the last map asked for.
            output_fmt: ``NCHW`` alone.
            intermediates_only: leave the head's map out.

        Returns:
            The head's map (N, num_features, H/32, W/32) and the list of maps, or the list alone.
        """
        if output_fmt != "NCHW":
            raise UserError(f"output_fmt is '{output_fmt}'; expected NCHW")
        taken, last = feature_take_indices(len(self.feature_layers), indices)
        ends = [self.feature_layers[index] for index in taken]
        layers = self.layers[: self.feature_layers[last] + 1] if stop_early else self.layers
        maps: list[Tensor] = []
        x = self.stem(x)
        for index, layer in enumerate(layers):
            x = layer(x)
            if index in ends:
                maps.append(x)
        if intermediates_only:
            return maps
        return (self.head(x) if len(layers) > self.feature_layers[-1] else x), maps

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes what the maps asked for do not need.

        Returns:
            Their indices, from 0.
        """
        taken, last = feature_take_indices(len(self.feature_layers), indices)
        whole = last == len(self.feature_layers) - 1
        self.layers = self.layers[: self.feature_layers[last] + 1]
        if prune_norm or prune_head or not whole:
            self._leave_head_out(self.feature_info[last]["num_chs"])
            self.reset_classifier(0, "")
        return list(taken)

    def get_classifier(self) -> nn.Module:
        """The linear layer; the identity without classes."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier of so many classes; 0 is none."""
        if num_classes < 0:
            raise UserError(f"num_classes is {num_classes}; expected 0 (no classifier) or more")
        weight = self.stem.conv.weight
        if global_pool is not None:
            self._set_pool(global_pool)
        self.num_classes = num_classes
        _, classifier = create_classifier(self.head_hidden_size, num_classes, "avg")
        init_weights(classifier)
        self.classifier = classifier.to(weight).train(self.training)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of parameter names from the first layers to the last, for rates by layer."""
        return {
            "stem": r"^stem",
            "blocks": [(r"^layers\.(\d+)", None), (r"^(?:head|hidden)\.", (99999,))],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether layers are computed again for the gradients rather than remembered."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def load_pretrained(self, source: str | os.PathLike[str]) -> None:
        """Weights of this architecture from whatever file or address ``docs/weights.md`` names.

        The first convolution is adapted to other images as timm does. A classifier of another
        class count, and a head that this network is without, are left out.

        Raises:
            UserError: if they do not fit.
        """
        state = dict(load_state(source, self.architecture))
        stem = state.get(f"{FIRST_CONV}.weight")
        if stem is not None and stem.shape[1] != self.in_chans:
            state[f"{FIRST_CONV}.weight"] = adapt_input_conv(self.in_chans, stem)
        weight = state.get("classifier.weight")
        own = self.state_dict().get("classifier.weight")
        ignore = self.left_out
        if not ignore and (weight is None or own is None or own.shape != weight.shape):
            ignore = ("classifier.",)
        load_weights(self, state, os.fspath(source), ignore)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Beginnings of names that the weights of the whole network have, and this one has not."""
        return _HEAD if isinstance(self.head, nn.Identity) else ()

    def _leave_head_out(self, channels: int) -> None:
        self.head, self.hidden = nn.Identity(), nn.Identity()
        self.num_features = self._pooled = channels

    def _set_pool(self, global_pool: str) -> None:
        pool, _ = create_classifier(1, 0, global_pool)
        factor = pool.feat_mult()
        if factor != 1 and not isinstance(self.hidden, nn.Identity):
            raise UserError(
                f"global_pool is '{global_pool}', which makes {factor} features of each channel, "
                f"and architecture '{self.architecture.name}' has a layer between pooling and "
                "classifier: use avg, max or avgmax"
            )
        self.global_pool = pool.train(self.training)
        self.head_hidden_size = self._pooled * factor


class TimmFeatures(FeatureGetterNet):
    """timm's ``features_only``, which takes the weights of the whole network as well."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As PyTorch's; of a network that is not pruned, what has no place here is left out."""
        own = self.state_dict()
        if not any(name in own for name in state_dict):
            state_dict = {
                f"model.{name}": value
                for name, value in state_dict.items()
                if f"model.{name}" in own
            }
        return super().load_state_dict(state_dict, strict=strict, assign=assign)


def _set_in_channels(conv: nn.Conv2d, channels: int) -> None:
    if channels < 1:
        raise UserError(f"in_chans is {channels}; expected 1 or more")
    conv.in_channels = channels
    shape = (conv.out_channels, channels, *conv.kernel_size)
    conv.weight = nn.Parameter(conv.weight.new_empty(shape))
