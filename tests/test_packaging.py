"""A wheel holds the packages and their data, and nothing else at its top."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("spnas-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "backbones",
        "detection",
        "search",
    }
    for path in ("archs/spnas_100.json", "latency/pixel1.json", "search/spaces/imagenet.json",
                 "detection/mask_rcnn_spnas_fpn_1x.yaml"):  # fmt: skip
        assert f"backbones/configs/{path}" in names
    assert "detection/engine/cli.py" in names
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}.replace('.whl', ''));"
        "import backbones; print(backbones.__file__, backbones.list_models())"
    )
    zipfile.ZipFile(wheel).extractall(str(wheel).removesuffix(".whl"))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert str(tmp_path) in run.stdout
    assert "spnas_100" in run.stdout
