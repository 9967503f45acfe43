"""The whole doctor on stand-ins of the libraries: lines, fixes and exit codes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from search.doctor.report import diagnose
from tests.search.doctor.made_site import COMPILED, Site


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """All libraries in order, and an empty folder to start in."""
    for name in ("site", "here", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("search.doctor.machine.LEAST_DISK", 0)
    monkeypatch.setattr("search.doctor.machine.ENOUGH_DISK", 0)
    monkeypatch.setattr("shutil.which", lambda _: None)
    return Site(tmp_path / "site")


def findings(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """The exit code, and status, text and fix by subject."""
    code = diagnose(as_json=True)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["healthy"] == (code == 0)
    rows = report["findings"]
    return code, {row["subject"]: (row["status"], row["text"], row["fix"]) for row in rows}


def test_all_in_order(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert diagnose() == 0
    out = capsys.readouterr().out
    assert out.startswith("spnas ")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "ok packages all that spnas needs" in lines
    assert "ok torch 2.9.1+cpu, without CUDA" in lines
    assert "ok torchvision 0.24.1, which fits" in lines
    assert "ok GPUs none; this PyTorch is for the CPU" in lines
    assert (
        "ok Detectron2 0.6+spnas.2, built by spnas, works, without compiled operators (deformable "
        "convolution, rotated boxes, the compiled COCO evaluator)"
    ) in lines
    index = lines.index("note engine: onnxruntime not installed")
    assert lines[index + 1] == "fix: python -m pip install onnx onnxruntime onnxscript"
    assert re.fullmatch(r"\d+ note, \d+ ok", lines[-1])


def test_everything_is_tried_in_a_folder_that_is_empty(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of the user is not taken for a library."""
    Path("torch.py").write_text("raise SystemError")
    code, found = findings(capsys)
    assert (code, found["torch"][0]) == (0, "ok")


def test_no_torch(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.hide("torch")
    code, found = findings(capsys)
    assert code == 1
    assert found["torch"] == ("broken", "not installed", "python -m pip install torch torchvision")
    assert not {"torchvision", "GPUs"} & set(found)


def test_a_torch_that_cannot_be_imported(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.package(
        "torch", "2.9.1", {"__init__": "raise OSError('libcudart.so.12: cannot open shared')"}
    )
    code, found = findings(capsys)
    assert code == 1
    status, text, fix = found["torch"]
    assert status == "broken"
    assert text == "cannot be imported: OSError: libcudart.so.12: cannot open shared"
    assert fix == "python -m pip install --force-reinstall torch torchvision"


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("os.abort()", "killed by SIGABRT"),
        ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("os._exit(3)", "ends with exit code 3"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_torch_that_takes_python_down(
    death: str, said: str, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not need it is still looked at."""
    site.package("torch", "2.9.1", {"__init__": f"import os; {death}"})
    site.package("onnxruntime", "1.30", {"__init__": "__version__ = '1.30'\n"})
    (site.folder / "sitecustomize.py").write_text("")
    code, found = findings(capsys)
    assert code == 1
    assert found["torch"][0] == "broken"
    assert said in found["torch"][1]
    assert found["packages"][0] == "ok"
    assert "engine: onnxruntime" in found


def test_a_torchvision_of_another_torch(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.distribution("torchvision", "0.22.0", "torch==2.7.0")
    code, found = findings(capsys)
    assert code == 1
    assert found["torchvision"] == (
        "broken",
        "0.22.0 is for torch==2.7.0, and torch is 2.9.1+cpu",
        "python -m pip install torch==2.9.1 torchvision",
    )


def test_a_torchvision_of_another_build(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same version, for CUDA: its operators are not there."""
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    site.package("torchvision", "0.24.1", {"__init__": code}, "torch==2.9.1")
    code_of_exit, found = findings(capsys)
    assert code_of_exit == 1
    status, text, fix = found["torchvision"]
    assert status == "broken"
    assert "does not work with torch 2.9.1+cpu (RuntimeError: operator torchvision::nms" in text
    assert fix == "python -m pip install --force-reinstall torch torchvision"


def test_packages_that_are_missing_or_old(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.distribution("spnas", "0.2.0", "no-such-package>=2", "torch>=3", "tabulate")
    code, found = findings(capsys)
    assert code == 1
    assert found["packages"] == (
        "broken",
        "needed: no-such-package>=2 (missing), torch>=3 (2.9.1+cpu)",
        "python -m pip install 'no-such-package>=2' 'torch>=3'",
    )


def test_no_detectron2(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.hide("detectron2")
    code, found = findings(capsys)
    assert code == 1
    assert found["Detectron2"] == ("broken", "not installed", "spnas install-detectron2")
    assert found["torchvision"][0] == "ok"


def test_a_detectron2_that_cannot_be_imported(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (site.folder / "detectron2" / "engine.py").write_text("import no_such_resources")
    code, found = findings(capsys)
    assert code == 1
    status, text, fix = found["Detectron2"]
    assert status == "broken"
    assert "cannot be imported: ModuleNotFoundError: No module named 'no_such_resources'" in text
    assert fix == "spnas install-detectron2 --force"


def test_a_detectron2_with_compiled_operators(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    package = site.folder / "detectron2" / "_C"
    (site.folder / "detectron2" / "_C.py").unlink()
    package.mkdir()
    (package / "__init__.py").write_text(f"{COMPILED}\n__file__ = '_C.so'\n")
    site.distribution("detectron2", "0.6")
    code, found = findings(capsys)
    assert code == 0
    status, text, _ = found["Detectron2"]
    assert status == "ok"
    assert "0.6, not built by spnas, in '" in text
    assert text.endswith("works, with compiled operators")


def test_a_folder_that_cannot_be_written(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs a folder that nobody may write to")
    monkeypatch.chdir("/proc")
    code, found = findings(capsys)
    assert code == 1
    status, text, fix = found["writing here"]
    assert status == "broken"
    assert text.startswith("'/proc' cannot be written (")
    assert fix == "cd to a folder of yours, or OUTPUT_DIR FOLDER"
