"""A small space, and an engine whose runtimes are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from torch import Tensor, nn

from backbones import LatencyTable
from backbones.architecture import HeadSpec, LayerSpec, StemSpec
from backbones.blocks import MBConv, SqueezeExcite
from backbones.inference import ENGINES, Engine, Place, Program, Session
from backbones.inference.board import turns
from backbones.network import Classifier
from detection.deployment import Deployment
from search.profiling.profiler import profile_space
from search.space import SearchSpace, Stage


@pytest.fixture(scope="session")
def small_space() -> SearchSpace:
    """Eight layers in four stages, with 8 types and the skip-op."""
    return SearchSpace(
        "small",
        StemSpec(8),
        (LayerSpec(8, op="ds"),),
        (Stage(16, 2, 2), Stage(24, 2, 2), Stage(32, 2, 2), Stage(40, 2, 2)),
        (LayerSpec(48, expansion=6),),
        HeadSpec(64),
        se_ratios=(0, 0.25),
    )


class KnownSession(Session):
    """Takes exactly as long as it is told."""

    def __init__(self, runtime: float) -> None:
        self.runtime = runtime

    def run(self) -> None:
        """Nothing to do."""

    def outputs(self) -> list[Tensor]:
        return []

    def times(self, count: int) -> list[float]:
        return [self.runtime] * count


class KnownProgram(Program):
    """A runtime in ms."""

    def __init__(self, runtime: float) -> None:
        self.runtime = runtime

    def load(self) -> KnownSession:
        return KnownSession(self.runtime)


class KnownEngine(Engine):
    """A part takes 1 ms per 20,000 parameters; whole networks follow a known correction.

    In int8, what has no squeeze-and-excitation takes half as long.

    Attributes:
        whole: ms for every network, × the sum, ms per layer, and ms per SE layer.
    """

    whole = (0.4, 1.1, -0.005, 0.003)

    name = "known"
    title = "Known"
    precisions = MappingProxyType({"cpu": ("fp32", "int8")})
    converts = False

    def versions(self) -> dict[str, str]:
        return {"known": "1.0"}

    def compile(
        self,
        build: Callable[[], nn.Module],
        inputs: Sequence[Tensor],
        path: Path | None = None,
        place: Place = "whole",
    ) -> KnownProgram:
        module = build()
        gates = [part for part in module.modules() if isinstance(part, SqueezeExcite)]
        in_gates = sum(weight.numel() for gate in gates for weight in gate.parameters())
        others = sum(weight.numel() for weight in module.parameters()) - in_gates
        runtime = (in_gates + others / (2 if self.precision == "int8" else 1)) / 2e4
        if isinstance(module, Classifier):
            searched = [la for la in module.layers[1:-1] if isinstance(la, MBConv)]
            with_se = [
                la for la in searched if any(isinstance(m, SqueezeExcite) for m in la.modules())
            ]
            features = (1, runtime, len(searched), len(with_se))
            runtime = sum(a * b for a, b in zip(self.whole, features, strict=True))
        return KnownProgram(runtime)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> KnownEngine:
    """The engine with known runtimes, registered."""
    monkeypatch.setitem(ENGINES, "known", KnownEngine)
    return KnownEngine()


DEPLOYMENT = Deployment("classification", (64, 64))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "known.json"


def profile(space: SearchSpace, engine: KnownEngine, output: Path, rounds: int = 2) -> LatencyTable:
    return profile_space(space, engine, DEPLOYMENT, output, rounds, correction_networks=12)


def make_uneven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine a third slower in the last rounds of a profile, and for a while in its first."""
    real, visits = turns.visit, []

    def uneven(session: Session) -> float:
        visits.append(session)
        slow = 40 < len(visits) <= 80 or len(visits) > 220
        return real(session) * (1.5 if slow else 1)

    monkeypatch.setattr(turns, "visit", uneven)
