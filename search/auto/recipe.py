"""The keys of every stage, as they follow from what is asked for and what the data propose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog

from backbones.errors import UserError
from backbones.exported import ARCHITECTURE_FILE
from backbones.published import SCHEMES
from backbones.trained import named_architecture, named_weights
from backbones.zoo import list_models
from detection.modeling.pixels import pixel_keys
from search.auto.request import Request
from search.studies.commands import Command

TRAINING = "configs/detection/custom_lite.yaml"
SEARCH = "configs/search/mask_rcnn_pretrained.yaml"
LITE0 = "efficientnet_lite0"
"""The network that both configurations are written for."""

TUNING = ("SOLVER.BACKBONE_LR_MULT", "0.5")
"""Of a network that was cut out of another one, and has to move further than the start."""

_RETINANET = (
    *("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.MASK_ON", "False"),
    *("MODEL.SPNAS.OUT_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.RETINANET.NUM_CLASSES", "0", "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA", "0.0"),
    *("MODEL.RETINANET.NUM_CONVS", "2"),
    "MODEL.ANCHOR_GENERATOR.SIZES",
    "[[16, 20, 25], [32, 40, 51], [64, 81, 102], [128, 161, 203], [256, 323, 406]]",
)
_DETECTORS: dict[str, tuple[str, ...]] = {
    "mask_rcnn": (),
    "faster_rcnn": ("MODEL.MASK_ON", "False"),
    "retinanet": _RETINANET,
}
_BUILDERS = {"retinanet": "build_retinanet_{}_fpn_backbone"}


@dataclass(frozen=True)
class Recipe:
    """Keys of every stage.

    Attributes:
        request: what is asked for.
        proposed: keys and values that the data propose, in turns.
        deploy_size: height and width in pixels that runtimes are for.
    """

    request: Request
    proposed: tuple[str, ...] = ()
    deploy_size: tuple[int, int] = (320, 320)

    def training(
        self, folder: Path, output: Path, epochs: float, own: Sequence[str] = ()
    ) -> Command:
        """A training of a detector.

        Args:
            folder: of the run.
            output: of all.
            epochs: passes over the training images.
            own: keys and values of this training alone, in turns: its backbone, its rate.
        """
        options = (*self.detector("spnas"), "SOLVER.EPOCHS", f"{epochs:g}", *own)
        return Command("train_net.py", TRAINING, folder, options, study=output)

    def searching(self, folder: Path, output: Path, own: Sequence[str]) -> Command:
        """A search on the losses of a trained detector.

        Args:
            folder: of the run.
            output: of all.
            own: its weights, table, targets and length.
        """
        height, width = self.deploy_size
        request = self.request
        options = (
            *self.detector("supernet"),
            *self.space_options,
            *("SEARCH.DEPLOY_SIZE", f"[{height}, {width}]"),
            *own,
            *request.search_options,
        )
        return Command("search_net.py", SEARCH, folder, options, study=output)

    def detector(self, kind: str) -> tuple[str, ...]:
        """Keys of the detector and of its data.

        Args:
            kind: of the backbone's builder: ``spnas`` or ``supernet``.
        """
        request = self.request
        builder = _BUILDERS.get(request.detector, "")
        backbone = ("MODEL.BACKBONE.NAME", builder.format(kind)) if builder else ()
        return (
            *data_options(request.data, request.data_val),
            *(("MODEL.DEVICE", "cuda") if torch.cuda.is_available() else ()),
            *_DETECTORS[request.detector],
            *backbone,
            *self._pixels(),
            *self.proposed,
            *request.detector_options,
        )

    def _pixels(self) -> tuple[str, ...]:
        seed = self.request.seed_network
        return () if seed == LITE0 else pixel_keys(named_architecture(seed).input)

    @property
    def seed_options(self) -> tuple[str, ...]:
        """The seed network and its published weights; the configuration's own have no keys."""
        seed = self.request.seed_network
        if seed == LITE0:
            return ()
        weights = named_weights(seed, "--seed-network")
        return ("MODEL.SPNAS.ARCH", seed_architecture(seed), "MODEL.WEIGHTS", weights)

    @property
    def space_options(self) -> tuple[str, ...]:
        """Keys of the search space."""
        seed = self.request.seed_network
        return (*(() if seed == LITE0 else ("SEARCH.START", seed)), *self.request.space_options)


def seed_architecture(seed: str) -> str:
    """The zoo's name, or the file, of a seed network's architecture.

    Raises:
        UserError: if it has neither, or there is no such network.
    """
    try:
        network = named_architecture(seed)
    except UserError as error:
        raise UserError(f"--seed-network is '{seed}': {error}") from None
    if seed.startswith(SCHEMES):
        if network.name not in list_models():
            raise UserError(
                f"--seed-network is '{seed}', weights of '{network.name}'; expected a network of "
                f"the zoo at its own width: {', '.join(list_models())}"
            )
        return network.name
    folder = Path(seed).expanduser()
    return str(folder / ARCHITECTURE_FILE) if folder.is_dir() else seed


def data_options(data: str, val: str = "") -> tuple[str, ...]:
    """The keys that name the data.

    Args:
        data: a folder, what the names of registered sets begin with, or a training set.
        val: the validation set of a training set.
    """
    if val:
        return ("DATASETS.TRAIN", data, "DATASETS.TEST", val)
    names = [f"{data}_train", f"{data}_val"]
    if not Path(data).exists() and set(names) <= set(DatasetCatalog.list()):
        return ("DATASETS.TRAIN", names[0], "DATASETS.TEST", names[1])
    return ("DATA.ROOT", data)
