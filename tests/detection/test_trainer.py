"""Training, resuming and evaluating through the command line, and what goes wrong there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone

from backbones import UserError, load_architecture
from backbones.weights import save_checkpoint
from detection.checkpointing import DetectorCheckpointer, backbone_prefix
from detection.modeling.backbone import build_trunk
from detection.modeling.pretrained import PublishedWeightsHandler
from detection.recipe import check_solver
from detection.trainer import DetectionTrainer, report
from tests.made_images import spoil_pixels
from tests.run_contents import contents

TrainNet = Callable[..., tuple[int, str]]


def model_of(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return state


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results["detection"]


def write_backbone(path: Path, width: float = 1.0, drop: str = "", **extra: torch.Tensor) -> str:
    state = build_trunk(load_architecture("spnas_100").scaled(width), "BN").state_dict()
    state = {name: value for name, value in state.items() if name != drop}
    save_checkpoint(path, {"model": {**state, **extra}, "matching_heuristics": True})
    return str(path)


@pytest.mark.slow
def test_train_resume_and_evaluate(train_net: TrainNet, tmp_path: Path) -> None:
    options = ["SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.BASE_LR", "0.01"]
    options += ["MODEL.WEIGHTS", write_backbone(tmp_path / "backbone.pth")]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code, output = train_net("OUTPUT_DIR", str(whole), *options)
    assert code == 0, output
    assert "tiny_val |     box |" in output
    assert "predicted (ms)" in output
    found = results_of(whole)
    assert found["cost"]["params_classifier"] == 4_421_616
    assert set(found["scores"]["tiny_val"]) == {"bbox", "segm"}
    assert {"AP", "APs", "APm", "APl", "AP-box"} <= set(found["scores"]["tiny_val"]["bbox"])
    steps = [json.loads(line) for line in (whole / "metrics.json").read_text().splitlines()]
    assert "bbox/AP" in steps[-1]
    assert "total_loss" in steps[0]
    assert "AP on tiny_val" in (whole / "report.html").read_text(encoding="utf-8")
    assert (whole / "predictions" / "tiny_val" / "samples.json").exists()

    # The same run, ended after two of its four steps.
    code, output = train_net("OUTPUT_DIR", str(parts), *options)
    (parts / "model_final.pth").unlink()
    (parts / "model_0000003.pth").unlink()
    (parts / "last_checkpoint").write_text("model_0000001.pth")
    code, output = train_net("--resume", "OUTPUT_DIR", str(parts), *options)
    assert code == 0, output
    assert "Resuming at iteration 2 of" in output
    expected = model_of(whole / "model_final.pth")
    for name, value in model_of(parts / "model_final.pth").items():
        assert torch.equal(value, expected[name]), name

    code, output = train_net(
        *("--eval-only", "OUTPUT_DIR", str(tmp_path / "eval"), "TEST.COCO_BACKEND", "pycocotools"),
        *("MODEL.WEIGHTS", str(whole / "model_final.pth")),
    )
    assert code == 0, output
    for task, scores in results_of(tmp_path / "eval" / "evaluation")["scores"]["tiny_val"].items():
        assert scores == pytest.approx(found["scores"]["tiny_val"][task], abs=1e-6, nan_ok=True)

    # As in Detectron2, --resume evaluates the last checkpoint of the run, not MODEL.WEIGHTS.
    before = contents(whole)
    code, output = train_net("--eval-only", "--resume", "OUTPUT_DIR", str(whole), *options)
    assert code == 0, output
    assert contents(whole, "evaluation") == before
    again = results_of(whole / "evaluation")
    assert again["scores"] == found["scores"]
    assert again["cost"].pop("detector_runtime") > 0  # a measurement
    assert again["cost"].items() <= found["cost"].items()

    code, output = train_net("OUTPUT_DIR", str(whole), *options)
    assert code == 2
    assert "holds an earlier run" in output


def test_the_backbone_starts_from_its_weights(
    train_net: TrainNet, tmp_path: Path, tiny_cfg: CfgNode
) -> None:
    tiny_cfg.MODEL.WEIGHTS = write_backbone(tmp_path / "backbone.pth")
    trainer = DetectionTrainer(tiny_cfg)
    trainer.resume_or_load(resume=False)
    loaded = trainer.model.backbone.bottom_up.state_dict()
    for name, value in model_of(tmp_path / "backbone.pth").items():
        assert torch.equal(loaded[name], value), name
    assert backbone_prefix(trainer.model) == "backbone.bottom_up."
    conv = trainer.model.backbone.bottom_up.layers[1].expand.conv.weight
    assert conv.is_contiguous(memory_format=torch.channels_last)
    tiny_cfg.SOLVER.OPTIMIZER = "AdamW"
    optimizer = DetectionTrainer.build_optimizer(tiny_cfg, trainer.model)
    assert isinstance(optimizer, torch.optim.AdamW)
    norms = [g for g in optimizer.param_groups if g["weight_decay"] == 0]
    assert sum(p.numel() for g in norms for p in g["params"]) > 10_000


def test_final_numbers_go_to_wandb(tiny_cfg: CfgNode) -> None:
    class Writer:
        def log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
            self.table = name, columns, rows

        def log_summary(self, values: dict[str, Any]) -> None:
            self.summary = values

    writer, model = Writer(), DetectionTrainer.build_model(tiny_cfg)
    scores = {"bbox": {"AP": 40.0, "APs": 10.0, "APl": float("nan")}, "segm": {"AP": 30.0}}
    report(tiny_cfg, model, scores, writer)  # type: ignore[arg-type]
    name, columns, rows = writer.table
    assert name == "final_table"
    assert rows[0][columns.index("AP_S")] == 10
    assert rows[0][columns.index("AP_L")] is None
    assert writer.summary["final/tiny_val/segm/AP"] == 30
    assert writer.summary["final/params_classifier"] == 4_421_616
    written = results_of(Path(tiny_cfg.OUTPUT_DIR))
    assert written["scores"]["tiny_val"]["bbox"] == {"AP": 40.0, "APs": 10.0, "APl": None}


def ruin(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("class count", "MODEL.ROI_HEADS.NUM_CLASSES is 80, but data set 'tiny_val' has 3 classes"),
        ("unknown data set", "unknown data set 'tiny_vall' in DATASETS; did you mean 'tiny_val'"),
        ("unknown key", "unknown key 'SOLVER.LR'"),
        ("unknown architecture", "unknown architecture 'spnas_101'"),
        ("unknown norm", "MODEL.SPNAS.NORM is 'XN'"),
        ("unknown optimizer", "SOLVER.OPTIMIZER is 'Adam'; expected one of SGD, AdamW"),
        ("mixed precision", "SOLVER.AMP.DTYPE is 'float16', but MODEL.DEVICE is 'cpu'; float16 "),
        ("unknown latency table", "unknown latency table 'pixel9'"),
        ("empty set", "is empty"),
        ("missing json", "no file '"),
        ("truncated image", "5 × image files that are truncated or broken, first '"),
        ("annotations of other images", "use the annotation file that belongs to these images"),
        ("no checkpoint", "no checkpoint at '"),
        ("truncated checkpoint", "cannot read the checkpoint '"),
        ("another width", "belongs to another architecture than the backbone 'spnas_100'"),
        ("a tensor missing", "1 tensors do not fit, first layers.2.expand.conv.weight (absent in"),
        ("a tensor too many", "1 tensors do not fit, first layers.2.se.reduce.weight (4×72×1×1 in"),
        (
            "unknown timm weights",
            "no network of the zoo has weights at 'timm://resnet50'; nearest:",
        ),
    ],
)
def test_mistakes(
    train_net: TrainNet,
    register: Callable[..., str],
    own_json: Path,
    tmp_path: Path,
    case: str,
    message: str,
) -> None:
    own = register(own_json)
    weights = tmp_path / "backbone.pth"
    content = json.loads(own_json.read_text())
    options = {
        "class count": ["MODEL.ROI_HEADS.NUM_CLASSES", "80"],
        "unknown data set": ["DATASETS.TEST", "('tiny_vall',)"],
        "unknown key": ["SOLVER.LR", "0.1"],
        "unknown architecture": ["MODEL.SPNAS.ARCH", "spnas_101"],
        "unknown norm": ["MODEL.SPNAS.NORM", "XN"],
        "unknown optimizer": ["SOLVER.OPTIMIZER", "Adam"],
        "mixed precision": ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "float16"],
        "unknown latency table": ["MODEL.SPNAS.LATENCY_TABLE", "pixel9"],
        "unknown timm weights": ["MODEL.WEIGHTS", "timm://resnet50"],
    }.get(case, ["DATASETS.TRAIN", f"('{own}',)"])
    if case == "empty set":
        own_json.write_text(json.dumps({**content, "images": [], "annotations": []}))
    elif case == "missing json":
        own_json.unlink()
    elif case == "truncated image":
        for index in range(5):
            ruin(own_json.parent / f"{index}.jpg", lambda data: data[: len(data) // 2])
    elif case == "annotations of other images":
        for image in content["images"]:
            image["height"] += 1
        own_json.write_text(json.dumps(content))
    elif "tensor" in case or "checkpoint" in case or case == "another width":
        options = ["MODEL.WEIGHTS", str(weights)]
        if case == "another width":
            write_backbone(weights, 0.5)
        elif case == "a tensor missing":
            write_backbone(weights, drop="layers.2.expand.conv.weight")
        elif case == "a tensor too many":
            write_backbone(weights, **{"layers.2.se.reduce.weight": torch.zeros(4, 72, 1, 1)})
        elif case == "truncated checkpoint":
            write_backbone(weights)
            ruin(weights, lambda data: data[:9999])
    code, output = train_net(*options)
    assert code == 2, output
    assert message in output
    assert "will not be loaded" not in output  # Detectron2's two lines a tensor
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if line][-1].startswith("error: ")


def test_evaluating_a_model_that_does_not_fit(train_net: TrainNet, tmp_path: Path) -> None:
    code, output = train_net("--eval-only")
    assert code == 2
    assert "--eval-only needs weights" in output
    weights = write_backbone(tmp_path / "backbone.pth")
    code, output = train_net("--eval-only", "MODEL.WEIGHTS", weights)
    assert code == 2
    assert "belongs to another number of classes or another arch" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run" / "evaluation" / "results.json").exists()


def test_a_broken_image_keeps_what_is_written(
    train_net: TrainNet, register: Callable[..., str], own_json: Path, tmp_path: Path
) -> None:
    """The test set has a broken image: the trained weights are there, to be evaluated later."""
    own = register(own_json)
    image = own_json.parent / "2.jpg"
    whole = spoil_pixels(image)
    code, output = train_net("DATASETS.TEST", f"('{own}',)")
    assert code == 2
    assert "2.jpg" in output
    assert "Traceback" not in output
    assert model_of(tmp_path / "run" / "model_final.pth")
    assert not (tmp_path / "run" / "results.json").exists()
    assert "bbox/AP" not in (tmp_path / "run" / "metrics.json").read_text()
    image.write_bytes(whole)
    code, output = train_net("--resume", "DATASETS.TEST", f"('{own}',)")
    assert code == 0, output
    assert "nothing to train" in output
    assert set(results_of(tmp_path / "run")["scores"][own]) == {"bbox", "segm"}
    (*_, last) = (tmp_path / "run" / "metrics.json").read_text().splitlines()
    assert {"bbox/AP", "segm/AP"} <= set(json.loads(last))


def test_worker_processes_report_in_one_line(
    train_net: TrainNet, register: Callable[..., str], own_json: Path
) -> None:
    own = register(own_json)
    for index in range(5):
        spoil_pixels(own_json.parent / f"{index}.jpg")
    code, output = train_net("DATASETS.TRAIN", f"('{own}',)", "DATALOADER.NUM_WORKERS", "1")
    assert code == 2
    assert "cannot read the image" in output
    assert "Traceback" not in output


def test_a_backbone_file_without_its_mark(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    path = Path(write_backbone(tmp_path / "b.pth", **{"classifier.bias": torch.zeros(10)}))
    save_checkpoint(path, model_of(path))
    model = DetectionTrainer.build_model(tiny_cfg)
    DetectorCheckpointer(model).load(str(path))
    loaded = model.backbone.bottom_up.stem.conv.weight
    assert torch.equal(loaded, torch.load(path, weights_only=True)["stem.conv.weight"])


def test_leftovers_that_are_no_mistake(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    """Head and classifier, and layers behind the last map, have no place and need none."""
    tiny_cfg.MODEL.SPNAS.OUT_FEATURES = ["res2", "res3", "res4"]
    tiny_cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4"]
    tiny_cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    tiny_cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128]]
    tiny_cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4"]
    path = write_backbone(tmp_path / "b.pth", **{"classifier.weight": torch.zeros(1000, 1280)})
    bottom_up = build_backbone(tiny_cfg).bottom_up
    model = torch.nn.ModuleDict({"backbone": torch.nn.ModuleDict({"bottom_up": bottom_up})})
    DetectorCheckpointer(model).load(path)
    assert torch.equal(bottom_up.stem.conv.weight, model_of(Path(path))["stem.conv.weight"])


def test_check_solver(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.MAX_ITER = 0
    with pytest.raises(UserError, match="MAX_ITER is 0"):
        check_solver(tiny_cfg)


def test_timm_weights_are_converted_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_cfg: CfgNode
) -> None:
    import timm

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    original, calls = timm.create_model, []

    def offline(name: str, pretrained: bool = False) -> torch.nn.Module:
        calls.append((name, pretrained))
        if len(calls) == 1:
            raise OSError("no network")
        torch.manual_seed(3)
        model: torch.nn.Module = original(name)
        return model

    monkeypatch.setattr(timm, "create_model", offline)
    handler = PublishedWeightsHandler()
    with pytest.raises(UserError, match=r"could not download timm's weights.*no network"):
        handler._get_local_path("timm://spnasnet_100")
    tiny_cfg.MODEL.WEIGHTS = "timm://spnasnet_100"
    for _ in range(2):
        trainer = DetectionTrainer(tiny_cfg)
        trainer.resume_or_load(resume=False)
    assert calls == [("spnasnet_100", True)] * 2
    torch.manual_seed(3)
    theirs = original("spnasnet_100").state_dict()
    ours = trainer.model.backbone.bottom_up.state_dict()
    assert torch.equal(ours["stem.conv.weight"], theirs["conv_stem.weight"])
    assert torch.equal(ours["layers.1.expand.conv.weight"], theirs["blocks.1.0.conv_pw.weight"])


def test_a_file_of_torchvisions(tmp_path: Path, tiny_cfg: CfgNode) -> None:
    theirs = torchvision.models.mobilenet_v2().state_dict()
    torch.save(theirs, tmp_path / "mobilenet_v2-7ebf99e0.pth")
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "mobilenet_v2-7ebf99e0.pth")
    with pytest.raises(UserError, match="architecture 'spnas_100' has .* not the same network"):
        DetectionTrainer(tiny_cfg).resume_or_load(resume=False)
    tiny_cfg.MODEL.SPNAS.ARCH = "mobilenetv2_100"
    trainer = DetectionTrainer(tiny_cfg)
    trainer.resume_or_load(resume=False)
    ours = trainer.model.backbone.bottom_up.state_dict()
    assert torch.equal(ours["layers.16.project.conv.weight"], theirs["features.17.conv.2.weight"])
    assert torch.equal(ours["layers.16.project.norm.bias"], theirs["features.17.conv.3.bias"])
