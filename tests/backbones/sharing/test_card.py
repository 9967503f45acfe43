"""The model card: read as the hub reads it, and by eye."""

from __future__ import annotations

import huggingface_hub
import yaml

import backbones
from backbones.sharing.card import hub_word, model_card
from backbones.sharing.facts import Facts, Runtime, Score

FACTS = Facts(
    name="my-model",
    kind="classifier",
    license="cc-by-4.0",
    datasets=("digits", "my photos"),
    summary={"parameters": "3.09 M"},
    scores=(
        Score("image-classification", "digits", "top-1", 96.971, "accuracy"),
        Score("object-detection", "digits_val", "box AP, small objects", 51.3555, "map"),
    ),
    runtimes=(
        Runtime("target", 80.0, "ms", "pixel1: Pixel 1"),
        Runtime("measured", 8.81404, "ms", "onnxruntime, AMD EPYC", "classifier at 224×224"),
    ),
    recipe={"SOLVER.BASE_LR": "0.1"},
    source="Made by hand.",
)


def test_front_matter() -> None:
    """By the hub's own reader, and as plain YAML."""
    text = model_card(FACTS, "usage")
    data = huggingface_hub.ModelCard(text).data
    assert data.license == "cc-by-4.0" and data.library_name == "timm"
    assert data.pipeline_tag == "image-classification"
    assert data.datasets == ["digits", "my-photos"]
    found = [
        (r.task_type, r.dataset_name, r.metric_name, r.metric_value) for r in data.eval_results
    ]
    assert found == [
        ("image-classification", "digits", "top-1", 96.97),
        ("object-detection", "digits_val", "box AP, small objects", 51.36),
    ]
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["name"] == "my-model"


def test_text() -> None:
    architecture = backbones.load_architecture("spnas_100")
    text = model_card(FACTS, "Load it so.", architecture).partition("\n---\n")[2]
    lines = text.splitlines()
    for line in (
        *("# my-model", "Load it so.", "Trained on `digits`, `my photos`."),
        "| parameters | 3.09 M |",
        "| digits | top-1 | 96.97 % |",
        "| target | 80.00 ms | pixel1: Pixel 1 | – |",
        "| measured | 8.81 ms | onnxruntime, AMD EPYC | classifier at 224×224 |",
        "| `SOLVER.BASE_LR` | 0.1 |",
        "Licence: cc-by-4.0.",
    ):
        assert line in lines, line
    rows = [line for line in lines if line.startswith("| ") and " → " in line]
    assert len(rows) == len(architecture.layers)
    assert rows[0] == f"| 1 | 32 → 16 | 1 | {architecture.layers[0].type} |"


def test_nothing_is_stated_that_is_not_known() -> None:
    text = model_card(Facts("plain", "backbone"), "usage")
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## How to use it", "## Source and licence"]
    data = huggingface_hub.ModelCard(text).data
    assert data.eval_results is None and data.datasets is None


def test_words_of_the_hub() -> None:
    assert hub_word("my photos/train (1)") == "my-photos-train-1"
    assert hub_word("digits_val") == "digits_val"
    assert hub_word("§") == "unnamed"
