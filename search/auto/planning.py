"""From what is asked for to a plan: the data, the space, the device and the time are looked at."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode

from backbones.errors import UserError
from backbones.inference import ENGINES, make_engine
from backbones.inference.hardware import device_name
from backbones.latency import LatencyTable
from backbones.precisions import short_name
from backbones.published import load_state
from backbones.trained import named_architecture, named_weights
from detection.data.annotations.anchors import InputSize
from detection.data.annotations.file import reading_once
from detection.data.annotations.masks import MaskKind
from detection.data.inspection import Inspection, look_at
from detection.deployment import Deployment
from search.auto.data_facts import DataFacts, Proposal
from search.auto.plan import Plan
from search.auto.probe import Costs, measure_costs
from search.auto.proposals import Proposals, propose, sides_for
from search.auto.quantities import spoken
from search.auto.recipe import Recipe, seed_architecture
from search.auto.request import Request
from search.auto.schedule import EFFORTS, Schedule, Work, schedule
from search.auto.tables import check_reachable, check_table, misfit, shipped_table
from search.space import SearchSpace
from search.start.seed import search_space
from search.studies.commands import Command

_SIDE = 320
"""Shorter side of the images that costs are measured on where no size is asked for."""

_BOTH_SETS = r", instead of DATA\.ROOT, such as: DATASETS\.TRAIN (.+) DATASETS\.TEST (.+)$"
"""What a message on the data has for those who type keys."""

_EVALUATED = 100
"""Test images that exported files are judged on, and the part of a budget's minutes."""


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Leaves out what is logged by the way: of the data, all that matters is said in the plan."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class Ground:
    """What has been looked at before anything is measured.

    Attributes:
        request: what is asked for.
        cfg: of the start, resolved, without what the data propose.
        data: of the configuration.
        space: that is searched.
    """

    request: Request
    cfg: CfgNode
    data: Inspection
    space: SearchSpace

    def deployment(self, size: tuple[int, int]) -> Deployment:
        """What runtimes are of, at an image size."""
        channels = int(self.cfg.MODEL.FPN.OUT_CHANNELS)
        return Deployment("detection", size, fpn_channels=channels)


def look(request: Request, output: Path) -> Ground:
    """Looks at the data, the seed network and the table that are asked for.

    Raises:
        UserError: for the first thing that is wrong.
    """
    _check_seed(request.seed_network)
    recipe = Recipe(request)
    start = recipe.training(output / "start", output, 1.0, recipe.seed_options)
    cfg = _resolved(start, request)
    with reading_once(), quietly():
        space = search_space(recipe.searching(output / "search", output, ()).config())
        data = look_at(cfg)
        _check_any_object(data)
        _check_masks(request, data)
        data.check(cfg)
    if not cfg.DATASETS.TEST:
        raise UserError("the data have no validation set, which AP is of; annotate some photos")
    return Ground(request, cfg, data, space)


def make_plan(ground: Ground, output: Path, costs: Costs | None = None) -> tuple[Plan, DataFacts]:
    """Measures what stages cost here, and divides the time among them.

    Args:
        ground: that was looked at.
        output: folder of all.
        costs: known already; None measures them.

    Returns:
        The plan, and what is known of the data.

    Raises:
        UserError: if a target is out of reach, or the budget too small.
    """
    request = ground.request
    named = LatencyTable.load(request.table) if request.table else None
    side = request.size or (named.input_size[0] if named else None)
    if named:
        table = check_table(request.table, ground.space, ground.deployment((side or 0,) * 2))
        check_reachable(request.targets, request.seed_network, ground.space, table)
    costs = costs or probe(ground, side or _SIDE, output)
    proposals = _proposed(ground, costs, side)
    recipe = Recipe(request, proposals.options(), proposals.deploy_size)
    deployment = ground.deployment(proposals.deploy_size)
    shipped = "" if request.table else shipped_table(request, ground.space, deployment)
    table_name = request.table or shipped
    if shipped:
        table = LatencyTable.load(shipped)
        check_reachable(request.targets, request.seed_network, ground.space, table)
    own = _own_table(ground, deployment, output)
    work = _work(ground, proposals, deployment, table_name)
    at_size = costs.at(proposals.size.short)
    efforts = [effort.with_keys(request.pairs) for effort in EFFORTS]
    found = schedule(work, at_size, _epochs(request, proposals), request.budget, efforts)
    plan = Plan(
        request=request,
        recipe=recipe,
        fpn_channels=deployment.fpn_channels,
        table=table_name or str(own),
        work=work,
        costs=costs,
        schedule=found,
    )
    keys = [item for item in proposals.keys if item.key != "SOLVER.EPOCHS"]
    return plan, DataFacts.of(ground.data, [*keys, _epochs_said(found, proposals, request)])


def _own_table(ground: Ground, deployment: Deployment, output: Path) -> Path:
    """Where the profile of this machine goes; one that is there has to fit, and is kept.

    Raises:
        UserError: if it is of another space, or does not reach the targets.
    """
    request = ground.request
    own = output / f"latency_{request.engine}_{deployment.input_size[0]}.json"
    if not own.exists():
        return own
    table = LatencyTable.load(own)
    if reason := misfit(table, ground.space, deployment):
        raise UserError(
            f"the latency table '{own}' of an earlier command {reason}; name another folder "
            "(--output), or delete that file"
        )
    check_reachable(request.targets, request.seed_network, ground.space, table)
    return own


def probe(ground: Ground, side: int, output: Path) -> Costs:
    """What stages cost on this machine, at an image size."""
    request = ground.request
    size = ("INPUT.MIN_SIZE_TRAIN", f"({side},)", "INPUT.MIN_SIZE_TEST", str(side))
    recipe = Recipe(request, size, (side, side))
    training = recipe.training(output / "start", output, 1.0, recipe.seed_options)
    search = recipe.searching(output / "search", output, ("MODEL.WEIGHTS", ""))
    print(f"Trying out some steps at {side} pixels …", flush=True)
    here = not request.table or can_measure(LatencyTable.load(request.table), request.device)
    # a table of another device needs no engine here, but exports are converted all the same
    engine = (request.engine, request.device) if here else ("torch", "cpu")
    return measure_costs(training, search, engine, ground.deployment((side, side)))


def _proposed(ground: Ground, costs: Costs, side: int | None) -> Proposals:
    request, sides = ground.request, None
    if costs.seed_runtime:
        sides = sides_for(request.targets, costs.seed_runtime, costs.side)
    steps = None if request.budget is None else _affordable(ground, costs)
    return propose(ground.cfg, ground.data, side, steps, sides)


def _affordable(ground: Ground, costs: Costs) -> Callable[[InputSize], float]:
    """How many steps of the start the budget has at a size; 0 where it is too small."""
    rough = propose(ground.cfg, ground.data, costs.side)

    def steps(size: InputSize) -> float:
        deployment = ground.deployment((size.short, size.short))
        work = _work(ground, rough, deployment, ground.request.table)
        try:
            found = schedule(work, costs.at(size.short), rough.recipe_epochs, ground.request.budget)
        except UserError:
            return 0.0
        return found.epochs["start"] * work.train_images / work.batch

    return steps


def _work(ground: Ground, proposals: Proposals, deployment: Deployment, table: str) -> Work:
    request = ground.request
    tests = sum(len(ground.data.files[name].images) for name in ground.cfg.DATASETS.TEST)
    return Work.of_space(
        ground.space,
        deployment,
        train_images=proposals.images,
        test_images=tests,
        batch=proposals.batch,
        evaluated=min(tests, _EVALUATED),
        targets=len(request.targets),
        exports=len(request.formats),
        profiles=not table,
        measures=not table or can_measure(LatencyTable.load(table), request.device),
    )


def can_measure(table: LatencyTable, device: str) -> bool:
    """Whether a table is of this machine, with an engine that is here."""
    if table.engine not in ENGINES or table.unit != "ms":
        return False
    try:
        engine = make_engine(table.engine, device, table.threads or 1, short_name(table.precision))
        engine.check_conversion()
    except UserError:
        return False
    return device_name(engine.device) == table.device


def _epochs(request: Request, proposals: Proposals) -> float:
    return request.epochs or proposals.recipe_epochs


def _epochs_said(found: Schedule, proposals: Proposals, request: Request) -> Proposal:
    """The start's epochs, and why there are as many."""
    epochs = f"{found.epochs['start']:g}"
    if request.epochs:
        return Proposal("SOLVER.EPOCHS", epochs, "as asked")
    whole = f"{proposals.recipe_epochs:g} for {proposals.images:,} images"
    if request.budget is None:
        return Proposal("SOLVER.EPOCHS", epochs, f"the recipe's {whole}")
    held = f"what {spoken(request.budget)} hold; the recipe has {whole}"
    return Proposal("SOLVER.EPOCHS", epochs, held)


def _check_seed(seed: str) -> None:
    """Insists on a network with weights that can be had here.

    Raises:
        UserError: if there is none of that name, or its weights are not published or installed.
    """
    seed_architecture(seed)
    try:
        load_state(named_weights(seed, "--seed-network"), named_architecture(seed))
    except UserError as error:
        raise UserError(f"--seed-network is '{seed}': {error}") from None


def _resolved(start: Command, request: Request) -> CfgNode:
    """The configuration of the start; a message on the data speaks of what was typed.

    Raises:
        UserError: if the data are not there, or it is not clear which are meant.
    """
    try:
        with quietly():
            return start.config()
    except UserError as error:
        text = str(error)
        if "DATA.ROOT" not in text and "DATASETS" not in text:
            raise
        both = re.sub(_BOTH_SETS, r", such as: --data \1 \2", text)
        raise UserError(f"--data is '{request.data}': {both}") from None


def _check_any_object(data: Inspection) -> None:
    """Insists on objects to train on, and to find."""
    for name, file in data.files.items():
        if not file.columns.objects.any():
            raise UserError(
                f"no image of '{name}' has an annotated object; annotate some, or name other data "
                "(--data)"
            )


def _check_masks(request: Request, data: Inspection) -> None:
    """Insists on masks to train Mask R-CNN with."""
    if request.detector != "mask_rcnn":
        return
    for name, file in data.files.items():
        columns = file.columns
        kinds = columns.masks.kind[columns.objects]
        if len(kinds) and bool(np.all(kinds > MaskKind.COUNTS)):
            raise UserError(
                f"--detector is mask_rcnn, but the annotations of '{name}' are boxes without "
                "masks; take --detector faster_rcnn or retinanet"
            )
