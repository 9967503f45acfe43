"""What times models on a device: alone, on an old Python, by one protocol, under its own name."""

from __future__ import annotations

import ast
import json
import platform
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import backbones.inference.board
from backbones.inference.board import device, models
from backbones.inference.board.models import CannotMeasureError, engine_versions, load_model
from backbones.inference.board.turns import append_line, in_turns, read_visits
from backbones.inference.hardware import device_name, title

(FOLDER,) = map(Path, backbones.inference.board.__path__)
ENGINES = {"numpy", "onnxruntime"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_modules_need_python_3_8_and_an_engine_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    assert (
        any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        or len(tree.body) == 1
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module and node.module.split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
            assert names <= ENGINES | set(sys.stdlib_module_names)


def test_turns_against_a_plain_loop() -> None:
    keys = [f"layer{index}" for index in range(7)]
    found = list(in_turns(keys, "pace", rounds=3, every=4))
    assert [key for _, key in found[:: 4 + 1]] == ["pace"] * len(found[::5])
    visits = [turn for turn in found if turn[1] != "pace"]
    assert [key for round_, key in visits if round_ == 2] == random.Random(2).sample(keys, 7)
    assert Counter(key for _, key in visits) == dict.fromkeys(keys, 3)
    assert [round_ for round_, key in found if key == "pace"] == list(range(6))  # 21 / 4, upwards
    assert len(set(found)) == len(found)


def test_what_a_killed_process_left_is_no_visit(tmp_path: Path) -> None:
    path = tmp_path / "visits.jsonl"
    append_line(path, {"threads": 1})
    append_line(path, ["a", 0, 1.5])
    with path.open("a") as file:
        file.write('["b", 0')
    append_line(path, ["c", 1, 2.5, 0.5])
    append_line(path, ["d", 1, 2.5, 0.5, 3])
    append_line(path, {"minutes": 2})
    assert read_visits(path) == (
        {"threads": 1, "minutes": 2},
        [("a", 0, 1.5, 1.0), ("c", 1, 2.5, 0.5)],
    )
    assert read_visits(tmp_path / "nowhere") == ({}, [])


def cpuinfo(*parts: tuple[str, str]) -> str:
    """As Linux has it on Arm, where "model name" of a 32-bit kernel tells nothing."""
    return "".join(
        f"processor\t: {index}\nmodel name\t: ARMv7 Processor rev 3 (v7l)\n"
        f"CPU implementer\t: {implementer}\nCPU part\t: {part}\n\n"
        for index, (implementer, part) in enumerate(parts)
    )


PI4 = "Raspberry Pi 4 Model B Rev 1.4"
A72, V1, A53 = ("0x41", "0xd08"), ("0x41", "0xd40"), ("0x41", "0xd03")
DEVICES = {
    f"{PI4} (Cortex-A72)": {
        "/proc/cpuinfo": cpuinfo(A72, A72), "/proc/device-tree/model": f"{PI4}\0"
    },
    "c7g.large (Neoverse V1)": {
        "/proc/cpuinfo": cpuinfo(V1), "/sys/class/dmi/id/product_name": "c7g.large\n"
    },
    "Cortex-A53 + Cortex-A72": {"/proc/cpuinfo": cpuinfo(A53, A53, A72)},
    "Arm processor 0x41 0xfff": {"/proc/cpuinfo": cpuinfo(("0x41", "0xfff"))},
    "AMD EPYC": {
        "/proc/cpuinfo": "model name\t: AMD EPYC\nmodel name\t: AMD EPYC\n",
        "/sys/class/dmi/id/product_name": "Virtual Machine",
    },
    "VisionFive 2 (sifive,u74-mc)": {
        "/proc/cpuinfo": "hart\t: 1\nuarch\t: sifive,u74-mc\n",
        "/proc/device-tree/model": "VisionFive 2",
    },
    "riscv64": {},
}  # fmt: skip


@pytest.mark.parametrize("name", DEVICES)
def test_boards_have_names_of_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_text", lambda path: DEVICES[name].get(path, ""))
    monkeypatch.setattr(device, "_answer", lambda *_: "")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert device_name("cpu") == name


def test_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"machdep.cpu.brand_string": "Apple M2", "hw.model": "Mac14,2",
               "ro.product.manufacturer": "Google", "ro.product.model": "Pixel 4"}  # fmt: skip
    monkeypatch.setattr(device, "_answer", lambda *command: answers.get(command[-1], ""))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert device_name("cpu") == "Mac14,2 (Apple M2)"
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(
        device, "_text", lambda path: cpuinfo(A53) if path == "/proc/cpuinfo" else ""
    )
    assert device_name("cpu") == "Google Pixel 4 (Cortex-A53)"
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(device, "_windows_processor", lambda: "Snapdragon(R) X Elite")
    assert device_name("cpu") == "Snapdragon(R) X Elite"
    monkeypatch.setattr(device, "_answer", lambda *command: "Orin" * (command[0] == "nvidia-smi"))
    assert title(device.device_facts("cuda")) == "Orin"


def test_a_missing_program_is_no_answer() -> None:
    assert device._answer("no-such-program") == ""
    assert device._answer(sys.executable, "-c", "raise SystemExit(1)") == ""
    assert device._answer(sys.executable, "-c", "print('a\\nb')") == "a"


def relu(path: Path, kind: int = TensorProto.FLOAT, sides: tuple[int, ...] = (1, 4, 8, 8)) -> Path:
    """An ONNX file with one operation."""
    x, y = (helper.make_tensor_value_info(name, kind, sides) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(model)
    return path


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT8], ids=["float32", "int8"])
def test_a_model_gets_noise_of_its_own_type(kind: int, tmp_path: Path) -> None:
    model = load_model("onnxruntime", relu(tmp_path / "m.model", kind), 1, "cpu")
    assert isinstance(model, models.OnnxRuntimeModel)
    (noise,) = model.noise()
    assert noise.shape == (1, 4, 8, 8)
    assert noise.dtype == (np.float32 if kind == TensorProto.FLOAT else np.int8)
    model.run()
    (found,) = model.binding.copy_outputs_to_cpu()
    np.testing.assert_array_equal(found, np.maximum(noise, 0))
    assert len(model.times(3)) == 3


def test_what_cannot_be_measured_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.model").write_bytes(b"no model")
    with pytest.raises(CannotMeasureError, match=r"^onnxruntime \d.* cannot load 'm.model' \("):
        load_model("onnxruntime", tmp_path / "m.model", 1, "cpu")
    with pytest.raises(CannotMeasureError, match=r"^ai-edge-litert \d.* cannot load 'm.model' \("):
        load_model("litert", tmp_path / "m.model", 1, "cpu")
    monkeypatch.setitem(models.MODULES, "litert", ("no_such_engine",))
    with pytest.raises(CannotMeasureError, match="python3 -m pip install ai-edge-litert numpy"):
        engine_versions("litert")


def test_importing_it_imports_no_torch() -> None:
    """As the script has it: by itself, below another name."""
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r}); import board.measure;"
        "print(sorted({'torch', 'numpy', 'backbones'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_visits_are_json(tmp_path: Path) -> None:
    append_line(tmp_path / "v.jsonl", ["a", 0, 1.5])
    assert json.loads((tmp_path / "v.jsonl").read_text()) == ["a", 0, 1.5]
