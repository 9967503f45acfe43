"""Post-training quantisation: a float file becomes one in int8 or fp16."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backbones.deployment.formats import Format, Precision
from backbones.deployment.pools import with_global_pools
from backbones.errors import UserError
from backbones.extras import require
from backbones.quiet import quiet
from backbones.scratch import scratch_folder

Calibration: TypeAlias = "Sequence[Sequence[NDArray[np.float32]]]"
"""Of every example, the network's inputs in their order; maps are (N, C, H, W) for both formats."""


def quantised(
    model: bytes, kind: Format, precision: Precision, calibration: Calibration = ()
) -> bytes:
    """A float file in another precision.

    Raises:
        UserError: if the format does not have it, or int8 lacks examples.
    """
    if precision == "fp32":
        return model
    if precision == "int8" and not calibration:
        raise UserError("int8 needs images to calibrate on; name a folder with --calibration")
    if kind == "onnx":
        return onnx_int8(model, calibration) if precision == "int8" else onnx_fp16(model)
    if kind == "litert":
        return litert_int8(model, calibration) if precision == "int8" else litert_fp16(model)
    raise UserError(
        f"--precision is {precision}, which torch.export has not; use --format onnx or litert"
    )


def onnx_int8(model: bytes, calibration: Calibration) -> bytes:
    """Static quantisation with QDQ nodes: int8 weights by channel, uint8 activations.

    Weights take 7 of their bits: x86 without VNNI adds pairs of products in 16 bits, which 8 bits
    overflow. Inputs and outputs stay float32.
    """
    require("onnxruntime", "onnx", extra="onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with scratch_folder("int8") as folder, quiet():
            given, prepared, result = (
                folder / f"{name}.onnx" for name in ("given", "prepared", "int8")
            )
            onnx.save(with_global_pools(onnx.load_from_string(model)), given)
            # the symbolic inference gives up on a pyramid's shapes; the exporter has written them
            quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(result),
                _reader(model, calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,  # with int8, x86 fuses no convolution
                weight_type=QuantType.QInt8,
                reduce_range=True,  # 8 bits overflow on x86 without VNNI
            )
            return result.read_bytes()
    finally:
        logging.getLogger().setLevel(level)


def _reader(model: bytes, calibration: Calibration) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    names = [entry.name for entry in onnx.load_from_string(model).graph.input]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(calibration)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            example = next(self.rest, None)
            return None if example is None else dict(zip(names, example, strict=True))

    return Reader()


def onnx_fp16(model: bytes) -> bytes:
    """Weights and computation in float16; inputs and outputs stay float32."""
    require("onnxruntime", "onnx", extra="onnxruntime")
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True)
    converted: bytes = half.SerializeToString()
    return converted


def litert_int8(model: bytes, calibration: Calibration) -> bytes:
    """Full int8: int8 weights by channel, int8 activations, inputs and outputs included."""
    require("ai_edge_quantizer", "ai_edge_litert", extra="litert-converter")
    with quiet():
        from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
        from ai_edge_quantizer.utils import qsv_utils

        wanted = recipe.static_wi8_ai8()
        rules = recipe_manager.RecipeManager()
        rules.load_quantization_recipe(wanted)
        # by default a moving average, which the first of a few examples would decide
        ranges = calibrator.Calibrator(
            model, num_threads=1, qsv_update_func=qsv_utils.min_max_update
        )
        ranges.calibrate({_signature(model): _litert_examples(model, calibration)}, rules)
        work = quantizer.Quantizer(model, wanted)
        result = work.quantize(ranges.get_model_qsvs(), enable_progress_report=False)
    return bytes(result.quantized_model)


def litert_fp16(model: bytes) -> bytes:
    """Weights in float16; LiteRT computes in what its device has."""
    require("ai_edge_quantizer", "ai_edge_litert", extra="litert-converter")
    with quiet():
        from ai_edge_quantizer import qtyping, quantizer

        work = quantizer.Quantizer(model)
        half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        work.update_quantization_recipe(
            ".*",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            qtyping.OpQuantizationConfig(
                weight_tensor_config=half,
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            quantizer.AlgorithmName.FLOAT_CASTING,
        )
        result = work.quantize(enable_progress_report=False)
    return bytes(result.quantized_model)


def _signature(model: bytes) -> str:
    from ai_edge_litert.interpreter import Interpreter

    (name,) = Interpreter(model_content=model).get_signature_list()
    return str(name)


def _litert_examples(model: bytes, calibration: Calibration) -> list[dict[str, Any]]:
    """Examples by the names of the signature, channels last."""
    from ai_edge_litert.interpreter import Interpreter

    (signature,) = Interpreter(model_content=model).get_signature_list().values()
    return [
        {
            name: np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
            for name, array in zip(signature["inputs"], example, strict=True)
        }
        for example in calibration
    ]
