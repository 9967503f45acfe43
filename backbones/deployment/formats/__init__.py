"""A module with example inputs becomes a file: ONNX, LiteRT, or PyTorch's own exported program."""

from __future__ import annotations

from typing import Literal

Format = Literal["onnx", "litert", "torch"]
Precision = Literal["fp32", "fp16", "int8"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "litert": ".tflite", "torch": ".pt2"}
"""How the name of a file of each format ends."""

FORMAT_OF: dict[str, Format] = {suffix: name for name, suffix in SUFFIXES.items()}
