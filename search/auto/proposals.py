"""What to train with: input size, anchors, epochs and batch, from the data and the budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode

from detection.data.annotations.anchors import InputSize


@dataclass(frozen=True)
class Proposal:
    """A key, its value, and why, in half a line."""

    key: str
    value: object
    reason: str


@dataclass(frozen=True)
class Proposals:
    """What to train with.

    Attributes:
        size: of training and test images.
        deploy_size: height and width of the square image that the latency table is for.
        epochs: of the start's training; fewer where the budget is small.
        batch: images of a step.
        keys: for the configuration of the detector, with their reasons.
    """

    size: InputSize
    deploy_size: tuple[int, int]
    epochs: float
    batch: int
    keys: tuple[Proposal, ...]

    def options(self) -> tuple[str, ...]:
        """Keys and values in turns."""
        raise NotImplementedError


def check_data(cfg: CfgNode) -> dict[str, object]:
    """What the data are and what is odd in them, for ``data.json``.

    Args:
        cfg: of the detector, resolved (``resolve_data``).

    Raises:
        UserError: for the first error in them, as ``spnas check-data`` ends with.
    """
    raise NotImplementedError


def propose(
    cfg: CfgNode,
    side: int | None = None,
    steps: Callable[[InputSize], float] | None = None,
    most: int | None = None,
) -> Proposals:
    """Proposes from the training set's own statistics.

    Args:
        cfg: of the detector, resolved; its own values stay where they fit as well.
        side: shorter side of the images in pixels that was asked for; None proposes one.
        steps: how many training steps of the start the budget has at a size; None: no budget.
        most: largest shorter side that the targets allow (:func:`largest_side`); None: any.
    """
    raise NotImplementedError


def largest_side(target: float, runtime: float, side: int) -> int:
    """The largest side at which a search can come to a target.

    Args:
        target: the smallest one, in ms.
        runtime: of the seed network with its pyramid on a square image, in ms.
        side: of that image.
    """
    raise NotImplementedError
