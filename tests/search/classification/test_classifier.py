"""Classifier training of a few steps: resumed, exported, and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.utils.env import seed_all_rng

from backbones import LatencyTable, UserError, create_model, load_architecture, predict_runtime
from backbones.exported import save_backbone
from backbones.weights import read_checkpoint
from search.classification.classifier import ClassifierTrainer
from tests.made_images import spoil_pixels
from tests.search.conftest import SHORT, as_expected, interrupt_at, make_cfg, write_classifier


@pytest.mark.slow
def test_classifier_learns_resumes_and_exports_its_average(images: Path, tmp_path: Path) -> None:
    more = ("CLASSIFICATION.EPOCHS", "3.0", "CLASSIFICATION.EMA_DECAY", "0.5")
    cfg = make_cfg("classification/digits.yaml", images, tmp_path / "run", *more)
    seed_all_rng(0)
    first = ClassifierTrainer(cfg)
    interrupt_at(first, 9)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = ClassifierTrainer(cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 8
    second.train()
    assert second.ema is not None
    exported = read_checkpoint(tmp_path / "run" / "backbone.pth")["model"]
    averaged = second.ema.module.state_dict()
    assert all(torch.equal(exported[name], averaged[name]) for name in averaged)
    assert not torch.equal(exported["stem.conv.weight"], second.unwrapped.stem.conv.weight)
    results = json.loads((tmp_path / "run" / "results.json").read_text())["classification"]
    assert results["architecture"] == "spnas_100"
    assert results["predicted_runtime"] == pytest.approx(80.44, abs=0.01)


def test_the_runtime_is_of_the_table_that_was_searched_on(images: Path, tmp_path: Path) -> None:
    """Not of pixel1, which the search has never seen."""
    network = load_architecture("spnas_100")
    file = tmp_path / "architecture.json"
    replace(network, provenance={"latency_table": "xeon_litert_224"}).save(file)
    arch = ("MODEL.SPNAS.ARCH", str(file))
    cfg = make_cfg("classification/digits.yaml", images, tmp_path / "run", *SHORT, *arch)
    ClassifierTrainer(cfg).train()
    results = json.loads((tmp_path / "run" / "results.json").read_text())["classification"]
    table = LatencyTable.load("xeon_litert_224")
    assert results["predicted_runtime"] == pytest.approx(predict_runtime(network, table))
    assert (results["latency_table"], results["unit"]) == ("xeon_litert_224", "ms")
    assert results["runtime_of"] == "classifier at 224×224"


def test_a_classifier_is_not_judged_on_other_classes(images: Path, tmp_path: Path) -> None:
    """Its last layer would be a random one."""
    write_classifier(tmp_path / "ten.pth", 10)
    weights = ("MODEL.WEIGHTS", str(tmp_path / "ten.pth"))
    trainer = ClassifierTrainer(
        make_cfg("classification/digits.yaml", images, tmp_path / "run", *SHORT, *weights)
    )
    with pytest.raises(UserError, match=r"ten.pth' has no classifier of 2 classes"):
        trainer.evaluate_only()
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_complete_run_makes_up_for_a_failed_evaluation(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(images, root)
    broken = root / "val" / "red" / "3.png"
    whole = spoil_pixels(broken)
    folder = tmp_path / "run"
    cfg = make_cfg("classification/digits.yaml", root, folder, *SHORT)
    first = ClassifierTrainer(cfg)
    with pytest.raises(UserError, match=r"cannot read the image '.*3\.png'"):
        first.train()
    assert not (folder / "backbone.pth").exists()
    broken.write_bytes(whole)
    second = ClassifierTrainer(cfg)
    second.resume_or_load(resume=True)
    second.train()
    exported = read_checkpoint(folder / "backbone.pth")["model"]
    assert torch.equal(exported["classifier.bias"], first.unwrapped.classifier.bias)
    assert (folder / "architecture.json").is_file()
    results = (folder / "results.json").read_bytes()
    marked = json.dumps({**json.loads(results), "mark": "of an earlier time"}).encode()
    (folder / "results.json").write_bytes(marked)
    second.train()  # there is nothing to make up for any more
    assert (folder / "results.json").read_bytes() == marked
    model, val = second.unwrapped.eval(), second.val_data
    with torch.no_grad():
        pairs = [(as_expected(val[index][0][None]), val[index][1]) for index in range(16)]
        right = [int(model(image).argmax()) == label for image, label in pairs]
    assert json.loads(results)["classification"]["val"]["top1"] == 100 * sum(right) / 16


def test_classifier_starts_from_a_published_file(images: Path, tmp_path: Path) -> None:
    theirs = torchvision.models.mnasnet0_5().state_dict()
    torch.save(theirs, tmp_path / "mnasnet0.5.pth")
    options = [
        *("MODEL.WEIGHTS", str(tmp_path / "mnasnet0.5.pth"), "MODEL.SPNAS.ARCH", "mnasnet_b1"),
        *("MODEL.SPNAS.WIDTH_MULT", "0.5"),
    ]
    trainer = ClassifierTrainer(
        make_cfg("classification/digits.yaml", images, tmp_path / "run", *options)
    )
    ours = trainer.unwrapped.state_dict()
    assert torch.equal(ours["stem.conv.weight"], theirs["layers.0.weight"])
    assert torch.equal(ours["head.conv.weight"], theirs["layers.14.weight"])
    assert ours["classifier.weight"].shape == (2, 1280)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A run's folder with a classifier of two classes."""
    folder = tmp_path / "teacher"
    folder.mkdir()
    network = create_model("mobilenetv2_100", num_classes=2)
    torch.nn.init.normal_(network.classifier.weight)
    save_backbone(folder, load_architecture("mobilenetv2_100"), network.state_dict())
    return folder


def test_a_teacher_is_learned_from(images: Path, tmp_path: Path, teacher: Path) -> None:
    """The loss is the mixture of Hinton et al. at temperature 1, computed here by hand."""
    more = ("CLASSIFICATION.TEACHER", str(teacher), "CLASSIFICATION.TEACHER_WEIGHT", "0.25")
    cfg = make_cfg("classification/digits.yaml", images, tmp_path / "run", *SHORT, *more)
    trainer = ClassifierTrainer(cfg)
    x, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 1, 0])
    losses, logits = trainer.backward(x, labels)
    other = create_model("mobilenetv2_100", num_classes=2, checkpoint_path=teacher / "backbone.pth")
    with torch.no_grad():
        taught = other.eval()(x).softmax(1)
    smoothing = cfg.CLASSIFICATION.LABEL_SMOOTHING
    hard = torch.eye(2)[labels] * (1 - smoothing) + smoothing / 2
    expected = -(logits.log_softmax(1) * (0.75 * hard + 0.25 * taught)).sum(1).mean()
    found = torch.stack(list(losses.values())).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["loss_teacher"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("CLASSIFICATION.TEACHER_WEIGHT", "0.0"), "TEACHER_WEIGHT is 0; expected a part"),
        (("MODEL.SPNAS.ARCH", "efficientnet_lite0"), "images normalised by"),
        (("CLASSIFICATION.TEACHER", "nobody"), "unknown architecture 'nobody'"),
    ],
)
def test_teachers_that_cannot_teach(
    images: Path, tmp_path: Path, teacher: Path, options: tuple[str, ...], message: str
) -> None:
    more = ("CLASSIFICATION.TEACHER", str(teacher), *options)
    cfg = make_cfg("classification/digits.yaml", images, tmp_path / "run", *SHORT, *more)
    with pytest.raises(UserError, match=message):
        ClassifierTrainer(cfg)


def test_a_teacher_of_other_classes_is_refused(images: Path, tmp_path: Path, teacher: Path) -> None:
    network = create_model("mobilenetv2_100", num_classes=3)
    save_backbone(teacher, load_architecture("mobilenetv2_100"), network.state_dict())
    more = ("CLASSIFICATION.TEACHER", str(teacher))
    cfg = make_cfg("classification/digits.yaml", images, tmp_path / "run", *SHORT, *more)
    with pytest.raises(UserError, match="another number of classes"):
        ClassifierTrainer(cfg)
