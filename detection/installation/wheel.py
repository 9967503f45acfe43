"""Builds an ordinary pure-Python wheel named ``detectron2`` from the mended source.

The wheel format is the binary distribution format of the Python packaging specifications: a zip
file with the packages and a ``.dist-info`` folder holding METADATA, WHEEL and RECORD.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from backbones.files import write_atomic
from backbones.scratch import scratch_folder
from detection.installation.mends import MENDS
from detection.installation.patching import Mend, apply_mends
from detection.installation.source import check_sdist, ensure_folder, unpack_sdist

NAME = "detectron2"
# The number after the name is raised with every change of the mends: an installed wheel of another
# number is then renewed.
VERSION = "0.6+spnas.2"
WHEEL_NAME = f"{NAME}-{VERSION}-py3-none-any.whl"

# Folders of the source and where they are installed: small projects become subpackages.
LAYOUT: Mapping[str, str] = {
    "detectron2": "detectron2",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}

# What the mended packages import when they are imported. v0.6 also asks for future and pydot
# (for Caffe2 alone) and for an old black (only LazyConfig.to_py uses any); black and OpenCV are
# extras here.
REQUIREMENTS: tuple[str, ...] = (
    "torch>=2.0",
    "torchvision",
    "numpy",
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "PyYAML>=5.1",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.10",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
)

_METADATA = f"""Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: Detectron2 v0.6, mended for current libraries, without compiled operators
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.10
Description-Content-Type: text/markdown
Provides-Extra: black
Provides-Extra: opencv
"""

_DESCRIPTION = """
Detectron2 v0.6, built by spnas as pure Python. Deformable convolution on a GPU, rotated boxes and
the compiled COCO evaluator are not part of it. Changed against v0.6:

"""

_WHEEL = """Wheel-Version: 1.0
Generator: spnas
Root-Is-Purelib: true
Tag: py3-none-any
"""


def build_wheel(sdist: Path, folder: Path, mends: Iterable[Mend] = MENDS) -> Path:
    """Builds the wheel from the checked source and writes it to ``folder``.

    The same source and mends give the same bytes.

    Args:
        sdist: the source distribution.
        folder: where the wheel goes; created if missing.
        mends: which mends to apply.

    Returns:
        The wheel's path.

    Raises:
        UserError: if the source is not the expected one, or ``folder`` cannot be written.
    """
    check_sdist(sdist)
    mends = tuple(mends)
    with scratch_folder("detectron2") as temporary:
        root = unpack_sdist(sdist, temporary / "source")
        apply_mends(root, mends)
        files = {**package_files(root), **_dist_info(root / "LICENSE", mends)}
    ensure_folder(folder)
    target = folder / WHEEL_NAME
    write_atomic(target, _zip(files))
    return target


def package_files(root: Path) -> dict[str, bytes]:
    """Returns the content of every file to install, by its path in the environment.

    Args:
        root: the top folder of the source tree.
    """
    files: dict[str, bytes] = {}
    for source, installed in LAYOUT.items():
        for path in sorted((root / source).rglob("*")):
            if path.is_file():
                name = f"{installed}/{path.relative_to(root / source).as_posix()}"
                files[name] = path.read_bytes()
    return files


def _dist_info(licence: Path, mends: Iterable[Mend]) -> dict[str, bytes]:
    requirements = [f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS]
    requirements.append('Requires-Dist: black; extra == "black"')
    requirements.append('Requires-Dist: opencv-python-headless; extra == "opencv"')
    changes = [f"- {mend.name}: {mend.why}" for mend in mends]
    metadata = _METADATA + "\n".join(requirements) + "\n" + _DESCRIPTION + "\n".join(changes) + "\n"
    folder = f"{NAME}-{VERSION}.dist-info"
    return {
        f"{folder}/LICENSE": licence.read_bytes(),
        f"{folder}/METADATA": metadata.encode(),
        f"{folder}/WHEEL": _WHEEL.encode(),
        f"{folder}/top_level.txt": f"{NAME}\n".encode(),
    }


def _zip(files: Mapping[str, bytes]) -> bytes:
    record_name = f"{NAME}-{VERSION}.dist-info/RECORD"
    rows = [f"{_csv(name)},{_digest(data)},{len(data)}" for name, data in files.items()]
    record = "\n".join([*rows, f"{record_name},,"]) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, record_name: record.encode()}.items():
            # A fixed time and mode, so that the same source gives the same wheel.
            entry = zipfile.ZipInfo(name, date_time=(2021, 11, 16, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()


def _csv(name: str) -> str:
    return f'"{name}"' if "," in name else name


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
