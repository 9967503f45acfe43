"""The known answer: what every network of a small space is worth, and the regret against it."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
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
    scores: Mapping[str, dict[int, float]]

    def mean(self, measure: str) -> float:
        """Over the seeds: the truth about the network."""
        return statistics.fmean(self.scores[measure].values())


class Truth:
    """Every network of a space with its true accuracy.

    Args:
        networks: all of them.
        unit: of their runtimes.
        name: for error messages: the file.
        command: that made it.
    """

    def __init__(
        self,
        networks: Sequence[TrueNetwork],
        unit: str = "",
        name: str = "made up",
        command: str = "",
    ) -> None:
        self.networks = {network.layers: network for network in networks}
        self.unit = unit
        self.name = name
        self.command = command

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Truth:
        """Reads what ``spnas known-answer train`` wrote.

        Raises:
            UserError: if it is missing, is no truth, or lacks trainings.
        """
        data = read_json(path, "truth")
        if not isinstance(data, Mapping) or not {"trials", "size", "unit", "command"} <= set(data):
            raise UserError(
                f"'{path}' is not a truth; expected a file that spnas known-answer train wrote"
            )
        truth = cls(trained_networks(data["trials"]), data["unit"], str(path), data["command"])
        seeds = [set(network.scores["top1"]) for network in truth.networks.values()]
        if len(seeds) != data["size"] or any(found != seeds[0] for found in seeds):
            raise UserError(
                f"the truth '{path}' is not finished: {sum(map(len, seeds))} trainings of "
                f"{len(seeds)} networks, and the space has {data['size']}; go on with "
                "spnas known-answer train"
            )
        return truth

    def lookup(self, layers: str) -> TrueNetwork:
        """The network of these layer types.

        Raises:
            UserError: if the truth does not hold it.
        """
        if layers not in self.networks:
            raise UserError(
                f"the truth '{self.name}' holds no network '{layers}'; its "
                f"{len(self.networks)} are like '{next(iter(self.networks))}': search the space "
                "that it was trained for, or train it anew with spnas known-answer train"
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
                f"the truth '{self.name}' has no network within {100 * tolerance:g} % "
                f"below {target:g} {self.unit}; ask for another target"
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
            self.regret(network.layers, target, measure) for network in self.band(target, tolerance)
        )

    def reliability(self, measure: str = "top1") -> dict[str, float]:
        """How much of what is seen is the architecture, and how much the seed.

        Returns:
            ``architectures``: standard deviation between networks, with the seeds' part in the
            variance of the means taken out; ``seeds``: between trainings of one network, pooled;
            their ``ratio``; and ``rank_correlation``, Spearman's ρ between the networks' scores
            in two seeds, the mean over all pairs of seeds; NaN where a seed ranks nothing.
        """
        scores = self._scores(measure)
        seeds = math.sqrt(scores.var(axis=1, ddof=1).mean())
        variance = scores.mean(axis=1).var(ddof=1) - seeds**2 / scores.shape[1]
        architectures = math.sqrt(max(variance, 0.0))
        with np.errstate(invalid="ignore"):  # all alike in a seed: NaN says so
            correlations = np.corrcoef(rankdata(scores, axis=0), rowvar=False)
        pairs = correlations[np.triu_indices(scores.shape[1], 1)]
        return {
            "architectures": architectures,
            "seeds": seeds,
            "ratio": architectures / seeds if seeds else math.inf,
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
            trainings = min(map(len, rows), default=0)
            raise UserError(
                f"the truth '{self.name}' has {len(rows)} networks of {trainings} trainings; a "
                "spread needs at least two of each: raise --seeds"
            )
        return np.array(rows)


def trained_networks(trials: Iterable[Mapping[str, Any]]) -> list[TrueNetwork]:
    """The networks of a study's trials: one trial per training, with layers, seed and scores."""
    networks: dict[str, TrueNetwork] = {}
    for trial in trials:
        network = networks.setdefault(
            trial["layers"],
            TrueNetwork(trial["layers"], trial["runtime"], {measure: {} for measure in MEASURES}),
        )
        for measure in MEASURES:
            network.scores[measure][trial["seed"]] = trial[measure]
    return list(networks.values())
