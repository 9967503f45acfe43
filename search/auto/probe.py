"""What a step, an image and a conversion cost on this machine: some of each, before the plan."""

from __future__ import annotations

import logging
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from detectron2.utils.events import EventStorage

from backbones.errors import UserError
from backbones.inference import Session, make_engine
from backbones.inference.board.turns import visit, visit_seconds
from backbones.scratch import scratch_folder
from backbones.trained import named_architecture
from detection.deployment import Deployment
from detection.trainer import DetectionTrainer
from search.profiling.workload import Item, layer_items, network_item
from search.runs.detector import supernet_backbone
from search.runs.formulations.measured import neighbour
from search.start.remapping import start_supernet
from search.start.seed import seed_of
from search.studies.commands import Command

_STEPS, _SECONDS = 3, 4.0
"""Most steps of each kind, and seconds after which no further one is made."""

_IMAGES = 4


@dataclass(frozen=True)
class Costs:
    """Seconds of this machine.

    Attributes:
        side: shorter side of the images that they were measured on, in pixels.
        startup: of a training, until its first step.
        step: of a training.
        adapting: step of the supernet.
        loss: of an image in a network that the search measures.
        statistics: of an image that such a network's batch norms see.
        evaluation: of a test image.
        convert_network: for the engine, of a whole network.
        convert_layer: of a layer.
        visit_network: a visit of the profile to a whole network.
        visit_layer: to a layer.
        seed_runtime: of the seed network with its pyramid, one inference in ms.
    """

    side: int
    startup: float
    step: float
    adapting: float
    loss: float
    statistics: float
    evaluation: float
    convert_network: float = 0.0
    convert_layer: float = 0.0
    visit_network: float = 0.0
    visit_layer: float = 0.0
    seed_runtime: float = 0.0

    def at(self, side: int) -> Costs:
        """The costs at another image size: what images take grows with their area."""
        factor = (side / self.side) ** 2
        grown = ("step", "adapting", "loss", "statistics", "evaluation", "seed_runtime")
        return replace(self, side=side, **{name: factor * getattr(self, name) for name in grown})

    def to_json(self) -> dict[str, float]:
        """As ``plan.json`` has it."""
        return asdict(self)


def measure_costs(
    training: Command, search: Command, engine: tuple[str, str], deployment: Deployment
) -> Costs:
    """Tries out what the stages will do, in a process that gives its memory back.

    Args:
        training: of the start.
        search: of the same detector; nothing of it is read that is not there yet.
        engine: its name and device.
        deployment: what the profile measures.

    Raises:
        UserError: for whatever is wrong with the data or the configuration.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        call = pool.submit(_measured, time.time(), training, search, engine, deployment)
        try:
            return call.result()
        except BrokenProcessPool:
            raise UserError(
                "the process that tries out a training step was killed, as a system without memory "
                "does; free some, or take a smaller --size"
            ) from None


def _measured(
    started: float,
    training: Command,
    search: Command,
    engine: tuple[str, str],
    deployment: Deployment,
) -> Costs:
    logging.disable(logging.WARNING)
    with scratch_folder("probe") as folder:
        training = replace(training, folder=folder / "training")
        search = replace(search, folder=folder / "search")
        cfg = training.config()
        trainer = DetectionTrainer(cfg)
        trainer.resume_or_load(resume=False)
        startup = time.time() - started
        costs = Costs(
            side=int(cfg.INPUT.MIN_SIZE_TEST),
            startup=startup,
            step=_training_step(trainer),
            evaluation=_evaluation(trainer),
            **_supernet(search),
        )
        return replace(costs, **_profile(search, engine, deployment, folder))


def _timed(run: Callable[[], object]) -> float:
    """Median seconds of a call, after one to warm up."""
    run()
    seconds: list[float] = []
    while len(seconds) < _STEPS and sum(seconds) < _SECONDS:
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def _training_step(trainer: DetectionTrainer) -> float:
    trainer.model.train()
    trainer.iter = 0
    with EventStorage() as trainer.storage:
        return _timed(trainer.run_step)


def _evaluation(trainer: DetectionTrainer) -> float:
    model, cfg = trainer.model.eval(), trainer.cfg
    images: Iterator[Any] = iter(trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0]))
    first = next(images)
    with torch.no_grad():
        model(first)
        count, start = 0, time.perf_counter()
        for batch in islice(images, _IMAGES):
            model(batch)
            count += len(batch)
        return (time.perf_counter() - start) / max(count, 1)


def _supernet(search: Command) -> dict[str, Any]:
    cfg = search.config()
    model: Any = DetectionTrainer.build_model(cfg)
    supernet, seed = supernet_backbone(model).supernet, seed_of(cfg)
    assert seed is not None
    start_supernet(supernet, seed)
    batch = next(iter(DetectionTrainer.build_train_loader(cfg)))
    rng = random.Random(0)
    model.train()

    def adapt() -> None:
        with supernet.using(neighbour(seed.space, seed.choices, rng)):
            torch.stack(list(model(batch).values())).sum().backward()

    @torch.no_grad()
    def losses() -> None:
        with supernet.using(seed.choices):
            model(batch)

    @torch.no_grad()
    def statistics() -> None:
        with supernet.using(seed.choices):
            model.backbone(model.preprocess_image(batch).tensor)

    with EventStorage():
        return {
            "adapting": _timed(adapt),
            "loss": _timed(losses) / len(batch),
            "statistics": _timed(statistics) / len(batch),
        }


def _profile(
    search: Command, engine: tuple[str, str], deployment: Deployment, folder: Path
) -> dict[str, Any]:
    cfg = search.config()
    seed = seed_of(cfg)
    assert seed is not None
    layers = layer_items(seed.space, deployment)
    whole = network_item(named_architecture(cfg.SEARCH.START), deployment)
    network, to_convert_network = _compiled(whole, engine, folder / "network")
    layer, to_convert_layer = _compiled(layers[len(layers) // 2], engine, folder / "layer")
    return {
        "convert_network": to_convert_network,
        "convert_layer": to_convert_layer,
        "visit_network": visit_seconds(network),
        "visit_layer": visit_seconds(layer),
        "seed_runtime": min(visit(network) for _ in range(3)),
    }


def _compiled(item: Item, engine: tuple[str, str], path: Path) -> tuple[Session, float]:
    start = time.perf_counter()
    program = make_engine(*engine).compile(item.build, item.inputs(), path, item.place)
    return program.load(), time.perf_counter() - start
