"""Loading a detector's weights, insisting that all of its backbone finds a place."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from backbones.errors import UserError
from backbones.exported import BACKBONE_FILE
from backbones.published import own_state
from backbones.states import library_of, network_state
from detection.engine.checkpoint import Checkpointer
from detection.modeling.backbone import NamedBackbone, SPNASBackbone

_log = logging.getLogger(__name__)


class DetectorCheckpointer(Checkpointer):
    """A checkpointer that refuses to start from the backbone of another architecture.

    Pyramid and heads may be missing, as they are in ``backbone.pth``, or may be of another number
    of classes; that is logged. A half-loaded backbone would train, and be worth nothing. Files
    that timm, torchvision or pytorchcv wrote of the same network are renamed.

    Attributes:
        classes: names of the classes in their order, to be written into every file; empty if they
            are not known.
    """

    classes: Sequence[str] = ()

    def save(self, name: str, **kwargs: Any) -> None:
        """As :meth:`Checkpointer.save`, with the classes."""
        known = {"classes": list(self.classes)} if self.classes else {}
        super().save(name, **known, **kwargs)

    def _load_model(self, checkpoint: Any) -> Any:
        self._check_other_backbone(checkpoint)
        if (prefix := backbone_prefix(self.model)) is not None:
            backbone = self.model.get_submodule(prefix.removesuffix("."))
            assert isinstance(backbone, SPNASBackbone)
            checkpoint["model"] = self._with_our_names(checkpoint["model"], backbone)
            names = set(checkpoint["model"])
            # A classifier's own checkpoint, or a backbone.pth that lost its mark.
            if not names & set(self.model.state_dict()) and names & set(backbone.state_dict()):
                checkpoint["matching_heuristics"] = True
            if problems := misfits(backbone, checkpoint["model"], prefix):
                raise UserError(
                    f"the checkpoint '{self._path}' belongs to another architecture than the "
                    f"backbone '{backbone.architecture.name}': {len(problems)} tensors do not "
                    f"fit, first {'; '.join(problems[:2])}; {backbone.weights_hint}"
                )
        return super()._load_model(checkpoint)

    def _with_our_names(self, state: dict[str, Any], backbone: SPNASBackbone) -> dict[str, Any]:
        """The tensors by the names of the detector, or of a network with such a backbone."""
        state = self._unwrapped(state)
        if set(state) & set(self.model.state_dict()):
            return state
        if library_of(network := network_state(state, self._path)):
            return own_state(backbone.architecture, network, self._path)
        return state

    def _check_other_backbone(self, checkpoint: Any) -> None:
        """A backbone's file is matched by the ends of names, which can fit timm's by chance."""
        for module in self.model.modules():
            foreign = isinstance(module, NamedBackbone) and not isinstance(module, SPNASBackbone)
            if foreign and checkpoint.get("matching_heuristics"):
                raise UserError(
                    f"the checkpoint '{self._path}' holds a backbone, and not '{module.name}'; "
                    f"leave MODEL.WEIGHTS empty and set {module.config_key}.PRETRAINED to True"
                )


def mention_backbone_beside(cfg: CfgNode) -> None:
    """Says so where weights lie beside ``MODEL.SPNAS.ARCH`` and ``MODEL.WEIGHTS`` are others."""
    architecture = Path(cfg.MODEL.get("SPNAS", {}).get("ARCH", "")).expanduser()
    weights = architecture.with_name(BACKBONE_FILE)
    if architecture.suffix != ".json" or not weights.is_file():
        return
    if not cfg.MODEL.WEIGHTS or weights.resolve() != Path(cfg.MODEL.WEIGHTS).resolve():
        _log.info("'%s' is not loaded; MODEL.WEIGHTS %s would do that", weights, weights)


def backbone_prefix(model: nn.Module) -> str | None:
    """Where the backbone's parameters are in a detector: ``backbone.bottom_up.``; None without."""
    for name, module in model.named_modules():
        if isinstance(module, SPNASBackbone):
            return f"{name}." if name else ""
    return None


def misfits(backbone: SPNASBackbone, state: Mapping[str, Any], prefix: str) -> list[str]:
    """What keeps the tensors of a checkpoint from filling the backbone.

    Left over may be: layers behind the last feature map, the classifier's head, the statistics of
    batch norms that this model does not have, and everything that is not of a backbone.

    Args:
        backbone: the backbone in the model.
        state: the tensors of the checkpoint, of a detector or of a backbone alone.
        prefix: of the backbone's parameters in the model.

    Returns:
        One entry per tensor; empty if everything fits or the checkpoint has no backbone at all.
    """
    expected = {k: tuple(v.shape) for k, v in backbone.state_dict().items()}
    found = {_relative(name, prefix): tuple(value.shape) for name, value in state.items()}
    if not set(expected) & set(found):
        return []
    names = [name for name in expected if expected[name] != found.get(name)]
    names += [name for name in found if name not in expected and _is_of(name, backbone)]
    return [
        f"{name} ({_shape(found.get(name))} in the file, {_shape(expected.get(name))} in the model)"
        for name in names
        if not name.endswith("num_batches_tracked")
    ]


def _relative(name: str, prefix: str) -> str:
    """A parameter's name within the backbone, however much of the prefix the file has."""
    parts = prefix.split(".")
    name = name.removeprefix("module.")
    for start in range(len(parts) - 1):
        if name.startswith(beginning := ".".join(parts[start:])):
            return name.removeprefix(beginning)
    return name


def _is_of(name: str, backbone: SPNASBackbone) -> bool:
    """Whether a tensor without a place in the model belongs to layers that the backbone has."""
    parts = name.split(".")
    if parts[-1] in ("running_mean", "running_var"):
        return False
    if parts[0] == "layers":
        return len(parts) > 1 and parts[1].isdecimal() and int(parts[1]) < len(backbone.layers)
    return parts[0] == "stem"


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "×".join(map(str, shape)) or "scalar"
