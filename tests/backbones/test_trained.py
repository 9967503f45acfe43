"""A network with its weights, by one name."""

from __future__ import annotations

from pathlib import Path

import pytest

from backbones import UserError, create_model, load_architecture
from backbones.exported import save_backbone
from backbones.trained import named_architecture, named_weights


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that a run left."""
    folder = tmp_path / "run"
    folder.mkdir()
    network = create_model("spnas_100", num_classes=2)
    save_backbone(folder, load_architecture("spnas_100"), network.state_dict())
    return folder


@pytest.mark.parametrize(
    ("name", "architecture", "weights"),
    [
        ("efficientnet_lite0", "efficientnet_lite0", "package://efficientnet_lite0"),
        ("package://efficientnet_lite0", "efficientnet_lite0", "package://efficientnet_lite0"),
        ("mobilenetv2_100", "mobilenetv2_100", "timm://mobilenetv2_100"),
        ("torchvision://mobilenet_v2", "mobilenetv2_100", "torchvision://mobilenet_v2"),
    ],
)
def test_published_networks(name: str, architecture: str, weights: str) -> None:
    assert named_architecture(name) == load_architecture(architecture)
    assert named_weights(name, "KEY") == weights


def test_what_a_run_left_by_folder_and_by_file(run: Path) -> None:
    for name in (str(run), str(run / "architecture.json")):
        assert named_architecture(name).name == "spnas_100"
        assert named_weights(name, "KEY") == str(run / "backbone.pth")


def test_no_weights_beside_it(run: Path) -> None:
    (run / "backbone.pth").unlink()
    with pytest.raises(UserError, match=r"^KEY is '.*run', and there is no backbone.pth beside"):
        named_weights(str(run), "KEY")


def test_no_such_network(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown architecture 'efficientnet'"):
        named_architecture("efficientnet")
    with pytest.raises(UserError, match="no network of the zoo has weights at 'timm://nothing'"):
        named_architecture("timm://nothing")
    with pytest.raises(UserError, match=r"architecture\.json"):
        named_architecture(str(tmp_path))
