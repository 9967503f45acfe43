"""Which network a name on the command line means, and the weights and configuration beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE
from backbones.published import load_state
from backbones.trained import named_architecture, named_weights
from backbones.weights import StateDict
from backbones.zoo import load_architecture
from search.config import load_search_config

CONFIG_FILE, DETECTOR_FILE = "config.yaml", "model_final.pth"


@dataclass(frozen=True)
class Source:
    """A network with its weights.

    Attributes:
        architecture: of the backbone.
        weights: address or file.
        cfg: of the run that it is from; None where there is none.
        is_detector: whether the weights are those of a whole detector.
    """

    architecture: Architecture
    weights: str
    cfg: CfgNode | None = None
    is_detector: bool = False

    @cached_property
    def state(self) -> StateDict:
        """The weights of the backbone, and of the classifier where there is one.

        Raises:
            UserError: if they are not there, or are of another network.
        """
        return load_state(self.weights, self.architecture)


def find_source(
    model: str, weights: str = "", config_file: str = "", options: Sequence[str] = ()
) -> Source:
    """The network that a user means.

    Args:
        model: the folder of a run; an ``architecture.json``; a checkpoint, with ``config_file``; or
            a name or address of published weights.
        weights: replaces those beside the architecture.
        config_file: of a run, for what lies elsewhere.
        options: keys and values that change the configuration.

    Raises:
        UserError: if there is no such network, or no weights.
    """
    path = Path(model).expanduser()
    if path.is_dir() and not (path / ARCHITECTURE_FILE).is_file():
        return _of_detector_run(path, weights, config_file, options)
    if path.is_file() and path.suffix != ".json":
        return _of_checkpoint(path, weights, config_file, options)
    architecture = named_architecture(model)
    beside = (path if path.is_dir() else path.parent) / CONFIG_FILE
    if not config_file and beside.is_file() and path.exists():
        config_file = str(beside)
    if options and not config_file:
        raise UserError(
            f"'{options[0]}' is to change a configuration, and MODEL '{model}' has none; leave it "
            "out, or name one with --config-file"
        )
    cfg = load_search_config(config_file, options) if config_file else None
    return Source(architecture, weights or named_weights(model, "MODEL"), cfg)


def _of_detector_run(folder: Path, weights: str, config: str, options: Sequence[str]) -> Source:
    config = config or str(folder / CONFIG_FILE)
    if not Path(config).is_file():
        raise UserError(
            f"the folder '{folder}' has neither {ARCHITECTURE_FILE} nor {CONFIG_FILE}; name the "
            "folder of a search, a classifier or a detector"
        )
    cfg = load_search_config(config, options)
    file = Path(weights) if weights else folder / DETECTOR_FILE
    if not file.is_file():
        raise UserError(
            f"no weights at '{file}'; name a checkpoint of the run with --weights, or finish it"
        )
    return Source(_configured(cfg), str(file), cfg, is_detector=True)


def _of_checkpoint(path: Path, weights: str, config: str, options: Sequence[str]) -> Source:
    beside = path.with_name(CONFIG_FILE)
    if not config and beside.is_file():
        config = str(beside)
    if not config:
        raise UserError(
            f"'{path}' is a checkpoint, which does not say what network it is of; name its "
            "configuration with --config-file, or the architecture.json in place of MODEL and the "
            "checkpoint with --weights"
        )
    if weights:
        raise UserError(f"MODEL is the checkpoint '{path}': leave --weights '{weights}' out")
    cfg = load_search_config(config, options)
    return Source(_configured(cfg), str(path), cfg, is_detector=_names_detector(cfg))


def _configured(cfg: CfgNode) -> Architecture:
    """The architecture of a configuration."""
    return load_architecture(cfg.MODEL.SPNAS.ARCH).scaled(cfg.MODEL.SPNAS.WIDTH_MULT)


def _names_detector(cfg: CfgNode) -> bool:
    """Whether a configuration is one of a detector: it names a backbone for one."""
    usual: Any = load_search_config("").MODEL.BACKBONE
    return bool(usual.NAME != cfg.MODEL.BACKBONE.NAME)
