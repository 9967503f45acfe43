"""Stand-ins for the installed libraries: small packages that the probe finds first."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = ROOT / "detection" / "installation" / "compiled_operators.py"
PARTS = ("layers", "modeling", "data", "engine", "evaluation", "checkpoint", "model_zoo")

TORCH = """
__version__ = "2.9.1+cpu"

class version:
    cuda = hip = None

class cuda:
    is_available = staticmethod(lambda: False)

def get_num_threads():
    return 2

def tensor(values):
    return values
"""
TORCHVISION = """
class ops:
    nms = staticmethod(lambda *_: None)
"""
COMPILED = """
deform_conv_forward = nms_rotated = COCOevalEvaluateImages = None

def has_cuda():
    return False
"""
HIDDEN = ("ai_edge_litert", "onnxruntime", "wandb")


class Site:
    """A folder of stand-ins for the module path.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hide(*HIDDEN)
        self.distribution("spnas", "0.2.0", "torch>=2.4", "botorch ; extra == 'tune'")
        self.package("torch", "2.9.1+cpu", {"__init__": TORCH})
        self.package("torchvision", "0.24.1", {"__init__": TORCHVISION}, "torch==2.9.1")
        parts = dict.fromkeys(("__init__", *PARTS), "")
        self.package("detectron2", "0.6+spnas.2", parts)
        shutil.copy(STAND_IN, folder / "detectron2" / "_C.py")

    def hide(self, *names: str) -> None:
        """Modules that are not installed."""
        code = f"import sys; sys.modules.update(dict.fromkeys({names!r}))\n"
        with (self.folder / "sitecustomize.py").open("a", encoding="utf-8") as file:
            file.write(code)

    def package(self, name: str, version: str, files: Mapping[str, str], *requires: str) -> None:
        """Modules of a package, and its metadata."""
        (self.folder / name).mkdir(exist_ok=True)
        for module, code in files.items():
            (self.folder / name / f"{module}.py").write_text(code, encoding="utf-8")
        self.distribution(name, version, *requires)

    def distribution(self, name: str, version: str, *requires: str) -> None:
        """Metadata, in the place of those that were there."""
        for old in self.folder.glob(f"{name}-*.dist-info"):
            shutil.rmtree(old)
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {text}" for text in requires]
        (info / "METADATA").write_text("\n".join(lines), encoding="utf-8")
