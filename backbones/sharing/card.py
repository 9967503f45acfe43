"""The model card: a ``README.md`` whose front matter Hugging Face's hub reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module

from backbones.architecture import Architecture
from backbones.extras import require
from backbones.figures import shown
from backbones.sharing.facts import PLACEHOLDER, Facts, Score

CARD_FILE = "README.md"

PAPER = "[Single-Path NAS](https://arxiv.org/abs/1907.00959) (Stamoulis et al., 2019)"

_PIPELINES = {
    "backbone": "image-feature-extraction",
    "classifier": "image-classification",
    "detector": "object-detection",
}

_KINDS = {
    "backbone": "A backbone: feature maps at strides 2, 4, 8, 16 and 32, without a classifier.",
    "classifier": "An image classifier, whose feature maps are a backbone.",
    "detector": "A detector of [Detectron2](https://github.com/facebookresearch/detectron2).",
}


def model_card(facts: Facts, usage: str, architecture: Architecture | None = None) -> str:
    """The text of ``README.md``.

    Args:
        facts: that it states.
        usage: Markdown that says how the model is loaded, as from ``USER/NAME``.
        architecture: of the backbone; None where it is not one of this project.
    """
    sections = [
        f"# {facts.name}",
        _KINDS[facts.kind],
        _section("How to use it", usage.replace(PLACEHOLDER, facts.repository)),
        _section("Data", _data(facts)),
        _section("Scores", _scores(facts.scores)),
        _section("Runtime", _runtimes(facts)),
        _section("Architecture", _layers(architecture)),
        _section("Recipe", _recipe(facts)),
        _section("Source and licence", f"{facts.source}\n\nLicence: {facts.license}."),
    ]
    return f"---\n{front_matter(facts)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def front_matter(facts: Facts) -> str:
    """The YAML at the top, as the hub's own library writes it."""
    require("huggingface_hub")
    hub = import_module("huggingface_hub")
    results = [
        hub.EvalResult(
            task_type=score.task,
            dataset_type=hub_word(score.dataset),
            dataset_name=score.dataset,
            metric_type=score.metric_type,
            metric_name=score.metric,
            metric_value=round(score.value, 2),
        )
        for score in facts.scores
    ]
    data = hub.ModelCardData(
        license=facts.license,
        library_name="detectron2" if facts.kind == "detector" else "timm",
        pipeline_tag=_PIPELINES[facts.kind],
        tags=["neural-architecture-search", "mobile", "spnas"],
        datasets=[hub_word(name) for name in facts.datasets] or None,
        metrics=sorted({score.metric_type for score in facts.scores}) or None,
        model_name=facts.name,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def hub_word(name: str) -> str:
    """A name in the letters that the hub's identifiers may have."""
    return re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-._") or "unnamed"


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text.strip()}" if text.strip() else ""


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; empty without rows."""
    if not rows:
        return ""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _data(facts: Facts) -> str:
    trained = f"Trained on {', '.join(f'`{name}`' for name in facts.datasets)}."
    figures = table(("figure", "value"), list(facts.summary.items()))
    return "\n\n".join(filter(None, [trained if facts.datasets else "", figures]))


def _scores(scores: Sequence[Score]) -> str:
    rows = [(score.dataset, score.metric, f"{score.value:.2f} %") for score in scores]
    return table(("data set", "metric", "value"), rows)


def _runtimes(facts: Facts) -> str:
    rows = [
        (item.what, f"{shown(item.value)} {item.unit}", item.where, item.of or "–")
        for item in facts.runtimes
    ]
    return table(("runtime", "value", "device", "of"), rows)


def _layers(architecture: Architecture | None) -> str:
    if architecture is None:
        return ""
    rows = [
        (str(index), f"{channels} → {layer.out_channels}", str(layer.stride), str(layer.type))
        for index, (channels, layer) in enumerate(
            zip(architecture.in_channels, architecture.layers, strict=True), 1
        )
    ]
    told = (
        f"`{architecture.name}`, in `architecture.json`: kernel, expansion and ratio of "
        "squeeze-and-excitation of every layer."
    )
    return f"{told}\n\n{table(('layer', 'channels', 'stride', 'type'), rows)}"


def _recipe(facts: Facts) -> str:
    rows = [(f"`{key}`", value) for key, value in facts.recipe.items()]
    return f"{table(('key', 'value'), rows)}\n\nAll of them: `config.yaml`." if rows else ""
