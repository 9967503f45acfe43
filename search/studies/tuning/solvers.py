"""Solvers for λ: Optuna's samplers and pruners, and BoTorch for several fidelities."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.extras import require
from search.studies.tuning.attempts import ordinal

STARTUP_TRIALS = 4
"""Random trials before a model of the objective is fitted."""


@dataclass(frozen=True)
class Fidelities:
    """The λ and the epochs that a study may try.

    Attributes:
        lowest, highest: λ, drawn on a logarithmic scale.
        min_epochs, max_epochs: of one search; the last is the full fidelity.
    """

    lowest: float = 0.01
    highest: float = 10.0
    min_epochs: int = 2
    max_epochs: int = 8


@dataclass(frozen=True)
class Solver:
    """A solver: how the next λ and the epochs of its search are chosen.

    Attributes:
        make_sampler: (fidelities, seed) → an Optuna sampler.
        chooses_epochs: whether the epochs are a parameter of a trial too; otherwise every search
            has ``max_epochs``.
        stops_early: whether unpromising searches are pruned after every epoch (Hyperband).
        size: of a solver whose trials are finitely many: fidelities → how many. All of them are
            made, whatever the budget.
    """

    make_sampler: Callable[[Fidelities, int], Any]
    chooses_epochs: bool = False
    stops_early: bool = False
    size: Callable[[Fidelities], int] | None = None

    def sampler(self, fidelities: Fidelities, seed: int) -> Any:
        """A sampler seeded by study and trial, so that workers do not draw the same λ."""
        import optuna

        make = self.make_sampler

        class SeededByTrial(optuna.samplers.BaseSampler):
            """Makes the sampler anew for every trial; what it knows is in the storage."""

            def before_trial(self, study: Any, trial: Any) -> None:
                self.sampler = make(fidelities, 1000 * seed + ordinal(study, trial.number))
                self.sampler.before_trial(study, trial)

            def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
                return self.sampler.infer_relative_search_space(study, trial)

            def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
                return self.sampler.sample_relative(study, trial, search_space)

            def sample_independent(self, *arguments: Any) -> Any:
                return self.sampler.sample_independent(*arguments)

            def after_trial(self, *arguments: Any) -> None:
                self.sampler.after_trial(*arguments)

        return SeededByTrial()

    def pruner(self, fidelities: Fidelities) -> Any:
        """Hyperband where searches are stopped early, none otherwise."""
        import optuna

        if not self.stops_early:
            return optuna.pruners.NopPruner()
        return optuna.pruners.HyperbandPruner(
            min_resource=fidelities.min_epochs,
            max_resource=fidelities.max_epochs,
            reduction_factor=2,
        )


def _random(_: Fidelities, seed: int) -> Any:
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


def _gaussian_process(_: Fidelities, seed: int) -> Any:
    import optuna

    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)


def _multi_fidelity(fidelities: Fidelities, seed: int) -> Any:
    from optuna_integration import BoTorchSampler

    require("botorch", extra="tune")
    return BoTorchSampler(
        candidates_func=_MultiFidelityCandidates(fidelities),
        n_startup_trials=STARTUP_TRIALS,
        seed=seed,
    )


GRID_WEIGHTS = 8
"""Values of λ in the grid of Fig. 9 (right)."""


def _grid_axes(fidelities: Fidelities) -> dict[str, list[Any]]:
    weights = np.geomspace(fidelities.lowest, fidelities.highest, GRID_WEIGHTS)
    epochs = range(fidelities.min_epochs, fidelities.max_epochs + 1)
    return {"lambda": weights.tolist(), "epochs": list(epochs)}


def _grid(fidelities: Fidelities, _: int) -> Any:
    import optuna

    return optuna.samplers.GridSampler(_grid_axes(fidelities))


def _grid_size(fidelities: Fidelities) -> int:
    return math.prod(map(len, _grid_axes(fidelities).values()))


SOLVERS: dict[str, Solver] = {
    "random": Solver(_random),
    "bayesian": Solver(_gaussian_process),
    "multi-fidelity": Solver(_multi_fidelity, chooses_epochs=True),
    "hyperband": Solver(_random, stops_early=True),
    "grid": Solver(_grid, chooses_epochs=True, size=_grid_size),
}


class _MultiFidelityCandidates:
    """BOCA (Kandasamy et al., 2017), the multi-fidelity method of Dragonfly that the paper used.

    A Gaussian process over (epochs, log λ) predicts the objective at every fidelity. The next λ
    maximises the upper confidence bound at the full one; it is searched with the fewest epochs
    whose outcome is still uncertain enough to be worth what it costs.
    """

    def __init__(self, fidelities: Fidelities) -> None:
        self.fidelities = fidelities

    def __call__(
        self,
        params: Tensor,
        values: Tensor,
        constraints: Tensor | None,
        bounds: Tensor,
        pending: Tensor | None,
    ) -> Tensor:
        """(n, 2) trials, (n, 1) values and (2, 2) bounds → (2,) the next (epochs, log λ)."""
        epochs = torch.arange(
            self.fidelities.min_epochs, self.fidelities.max_epochs + 1, dtype=params.dtype
        )
        lowest, highest = bounds[:, 1].tolist()
        weights = torch.linspace(lowest, highest, 256, dtype=params.dtype)
        model = _fitted_process(params, values, bounds)
        with torch.no_grad():
            full = torch.stack([epochs[-1].expand_as(weights), weights], 1)
            posterior = model.posterior(_to_unit(full, bounds))
            confidence = (0.2 * 2 * math.log(2 * len(params) + 1)) ** 0.5
            bound = posterior.mean + confidence * posterior.variance.sqrt()
            weight = weights[bound.argmax()]
            points = _to_unit(torch.stack([epochs, weight.expand_as(epochs)], 1), bounds)
            prior = model.covar_module(points).to_dense()
            correlation = prior[-1] / (prior.diagonal() * prior[-1, -1]).sqrt()
            gap = (1 - correlation.square()).clamp(min=0).sqrt()  # of information to full fidelity
            deviation = model.posterior(points).variance.squeeze(1).sqrt() / values.std()
            threshold = gap * (epochs / epochs[-1]) ** 0.25
        informative = (deviation > threshold).nonzero().flatten().tolist()
        cheapest = informative[0] if informative else -1
        return torch.stack([epochs[cheapest], weight])


def _to_unit(points: Tensor, bounds: Tensor) -> Tensor:
    return (points - bounds[0]) / (bounds[1] - bounds[0])


def _fitted_process(params: Tensor, values: Tensor, bounds: Tensor) -> Any:
    """A Gaussian process over the unit square, fitted by its marginal likelihood."""
    from botorch import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SingleTaskGP(_to_unit(params, bounds), values, outcome_transform=Standardize(1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model.eval()
