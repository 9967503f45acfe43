"""Where, and with what, figures were measured: on this machine, or on another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from backbones.inference import Engine
from backbones.inference.hardware import available_cores, device_name
from backbones.latency import LatencyTable
from backbones.precisions import PRECISIONS
from search.command_line.registry import tool_command


@dataclass(frozen=True)
class MeasuredWith:
    """The setting of a measurement.

    Attributes:
        device: in words.
        engine: that ran the models.
        versions: of it and of what converted the models, by package.
        threads: of one inference.
        precision: short, as engines have it.
        cores: that the process could use; None where threads do not run on them.
        rounds: visits to everything.
        minutes: that the last start took.
        command: that measured, with what is worth saying of its options.
    """

    device: str
    engine: str
    versions: Mapping[str, str]
    threads: int
    precision: str
    cores: int | None
    rounds: int
    minutes: float
    command: str = field(default_factory=partial(tool_command, "profile_latency.py"))

    @classmethod
    def here(cls, engine: Engine, rounds: int, minutes: float) -> MeasuredWith:
        """By an engine of this process."""
        return cls(
            device_name(engine.device),
            engine.name,
            engine.versions(),
            engine.threads,
            engine.precision,
            available_cores() if engine.device == "cpu" else None,
            rounds,
            minutes,
        )

    def warning(self, noise: str) -> str:
        """What speaks against the figures.

        Args:
            noise: what already does so.
        """
        crowded = self.cores is not None and self.threads > self.cores
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        threads = f"measured with {self.threads} threads on {cores}, which wait for each other"
        return "; ".join(filter(None, (noise, threads if crowded else "")))

    def unlike(self, table: LatencyTable) -> str:
        """How this setting differs from a table's, with both; empty where it does not."""
        precision = PRECISIONS[self.precision]
        pairs = (
            ("", self.device, table.device),
            ("", self.engine, table.engine),
            ("", precision, table.precision),
            ("threads ", self.threads, table.threads or self.threads),
        )
        other = [f"{what}{ours} (the table: {theirs})" for what, ours, theirs in pairs
                 if ours != theirs]  # fmt: skip
        return f"measured with {', '.join(other)}" if other else ""
