"""Tries the libraries, in a process that may die of it; prints a line of JSON for each step.

Its source is what that process runs: on the command line stand the folder that holds the packages,
the folder of the data sets, and the names of the steps.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any

MARK = "spnas-probe "
_PARTS = ("layers", "modeling", "data", "engine", "evaluation", "checkpoint", "model_zoo")
_OPERATORS = {
    "deform_conv_forward": "deformable convolution",
    "nms_rotated": "rotated boxes",
    "COCOevalEvaluateImages": "the compiled COCO evaluator",
}
_MOST_FOLDERS = 30
_NAMED = ("coco", "digits", "imagenet")


def packages() -> dict[str, Any]:
    """What the metadata of the project asks for and is missing or of another version."""
    from packaging.requirements import Requirement

    unmet = {}
    for text in importlib.metadata.requires("spnas") or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = _version(wanted.name)
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            unmet[f"{wanted.name}{wanted.specifier}"] = found
    return {"unmet": unmet}


def torch() -> dict[str, Any]:
    """Version, the CUDA that it is built for, and threads."""
    if importlib.util.find_spec("torch") is None:
        return {"missing": True}
    import torch

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip or "",
        "threads": torch.get_num_threads(),
    }


def gpus() -> dict[str, Any]:
    """Names of the GPUs, and what PyTorch says where it cannot use one."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = []
    for index in range(count):
        facts = torch.cuda.get_device_properties(index)
        names.append(f"{facts.name} ({facts.total_memory / 2**30:.0f} GiB)")
    if count:
        torch.ones(1, device="cuda").sum().item()
    return {"names": names, "warnings": [str(one.message) for one in caught]}


def torchvision() -> dict[str, Any]:
    """Version, the PyTorch that its metadata asks for, and whether an operator of it runs."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in importlib.metadata.requires("torchvision") or ()]
    pins = [item.specifier for item in wanted if item.name == "torch" and not item.marker]
    found = _version("torch") or "0"
    report = {
        "version": _version("torchvision"),
        "wants": next((str(pin) for pin in pins if not pin.contains(found, prereleases=True)), ""),
    }
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except Exception as error:
        report["error"] = _said(error)
    return report


def detectron2() -> dict[str, Any]:
    """Version, folder, what its parts raise, and the compiled operators that it lacks."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return {"missing": True}
    report: dict[str, Any] = {
        "version": _version("detectron2") or "of unknown version",
        "location": str(Path(spec.origin).parent),
    }
    try:
        for name in _PARTS:
            importlib.import_module(f"detectron2.{name}")
    except Exception as error:
        return {**report, "error": _said(error)}
    try:
        compiled = importlib.import_module("detectron2._C")
    except ImportError as error:
        return {**report, "pure": True, "lacks": [*_OPERATORS.values()], "why": _said(error)}
    lacks = [text for name, text in _OPERATORS.items() if not hasattr(compiled, name)]
    pure = str(compiled.__file__).endswith(".py")
    return {**report, "pure": pure, "lacks": lacks, "cuda": bool(compiled.has_cuda())}


def onnxruntime() -> dict[str, Any]:
    """Version and where it runs."""
    if importlib.util.find_spec("onnxruntime") is None:
        return {"missing": True}
    import onnxruntime

    names = [
        name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()
    ]
    others = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    return {"version": onnxruntime.__version__, "providers": names, "lacks": others}


def litert() -> dict[str, Any]:
    """Versions of the interpreter and the converter."""
    if importlib.util.find_spec("ai_edge_litert") is None:
        return {"missing": True}
    importlib.import_module("ai_edge_litert.interpreter")
    converters = {"litert_torch": "litert-torch", "ai_edge_quantizer": "ai-edge-quantizer"}
    lacks = [name for module, name in converters.items() if not importlib.util.find_spec(module)]
    return {"version": _version("ai-edge-litert"), "lacks": lacks}


def project() -> dict[str, Any]:
    """What the project's own packages say of Detectron2."""
    import detection
    from detection.installation.wheel import VERSION

    return {"problem": detection._problem or "", "wheel": VERSION}


def wandb() -> dict[str, Any]:
    """Version, and where a run would be logged by default."""
    import wandb

    from detection.engine.wandb_settings import WandbSettings, resolve_mode

    settings = WandbSettings().with_environment()
    mode = resolve_mode("auto", wandb) if settings.active else "disabled"
    return {"version": wandb.__version__, "mode": mode}


def layouts() -> dict[str, Any]:
    """Folders of the data sets that hold images with annotations in a layout that is known."""
    from backbones.errors import UserError
    from detection.data.layouts import splits_of

    root = Path(sys.argv[2])
    folders = [path for path in root.glob("*") if path.is_dir() and path.name not in _NAMED]
    found = []
    for folder in sorted(folders)[:_MOST_FOLDERS]:
        try:
            splits_of(folder)
        except UserError:
            continue
        found.append(folder.name)
    return {"found": found}


STEPS = {
    step.__name__: step
    for step in (
        *(packages, torch, gpus, torchvision, detectron2, onnxruntime, litert),
        *(project, wandb, layouts),
    )
}
"""In order; a later one may need what an earlier one tries."""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"


def _main(root: str, names: list[str]) -> None:
    sys.path.append(root)
    for name in names:
        try:
            report = STEPS[name]()
        except BaseException as error:
            report = {"error": _said(error)}
        print(f"\n{MARK}{json.dumps({name: report})}", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[3:])
