"""The known answer: what every network of a small space is worth, and the regret against it."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from backbones.errors import UserError
from backbones.files import read_json

MEASURES = {"top1": 1, "loss": -1}
"""What a network is judged by, and its sign: more of it is better, or less."""


@dataclass(frozen=True)
class TrueNetwork:
    """One network of the space, trained several times by one recipe.

    Attributes:
        layers: the types of its searchable layers, as ``type_names`` lists them.
        runtime: in the unit of the latency table.
        scores: by measure, what every training ended with, by seed: held-out top-1 in percent,
            held-out cross entropy.
    """

    layers: str
    runtime: float
    scores: Mapping[str, Mapping[int, float]]

    def mean(self, measure: str) -> float:
        """Over the seeds: the truth about the network."""
        return statistics.fmean(self.scores[measure].values())

    def spread(self, measure: str) -> float:
        """Sample standard deviation over the seeds; of one training, 0."""
        values = list(self.scores[measure].values())
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with means and spreads for readers of the file."""
        return {
            "layers": self.layers,
            "runtime": self.runtime,
            "scores": {
                measure: {str(seed): by_seed[seed] for seed in sorted(by_seed)}
                for measure, by_seed in self.scores.items()
            },
            "mean": {measure: round(self.mean(measure), 4) for measure in self.scores},
            "spread": {measure: round(self.spread(measure), 4) for measure in self.scores},
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> TrueNetwork:
        """Reads what :meth:`to_dict` wrote."""
        scores = {
            measure: {int(seed): float(value) for seed, value in by_seed.items()}
            for measure, by_seed in row["scores"].items()
        }
        return cls(row["layers"], float(row["runtime"]), scores)


class Truth:
    """Every network of a space with its true accuracy.

    Args:
        networks: all of them.
        unit: of their runtimes.
        where: named in error messages, e.g. the file.
        command: that made it.
    """

    def __init__(
        self,
        networks: Sequence[TrueNetwork],
        unit: str = "",
        where: str = "the truth",
        command: str = "",
    ) -> None:
        self.networks = {network.layers: network for network in networks}
        self.unit = unit
        self.where = where
        self.command = command

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Truth:
        """Reads what ``tools/known_answer.py train`` wrote.

        Raises:
            UserError: if it is missing, is no truth, or lacks trainings.
        """
        data = read_json(path, "truth")
        if not isinstance(data, Mapping) or not {"networks", "size", "unit", "command"} <= set(data):
            raise UserError(
                f"'{path}' is not a truth; expected a file that tools/known_answer.py train wrote"
            )
        networks = [TrueNetwork.from_dict(row) for row in data["networks"]]
        seeds = [set(network.scores["top1"]) for network in networks]
        if len(networks) != data["size"] or any(found != seeds[0] for found in seeds):
            raise UserError(
                f"the truth '{path}' is not finished: {sum(map(len, seeds))} trainings of "
                f"{len(networks)} networks, and the space has {data['size']}; go on with "
                "tools/known_answer.py train"
            )
        return cls(networks, data["unit"], f"the truth '{path}'", data["command"])

    def lookup(self, layers: str) -> TrueNetwork:
        """The network of these layer types.

        Raises:
            UserError: if the truth does not hold it.
        """
        if layers not in self.networks:
            raise UserError(
                f"{self.where} holds no network '{layers}'; its {len(self.networks)} networks are "
                f"like '{next(iter(self.networks))}': search the space that it was trained for, "
                "or train it anew with tools/known_answer.py train"
            )
        return self.networks[layers]

    def band(self, target: float, tolerance: float = math.inf) -> list[TrueNetwork]:
        """The networks whose runtime is at most the target and within the tolerance below it.

        Args:
            target: in the unit of the runtimes.
            tolerance: as a part of the target; by default every network that is fast enough.

        Raises:
            UserError: if there are none.
        """
        found = [
            network
            for network in self.networks.values()
            if target * (1 - tolerance) <= network.runtime <= target * (1 + 1e-6)
        ]
        if not found:
            raise UserError(
                f"{self.where} has no network within {100 * tolerance:g} % below {target:g} "
                f"{self.unit}; ask for another target"
            )
        return found

    def best(self, target: float, measure: str = "top1") -> TrueNetwork:
        """The truly best network that is fast enough."""
        return max(self.band(target), key=lambda n: MEASURES[measure] * n.mean(measure))

    def regret(self, layers: str, target: float, measure: str = "top1") -> float:
        """How much the best network at the target is better than the one found; at least 0.

        Raises:
            UserError: if the network found is unknown, or slower than the target.
        """
        found = self.lookup(layers)
        if found not in self.band(target):
            raise UserError(
                f"the network '{layers}' takes {found.runtime:g} {self.unit}, more than the "
                f"target, {target:g}: its regret would compare it with faster networks"
            )
        best = self.best(target, measure)
        return MEASURES[measure] * (best.mean(measure) - found.mean(measure))

    def chance(self, target: float, tolerance: float, measure: str = "top1") -> float:
        """The expected regret of a network drawn uniformly in the band below the target."""
        return statistics.fmean(
            self.regret(network.layers, target, measure)
            for network in self.band(target, tolerance)
        )

    def reliability(self, measure: str = "top1") -> dict[str, float]:
        """How much of what is seen is the architecture, and how much the seed.

        Returns:
            ``architectures``: standard deviation between networks, with the seeds' part in the
            variance of the means taken out; ``seeds``: between trainings of one network, pooled;
            their ``ratio``; and ``rank_correlation``, Spearman's ρ between the networks' scores
            in two seeds, the mean over all pairs of seeds.
        """
        scores = self._scores(measure)
        seeds = math.sqrt(scores.var(axis=1, ddof=1).mean())
        variance = scores.mean(axis=1).var(ddof=1) - seeds**2 / scores.shape[1]
        architectures = math.sqrt(max(variance, 0.0))
        correlations = np.corrcoef(rankdata(scores, axis=0), rowvar=False)
        pairs = correlations[np.triu_indices(scores.shape[1], 1)]
        return {
            "architectures": architectures,
            "seeds": seeds,
            "ratio": architectures / seeds,
            "rank_correlation": float(pairs.mean()),
        }

    def _scores(self, measure: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(networks, seeds) of one measure.

        Raises:
            UserError: if there are not at least two of each.
        """
        rows = [
            [network.scores[measure][seed] for seed in sorted(network.scores[measure])]
            for network in self.networks.values()
        ]
        if len(rows) < 2 or min(map(len, rows)) < 2:
            raise UserError(
                f"{self.where} has {len(rows)} networks of {min(map(len, rows), default=0)} "
                "trainings; a spread needs at least two of each: raise --seeds"
            )
        return np.array(rows)
