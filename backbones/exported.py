"""The two files that a search or a classifier leaves: the architecture and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.architecture import Architecture
from backbones.weights import save_checkpoint

ARCHITECTURE_FILE, BACKBONE_FILE = "architecture.json", "backbone.pth"
DETECTOR_FILE = "detector.pth"
"""What a search on a detector found, with the pyramid and heads that it was searched with."""
SHARED_FILE = "model.safetensors"
"""The weights in the folder of a shared model."""


def save_backbone(
    folder: str | Path,
    architecture: Architecture,
    state: Mapping[str, Any],
) -> None:
    """Writes ``architecture.json`` and ``backbone.pth`` into a run's folder.

    ``matching_heuristics`` makes Detectron2's own checkpointer find the place of every tensor
    below ``backbone.bottom_up`` by the end of its name.
    """
    folder = Path(folder)
    save_checkpoint(folder / BACKBONE_FILE, {"model": dict(state), "matching_heuristics": True})
    architecture.save(folder / ARCHITECTURE_FILE)
