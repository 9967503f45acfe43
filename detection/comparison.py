"""Backbones compared under one detector: finished runs, gathered into Tables I and III."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure
from tabulate import tabulate

from backbones.architecture import Architecture
from backbones.errors import UserError
from backbones.files import atomic_path, differing, leaves, read_json, write_atomic, write_json
from backbones.paths import config_path
from backbones.zoo import load_architecture
from detection.engine.provenance import provenance
from detection.engine.results import mean_and_deviation
from detection.report import COLUMNS, TASK_NAMES, ModelCost
from detection.scoring import METRICS

PER_RUN = (
    *("MODEL.SPNAS.ARCH", "MODEL.SPNAS.WIDTH_MULT", "MODEL.TIMM.NAME", "MODEL.TIMM.PRETRAINED"),
    *("MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"),
    *("OUTPUT_DIR", "SEED"),
)
"""Keys in which compared runs may differ: the network, what its weights were trained with, and the
run. W&B's and the number of loader processes may differ as well."""

_FREE = ("WANDB.", "DATALOADER.NUM_WORKERS")


@dataclass(frozen=True)
class DetectorRun:
    """One finished run of ``tools/train_net.py``.

    Attributes:
        folder: of the run.
        name: of the row.
        seed: of the run.
        recipe: the configuration by dotted keys, without those in which runs may differ.
        scores: AP figures in percent by task.
        cost: of the model.
        train_images: a second, by the median iteration; None if the run kept no metrics.
        architecture: of the backbone; None for one that is not ours, or if its file has gone since.
        classifier: top-1 and top-5 in percent of the classifier that the run began from.
    """

    folder: Path
    name: str
    seed: int
    recipe: dict[str, Any]
    scores: dict[str, dict[str, float]]
    cost: ModelCost
    train_images: float | None = None
    architecture: Architecture | None = None
    classifier: dict[str, float] = field(default_factory=dict)


def load_run(folder: Path, name: str | None = None, classifier: Path | None = None) -> DetectorRun:
    """What a run folder says.

    Args:
        folder: ``OUTPUT_DIR`` of a finished run.
        name: of the row; None takes the folder's name, or its parent's where it is ``seed…``.
        classifier: run folder of the classifier.

    Raises:
        UserError: if the folder holds no finished detector, or one of several test sets.
    """
    results = read_json(folder / "results.json", "results of a run of tools/train_net.py")
    if "detection" not in results:
        raise UserError(f"'{folder}' is not a run of tools/train_net.py; its results are of others")
    found = results["detection"]
    if len(found["scores"]) != 1:
        raise UserError(
            f"'{folder}' was evaluated on {', '.join(found['scores'])}; runs are compared on one "
            "test set: evaluate with DATASETS.TEST of one"
        )
    (scores,) = found["scores"].values()
    config = read_config(folder)
    own = folder.parent.name if folder.name.startswith("seed") else folder.name
    top: dict[str, float] = {}
    if classifier is not None:
        trained = read_json(classifier / "results.json", "results of a classifier")
        top = {key: trained["classification"]["val"][key] for key in ("top1", "top5")}
    return DetectorRun(
        folder=folder,
        name=name or own,
        seed=int(config["SEED"]),
        recipe={
            key: value
            for key, value in config.items()
            if key not in PER_RUN and not key.startswith(_FREE)
        },
        scores={task: {m: figures[m] for m in METRICS} for task, figures in scores.items()},
        cost=ModelCost(**found["cost"]),
        train_images=training_speed(folder, int(config["SOLVER.IMS_PER_BATCH"])),
        architecture=_architecture(config),
        classifier=top,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """``config.yaml`` of a run folder by dotted keys.

    Raises:
        UserError: if there is none, or it is no YAML.
    """
    path = folder / "config.yaml"
    try:
        return leaves(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"'{path}' is not the configuration of a run: {reason}") from None


def training_speed(folder: Path, batch: int) -> float | None:
    """Images a second, by the median iteration in ``metrics.json``."""
    path = folder / "metrics.json"
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    times = [row["time"] for row in rows if row.get("time")]
    return batch / statistics.median(times) if times else None


def _architecture(config: Mapping[str, Any]) -> Architecture | None:
    if "spnas" not in config["MODEL.BACKBONE.NAME"]:
        return None
    try:
        architecture = load_architecture(config["MODEL.SPNAS.ARCH"])
    except UserError:  # the file may have gone since
        return None
    return architecture.scaled(config["MODEL.SPNAS.WIDTH_MULT"])


def _search_steps(run: DetectorRun) -> int | None:
    """Iterations of the search that found the network; None for a published one."""
    found = run.architecture.provenance.get("iterations") if run.architecture else None
    return int(found) if found is not None else None


def check_recipe(runs: Sequence[DetectorRun]) -> None:
    """Insists on one recipe for all runs: a comparison is worth nothing otherwise.

    Raises:
        UserError: naming the keys in which a run differs from the first one.
    """
    for run in runs[1:]:
        first, other = runs[0].recipe, run.recipe
        if changed := differing(first, other):
            shown = ", ".join(f"{k} {other.get(k)} for {first.get(k)}" for k in changed[:3])
            raise UserError(
                f"'{run.folder}' was trained by another recipe than '{runs[0].folder}': {shown}; "
                "compare runs of one recipe"
            )


def compare(runs: Iterable[DetectorRun]) -> list[dict[str, Any]]:
    """A row a name: mean and sample standard deviation over its runs, and what it costs.

    The runs of a name are of several seeds, of several networks (random ones, say), or both.

    Raises:
        UserError: if two runs of one network have the same seed.
    """
    groups: dict[str, list[DetectorRun]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    return [_row(name, group) for name, group in groups.items()]


def _row(name: str, group: Sequence[DetectorRun]) -> dict[str, Any]:
    made = [(run.cost.backbone, run.seed) for run in group]
    if len(set(made)) < len(made):
        network, seed = next(pair for pair in made if made.count(pair) > 1)
        raise UserError(f"two runs of '{name}' are of '{network}' with seed {seed}; leave one out")
    speeds = [run.train_images for run in group if run.train_images is not None]
    return {
        "name": name,
        "runs": len(made),
        "networks": len({network for network, _ in made}),
        "seeds": sorted({seed for _, seed in made}),
        "scores": {
            task: {
                m: list(mean_and_deviation([run.scores[task][m] for run in group])) for m in METRICS
            }
            for task in group[0].scores
        },
        "classifier": {
            key: list(mean_and_deviation([run.classifier[key] for run in group]))
            for key in ("top1", "top5")
            if all(run.classifier for run in group)
        },
        "search_steps": _search_steps(group[0]),
        "cost": _mean_cost([run.cost for run in group]),
        "train_images": statistics.median(speeds) if speeds else None,
    }


def _mean_cost(costs: Sequence[ModelCost]) -> dict[str, Any]:
    """Means of the figures; what is no figure, or is missing once, is the first one's or None."""
    found = asdict(costs[0])
    for key, value in found.items():
        values = [getattr(cost, key) for cost in costs]
        if isinstance(value, int | float):
            found[key] = None if None in values else statistics.fmean(values)
    return found


def _shown(value: Sequence[float] | None, runs: int) -> str | None:
    if value is None:
        return None
    spread = f" ± {value[1]:.2f}" if runs > 1 else ""
    return f"{value[0]:.2f}{spread}"


def _scaled(value: float | None, unit: float = 1.0) -> str | None:
    return None if value is None else f"{value / unit:.2f}"


def _runs(row: Mapping[str, Any]) -> str:
    several = f" of {row['networks']} networks" if row["networks"] > 1 else ""
    return f"{row['runs']}{several}"


Table = tuple[list[str], list[list[Any]]]
"""Headers and rows; None where there is no figure."""


def detection_table(rows: Sequence[Mapping[str, Any]], paper: Mapping[str, Any] | None) -> Table:
    """Table III: AP by object scale, for boxes and masks, beside what the backbone costs.

    Args:
        rows: from :func:`compare`.
        paper: the paper's own figures (``configs/comparison/paper.json``); None leaves them out.
    """
    unit = rows[0]["cost"]["runtime_unit"] if rows else "ms"
    headers = [
        *("backbone", "runs", "AP of", *COLUMNS, "Params (M)", "MACs (G)", f"predicted ({unit})"),
        *("backbone (ms)", "detector (ms)", "training (images/s)"),
    ]
    table: list[list[Any]] = []
    for row in rows:
        cost = row["cost"]
        params = cost["params_classifier"] or cost["params_backbone"]
        costs = [_scaled(params, 1e6), _scaled(cost["macs_backbone"], 1e9)]
        costs += [_scaled(cost["runtime"]), _scaled(cost["measured_runtime"])]
        costs += [_scaled(cost["detector_runtime"]), _scaled(row["train_images"])]
        for task, scores in row["scores"].items():
            figures = [_shown(scores[metric], row["runs"]) for metric in METRICS]
            label = TASK_NAMES.get(task, task)
            table.append([row["name"], _runs(row), label, *figures, *costs])
    for found in (paper or {}).get("detection", ()):
        figures = [_scaled(found.get(metric)) for metric in METRICS]
        table.append([f"{found['name']} †", None, None, *figures, *[None] * 6])
    return headers, table


def classification_table(
    rows: Sequence[Mapping[str, Any]], paper: Mapping[str, Any] | None
) -> Table:
    """Table I: top-1, top-5, runtime and search cost; arguments as in :func:`detection_table`."""
    unit = rows[0]["cost"]["runtime_unit"] if rows else "ms"
    headers = ["backbone", "runs", "top-1 (%)", "top-5 (%)", f"runtime ({unit})", "search cost"]
    table: list[list[Any]] = []
    for row in rows:
        top = [_shown(row["classifier"].get(key), row["runs"]) for key in ("top1", "top5")]
        steps = f"{row['search_steps']:,} steps" if row["search_steps"] else None
        runtime = _scaled(row["cost"]["runtime"])
        table.append([row["name"], _runs(row), *top, runtime, steps])
    for found in (paper or {}).get("classification", ()):
        figures = [_scaled(found.get(key)) for key in ("top1", "top5", "runtime")]
        table.append([f"{found['name']} †", None, *figures, found.get("search_cost")])
    return headers, table


def paper_results() -> dict[str, Any]:
    """The paper's own Tables I and III."""
    found: dict[str, Any] = read_json(config_path("comparison", "paper.json"), "paper's results")
    return found


def markdown(table: Table) -> str:
    """A table as GitHub shows it."""
    headers, rows = table
    return str(tabulate(rows, headers, "github", missingval="–", disable_numparse=True))


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every figure of :func:`compare` as CSV, a row a backbone, means and deviations apart."""
    flat = []
    for row in rows:
        cells = leaves({**row, "seeds": len(row["seeds"])})
        figures: dict[str, Any] = {}
        for key, value in cells.items():
            pair = key.startswith(("scores.", "classifier."))
            figures |= {f"{key}.mean": value[0], f"{key}.std": value[1]} if pair else {key: value}
        flat.append(figures)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def comparison_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AP against runtime (Figs. 1 and 7): boxes on the left, masks on the right.

    The runtime is the predicted one where every row has it, else the measured one, else MACs.
    """
    axis = next(
        (key for key in ("runtime", "measured_runtime") if all(r["cost"][key] for r in rows)),
        "macs_backbone",
    )
    unit = rows[0]["cost"]["runtime_unit"]
    labels = {
        "runtime": f"predicted runtime ({unit})",
        "measured_runtime": "measured runtime of the backbone (ms)",
        "macs_backbone": "multiply-accumulates of the backbone",
    }
    tasks = list(dict.fromkeys(task for row in rows for task in row["scores"]))
    figure = Figure(figsize=(5 * len(tasks), 4), layout="constrained")
    for panel, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for index, row in enumerate(row for row in rows if task in row["scores"]):
            mean, spread = row["scores"][task]["AP"]
            style = {"fmt": "o", "capsize": 3, "color": f"C{index % 10}"}
            panel.errorbar(row["cost"][axis], mean, spread, label=row["name"], **style)
        panel.set(xlabel=labels[axis], ylabel=f"{TASK_NAMES.get(task, task)} AP")
        panel.grid(alpha=0.3)
    handles = panel.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def plot_comparison(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes :func:`comparison_figure` as PNG."""
    with atomic_path(path) as temporary:
        comparison_figure(rows).savefig(temporary, format="png", dpi=100)


def write_comparison(
    runs: Sequence[DetectorRun], folder: Path, paper: bool = False, workers: int = 1
) -> str:
    """Writes ``comparison.json``, ``.md``, ``.csv`` and ``.png`` into a folder.

    Args:
        runs: of one recipe.
        folder: exists or not.
        paper: set the paper's own figures beside.
        workers: how many of the runs shared the machine.

    Returns:
        The tables as Markdown.

    Raises:
        UserError: if the runs do not go together.
    """
    check_recipe(runs)
    rows = compare(runs)
    known = paper_results() if paper else None
    tables = [classification_table(rows, known), detection_table(rows, known)]
    note = [f"† as printed in {known['source']}; its recipe is another one."] if known else []
    text = "\n\n".join([*map(markdown, tables), *note]) + "\n"
    write_json(folder / "comparison.json", {**provenance(workers=workers), "rows": rows})
    write_atomic(folder / "comparison.md", text)
    write_atomic(folder / "comparison.csv", comma_separated(rows))
    plot_comparison(rows, folder / "comparison.png")
    return text
