"""Inference engines: what deploys a network, and what a latency table is measured with."""

from __future__ import annotations

from backbones.errors import UserError
from backbones.inference.base import Engine, Operator, Place, Program, Session
from backbones.inference.litert import LiteRTEngine
from backbones.inference.onnx_runtime import OnnxRuntimeEngine
from backbones.inference.pytorch import TorchEngine

__all__ = [
    "ENGINES",
    "Engine",
    "Operator",
    "Place",
    "Program",
    "Session",
    "make_engine",
]

ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (TorchEngine, OnnxRuntimeEngine, LiteRTEngine)
}


def make_engine(
    name: str, device: str = "cpu", threads: int = 1, precision: str = "fp32"
) -> Engine:
    """An engine by name.

    Raises:
        UserError: if it is unknown, not installed, cannot use the device, or has not the precision.
    """
    if name not in ENGINES:
        raise UserError(f"unknown engine '{name}'; expected one of {', '.join(ENGINES)}")
    return ENGINES[name](device, threads, precision)
