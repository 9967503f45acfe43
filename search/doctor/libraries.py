"""What the libraries' reports mean: which are missing, broken, or do not fit each other."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from backbones.extras import EXTRAS
from search.doctor.finding import Finding

__all__ = ["library_findings"]

Reports = Mapping[str, Mapping[str, Any]]

_PIP = "python -m pip install"
_DETECTRON2 = "spnas install-detectron2"
_BOTH = f"{_PIP} --force-reinstall torch torchvision"


def library_findings(reports: Reports) -> Iterator[Finding]:
    """From what :func:`search.doctor.trial.try_libraries` reports."""
    yield packages(reports["packages"])
    yield pytorch(reports["torch"])
    if "version" in reports["torch"]:
        yield torchvision(reports)
        yield gpus(reports)
    yield detectron2(reports)
    yield onnxruntime(reports["onnxruntime"])
    yield litert(reports["litert"])
    yield wandb(reports)


def packages(report: Mapping[str, Any]) -> Finding:
    """What the project asks for in its metadata."""
    subject = "packages"
    if "error" in report:
        text = f"not looked at: {report['error']}"
        missing = "PackageNotFoundError" in report["error"]
        fix = f"{_PIP} --no-deps --editable . at the top of the checkout" if missing else ""
        return Finding("note", subject, text, fix or f"{_PIP} packaging")
    if not report["unmet"]:
        return Finding("ok", subject, "all that spnas needs")
    told = [f"{name} ({found or 'missing'})" for name, found in report["unmet"].items()]
    return Finding(
        "broken", subject, f"needed: {', '.join(told)}", f"{_PIP} {shlex.join(report['unmet'])}"
    )


def pytorch(report: Mapping[str, Any]) -> Finding:
    """Whether it can be imported."""
    if "version" in report:
        built = f"for CUDA {report['cuda']}" if report["cuda"] else "without CUDA"
        return Finding("ok", "torch", f"{report['version']}, {built}")
    if report.get("missing"):
        return Finding("broken", "torch", "not installed", f"{_PIP} torch torchvision")
    return Finding("broken", "torch", f"cannot be imported: {report['error']}", _BOTH)


def torchvision(reports: Reports) -> Finding:
    """Whether it is of the PyTorch that is installed, by its metadata and by an operator of it."""
    report, subject = reports["torchvision"], "torchvision"
    torch = reports["torch"]["version"]
    if not report.get("version"):
        text = report.get("error", "not installed")
        return Finding("broken", subject, text, _matching(torch))
    if report["wants"]:
        text = f"{report['version']} is for torch{report['wants']}, and torch is {torch}"
        return Finding("broken", subject, text, _matching(torch))
    if "error" in report:
        text = (
            f"{report['version']} does not work with torch {torch} ({report['error']}); both have "
            "to be of one build, for the CPU or for one CUDA"
        )
        return Finding("broken", subject, text, _BOTH)
    return Finding("ok", subject, f"{report['version']}, which fits")


def _matching(torch: str) -> str:
    """Pip then finds the torchvision that belongs to this torch, which stays."""
    return f"{_PIP} torch=={torch.partition('+')[0]} torchvision"


def gpus(reports: Reports) -> Finding:
    """What PyTorch can use; none is no fault."""
    report, subject = reports["gpus"], "GPUs"
    if report.get("names"):
        return Finding("ok", subject, ", ".join(report["names"]))
    why = report.get("error") or "; ".join(report.get("warnings", ()))
    if not reports["torch"]["cuda"]:
        if shutil.which("nvidia-smi") is None:
            return Finding("ok", subject, "none; this PyTorch is for the CPU")
        text = "this PyTorch is for the CPU, and the machine seems to have a GPU of NVIDIA"
        return Finding("note", subject, text, f"{_BOTH}, from an index with CUDA builds")
    if why or shutil.which("nvidia-smi"):
        text = f"none that PyTorch can use{': ' * bool(why)}{why}"
        fix = "nvidia-smi shows driver and GPUs; the driver has to be as new as PyTorch's CUDA"
        return Finding("note", subject, text, fix)
    return Finding("ok", subject, "none; runs take the CPU")


def detectron2(reports: Reports) -> Finding:
    """Whether it works, whose build it is, and what it lacks."""
    report, subject = reports["detectron2"], "Detectron2"
    if report.get("missing"):
        return Finding("broken", subject, "not installed", _DETECTRON2)
    if "version" not in report:
        return Finding("broken", subject, report["error"], f"{_DETECTRON2} --force")
    version = report["version"]
    own = "+spnas" in version
    kind = "built by spnas" if own else f"not built by spnas, in '{report['location']}'"
    text = f"{version}, {kind}"
    if "error" in report:
        if "version" not in reports["torch"]:
            return Finding("broken", subject, f"{text}; needs torch", "mend torch first")
        text += f", cannot be imported: {report['error']}"
        return Finding("broken", subject, text, f"{_DETECTRON2} --force")
    wanted = reports["project"].get("wheel", "")
    if own and wanted and version != wanted:
        return Finding("note", subject, f"{text}; this spnas builds {wanted}", _DETECTRON2)
    return _operators(reports, f"{text}, works")


def _operators(reports: Reports, text: str) -> Finding:
    report = reports["detectron2"]
    if report["pure"]:
        lacks = f"without compiled operators ({', '.join(report['lacks'])})"
        return Finding("ok", "Detectron2", f"{text}, {lacks}")
    text += ", with compiled operators"
    if report["lacks"]:
        text += f", but not {', '.join(report['lacks'])}"
    if reports["gpus"].get("names") and not report["cuda"]:
        text += "; they are for the CPU alone, and there is a GPU"
        return Finding("note", "Detectron2", text, "build it with CUDA, by its own INSTALL.md")
    return Finding("ok", "Detectron2", text)


def onnxruntime(report: Mapping[str, Any]) -> Finding:
    """With where it runs."""
    finding = _engine("onnxruntime", report)
    if finding.status != "ok" or "version" not in report:
        return finding
    return Finding("ok", finding.subject, f"{finding.text}, on {', '.join(report['providers'])}")


def litert(report: Mapping[str, Any]) -> Finding:
    """The interpreter, and the converter where there are wheels of it."""
    converter = EXTRAS["litert-converter"]
    if report.get("lacks") and not converter.is_available():
        text = f"{report['version']}, without its converter, which has wheels for"
        return Finding("ok", "engine: litert", f"{text} {converter.where} alone")
    return _engine("litert", report, "litert-converter" if report.get("lacks") else "litert")


def _engine(name: str, report: Mapping[str, Any], extra: str = "") -> Finding:
    """An engine by its name, and the extra that brings what is missing; by default of its name."""
    subject, fix = f"engine: {name}", f"{_PIP} {shlex.join(EXTRAS[extra or name].packages)}"
    if report.get("missing"):
        return Finding("note", subject, "not installed", fix)
    if "error" in report:
        return Finding("note", subject, f"cannot be imported: {report['error']}", fix)
    if report["lacks"]:
        text = f"{report['version']}, but not {', '.join(report['lacks'])}"
        return Finding("note", subject, text, fix)
    return Finding("ok", subject, report["version"])


def wandb(reports: Reports) -> Finding:
    """Where runs are logged; without an account they are kept on this machine."""
    report, subject = reports["wandb"], "W&B"
    if "error" in report:
        why = "Detectron2 does not work" if _is_unusable(reports) else report["error"]
        return Finding("note", subject, f"not looked at: {why}")
    text = {
        "online": "logged in; runs go online",
        "offline": "runs are kept here, and wandb sync uploads them",
        "disabled": "runs are not logged",
    }.get(report["mode"], report["mode"])
    return Finding("ok", subject, f"{report['version']}, {report['mode']}: {text}")


def _is_unusable(reports: Reports) -> bool:
    found = reports["detectron2"]
    return "error" in found or bool(found.get("missing"))
