"""Every formulation by its name in ``SEARCH.FORMULATION``."""

from __future__ import annotations

from detectron2.config import CfgNode
from tabulate import tabulate

from backbones.errors import UserError
from search.runs.formulations.base import Formulation, SupernetFormulation
from search.runs.formulations.bilevel import Bilevel
from search.runs.formulations.encodings import MultiPath, SinglePath
from search.runs.formulations.joint import Joint
from search.runs.formulations.measured import Measured
from search.runs.formulations.uniform import Uniform
from search.runs.formulations.values import gradient_values, measured_losses
from search.runs.random_search import RandomSearch

_HALF_WIDTH = ("SEARCH.WIDTH_MULT", "0.5")

FORMULATIONS: dict[str, Formulation] = {
    "sigmoid": Joint(
        "one path; thresholds decide, with the gradient of a sigmoid",
        "Sec. III-B, Eq. 1–4 and 9–11",
        SinglePath("sigmoid"),
    ),
    "ste": Joint(
        "one path; thresholds decide, with a straight-through gradient",
        "Sec. VII-A, variant 3",
        SinglePath("ste"),
    ),
    "softmax": Bilevel(
        "one path; every option is used in part, by parameters apart from the kernels",
        "Sec. VII-A, variant 4, Eq. 8 and 18",
        SinglePath("softmax", importance="none", initial_logit=0.0),
    ),
    "multi-path": Bilevel(
        "one path per candidate, weighted by a softmax",
        "Sec. III-C, Eq. 6 and 8",
        MultiPath("softmax"),
        study_options=_HALF_WIDTH,
    ),
    "multi-path-gumbel": Bilevel(
        "one path per candidate, weighted by a Gumbel-softmax sample, as in FBNet",
        "Sec. III-C, Eq. 6 and 8",
        MultiPath("gumbel"),
        study_options=_HALF_WIDTH,
    ),
    "evolution": Uniform(
        "one path, trained for all networks alike; an evolution takes the fittest one",
        "Guo et al., ECCV 2020",
        SinglePath("sigmoid"),
        trains_decisions=False,
    ),
    "sensitivity": Measured(
        "one path, adapted from the start; the loss of every choice of every layer is measured",
        "after Molchanov et al., LANA, ECCV 2022",
        SinglePath("sigmoid"),
        measured_losses,
        trains_decisions=False,
    ),
    "taylor": Measured(
        "one path, adapted from the start; choices are valued by gradients",
        "after Molchanov et al., CVPR 2019",
        SinglePath("sigmoid"),
        gradient_values,
        trains_decisions=False,
    ),
    "random": RandomSearch(
        "no supernet; networks drawn at the target, of which the best is taken", "Sec. VII-A"
    ),
}
"""The first one is the default of ``SEARCH.FORMULATION``."""


def formulation_of(cfg: CfgNode) -> Formulation:
    """The formulation that ``SEARCH.FORMULATION`` names.

    Raises:
        UserError: if there is none of that name.
    """
    name = cfg.SEARCH.FORMULATION
    if name not in FORMULATIONS:
        known = ", ".join(FORMULATIONS)
        raise UserError(f"unknown SEARCH.FORMULATION '{name}'; expected one of {known}")
    return FORMULATIONS[name]


def supernet_formulation(cfg: CfgNode) -> SupernetFormulation:
    """As :func:`formulation_of`, of a search that trains a supernet.

    Raises:
        UserError: if there is none of that name, or it trains none.
    """
    formulation = formulation_of(cfg)
    if not isinstance(formulation, SupernetFormulation):
        raise UserError(
            f"SEARCH.FORMULATION '{cfg.SEARCH.FORMULATION}' trains no supernet; expected one of "
            f"{', '.join(n for n, f in FORMULATIONS.items() if isinstance(f, SupernetFormulation))}"
        )
    return formulation


def detector_formulation(cfg: CfgNode) -> SupernetFormulation:
    """As :func:`supernet_formulation`, of a search on a detector's losses.

    Raises:
        UserError: if it cannot be done on those.
    """
    if not formulation_of(cfg).on_detectors:
        able = [name for name, formulation in FORMULATIONS.items() if formulation.on_detectors]
        raise UserError(
            f"SEARCH.FORMULATION is '{cfg.SEARCH.FORMULATION}'; a search on a detector needs "
            f"one that can be done on its losses: {' or '.join(able)}"
        )
    return supernet_formulation(cfg)


def formulations_table() -> str:
    """Every formulation as a row of a Markdown table."""
    rows = [
        [
            f"`{name}`",
            formulation.kind,
            formulation.summary,
            formulation.schedule,
            "yes" if formulation.on_detectors else "no",
            formulation.source,
        ]
        for name, formulation in FORMULATIONS.items()
    ]
    headers = [
        *("`SEARCH.FORMULATION`", "kind", "how a network is found", "what is trained when"),
        *("on a detector's losses", "paper"),
    ]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
