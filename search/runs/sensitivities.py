"""The losses of a network with one layer changed, as they are measured and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from backbones.files import read_json, write_json
from search.space import Choice, SearchSpace


class Sensitivities:
    """Losses around one network, in a file with those around others.

    Attributes:
        loss: of the network; None until it is measured.
        layers: of the layers measured so far: the loss with every choice, in the order of
            ``space.choices``.
    """

    def __init__(
        self, file: Path, space: SearchSpace, measured: str, around: Sequence[Choice]
    ) -> None:
        """Reads what the file has of this network.

        Args:
            file: of losses; those that were measured otherwise are dropped.
            space: of the network.
            measured: stands for all that losses depend on beside the network.
            around: the network's choices.
        """
        self._file, self._space, self._measured = file, space, measured
        self._around = " ".join(str(space.choice_type(choice)) for choice in around)
        self._types = [
            [str(space.choice_type(choice)) for choice in space.choices(layer)]
            for layer in space.layers
        ]
        self.loss: float | None = None
        self.layers: list[list[float]] = []
        for entry in self._others(own=True):
            self.loss = entry["loss"]
            self.layers = [list(row.values()) for row in entry["layers"]]

    def save(self) -> None:
        """Writes what is known into the file, beside the losses around other networks."""
        rows = [
            dict(zip(types, row, strict=True))
            for types, row in zip(self._types, self.layers, strict=False)
        ]
        own = {"around": self._around, "loss": self.loss, "layers": rows}
        content = {
            "space": self._space.name,
            "measured": self._measured,
            "networks": [*self._others(own=False), own],
        }
        write_json(self._file, content)

    def _others(self, own: bool) -> list[dict[str, Any]]:
        """Entries of this network, or of the others, that were measured alike."""
        if not self._file.exists():
            return []
        content = read_json(self._file, "sensitivities")
        if content.get("measured") != self._measured:
            return []
        return [e for e in content["networks"] if (e["around"] == self._around) == own]


def digest_of(space: SearchSpace, settings: Mapping[str, Any], weights: nn.Module) -> str:
    """Twelve hexadecimal digits that stand for all that losses of a supernet depend on.

    Args:
        space: of its networks.
        settings: how they are measured.
        weights: the supernet, statistics included.
    """
    text = json.dumps([space.to_dict(), settings], sort_keys=True, default=str)
    found = hashlib.sha256(text.encode())
    for name, value in weights.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]
