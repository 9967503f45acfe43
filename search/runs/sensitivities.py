"""The losses of a network with one layer changed, as they are measured and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        self, file: Path, space: SearchSpace, iterations: int, around: Sequence[Choice]
    ) -> None:
        """Reads what the file has of this network.

        Args:
            file: of losses after ``iterations``; others in it are dropped.
            space: of the network.
            iterations: that the weights were trained for.
            around: the network's choices.
        """
        self._file, self._space, self._iterations = file, space, iterations
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
            "iterations": self._iterations,
            "networks": [*self._others(own=False), own],
        }
        write_json(self._file, content)

    def _others(self, own: bool) -> list[dict[str, Any]]:
        """Entries of this network, or of the others, for the same weights."""
        if not self._file.exists():
            return []
        content = read_json(self._file, "sensitivities")
        if (content["space"], content["iterations"]) != (self._space.name, self._iterations):
            return []
        return [
            entry
            for entry in content["networks"]
            if (entry["around"] == self._around) == own
            # a space of the same name may have had other options
            and all(
                list(row) == types for row, types in zip(entry["layers"], self._types, strict=False)
            )
        ]
