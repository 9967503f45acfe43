"""The tables and the plot of a comparison of backbones: Tables I and III, Figs. 1 and 7."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate

from backbones.errors import UserError
from backbones.figures import shown
from backbones.files import atomic_path, leaves, read_json, write_atomic, write_json
from backbones.paths import config_path
from detection.engine.results import mean_and_deviation
from detection.report import COLUMNS, TASK_NAMES, ModelCost, table_warning
from detection.scoring import METRICS
from search.studies.commands import command_threads
from search.studies.comparison.runs import DetectorRun, check_recipe
from search.studies.comparison.runtimes import RuntimeColumn, runtime_columns, runtime_sources
from search.studies.markdown import beside
from search.studies.workers import HERE, Workers


def compare(runs: Iterable[DetectorRun]) -> list[dict[str, Any]]:
    """One row per name: mean and sample standard deviation over its runs, and its cost.

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
            task: {m: _spread([run.scores[task][m] for run in group]) for m in METRICS}
            for task in group[0].scores
            if all(task in run.scores for run in group)
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


def _spread(values: Sequence[float | None]) -> list[float] | None:
    """Mean and deviation; None where the test set has no object to find, as of a scale."""
    known = [value for value in values if value is not None]
    return list(mean_and_deviation(known)) if len(known) == len(values) else None


def _search_steps(run: DetectorRun) -> int | None:
    """Iterations of the search that found the network; None for a published one."""
    found = run.architecture.provenance.get("iterations") if run.architecture else None
    return int(found) if found is not None else None


def _mean_cost(costs: Sequence[ModelCost]) -> dict[str, Any]:
    """Means of the figures; what is no figure is the first one's.

    A figure that is missing once, or whose values are of several tables or engines, is None.
    """
    every = [asdict(cost) for cost in costs]
    found = dict(every[0])
    for key, value in found.items():
        values = [cost[key] for cost in every]
        if isinstance(value, int | float):
            mixed = None in values or len({runtime_sources(cost, key) for cost in every}) > 1
            found[key] = None if mixed else statistics.fmean(values)
    return found


def _shown(value: Sequence[float] | None, runs: int) -> str | None:
    if value is None:
        return None
    spread = f" ± {value[1]:.2f}" if runs > 1 else ""
    return f"{value[0]:.2f}{spread}"


def _scaled(value: float | None, unit: float = 1.0) -> str | None:
    return None if value is None else shown(value / unit)


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
    predicted, measured = runtime_columns(rows)
    sizes = {tuple(row["cost"]["input_size"]) for row in rows}
    size = " at {}×{}".format(*sizes.pop()) if len(sizes) == 1 else ""
    headers = [
        *("backbone", "runs", "AP of", *COLUMNS, "Params (M), classifier"),
        *(f"MACs (G), trunk{size}", predicted.header, measured.header),
        *("detector (ms)", "training (images/s)"),
    ]
    table: list[list[Any]] = []
    for row, runtime, time in zip(rows, predicted.values, measured.values, strict=True):
        cost = row["cost"]
        costs = [_scaled(cost["params_classifier"], 1e6), _scaled(cost["macs_backbone"], 1e9)]
        costs += [_scaled(runtime), _scaled(time)]
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
    predicted, _ = runtime_columns(rows)
    headers = ["backbone", "runs", "top-1 (%)", "top-5 (%)", predicted.header, "search cost"]
    table: list[list[Any]] = []
    for row, runtime in zip(rows, predicted.values, strict=True):
        top = [_shown(row["classifier"].get(key), row["runs"]) for key in ("top1", "top5")]
        steps = f"{row['search_steps']:,} steps" if row["search_steps"] else None
        table.append([row["name"], _runs(row), *top, _scaled(runtime), steps])
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


_CSV_UNITS = {
    "cost.params_classifier": "1000 classes",
    "cost.macs_backbone": "at cost.input_size",
    "cost.macs_classifier": "at 224×224",
    "cost.runtime": "cost.runtime_unit",
    "cost.measured_runtime": "ms",
    "cost.detector_runtime": "ms",
    "train_images": "images/s",
}
"""Units, or what is counted, of CSV's columns by their keys; those without say it themselves."""


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every figure of :func:`compare` as CSV, one row per backbone."""
    flat = []
    for row in rows:
        cells = leaves({**row, "seeds": len(row["seeds"])})
        figures: dict[str, Any] = {}
        for key, value in cells.items():
            pair = key.startswith(("scores.", "classifier."))
            unit = f" ({_CSV_UNITS[key]})" if key in _CSV_UNITS else ""
            named = {f"{key}{unit}": value}
            mean, spread = value if pair and value else (None, None)
            figures |= {f"{key}.mean": mean, f"{key}.std": spread} if pair else named
        flat.append(figures)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def comparison_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """AP against runtime (Figs. 1 and 7): boxes on the left, masks on the right.

    The runtime is the predicted one where every row has it from one table, else the measured one
    from one engine, else MACs.
    """
    macs = [row["cost"]["macs_backbone"] for row in rows]
    counted = RuntimeColumn("multiply-accumulates of the trunk", macs, "")
    axis = next((column for column in runtime_columns(rows) if all(column.values)), counted)
    tasks = list(dict.fromkeys(task for row in rows for task in row["scores"]))
    figure = Figure(figsize=(5 * len(tasks), 4), layout="constrained")
    for panel, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for index, (row, place) in enumerate(zip(rows, axis.values, strict=True)):
            if row["scores"].get(task, {}).get("AP") is None:
                continue
            mean, spread = row["scores"][task]["AP"]
            style = {"fmt": "o", "capsize": 3, "color": f"C{index % 10}"}
            panel.errorbar(place, mean, spread, label=row["name"], **style)
        panel.set(xlabel=axis.header, ylabel=f"{TASK_NAMES.get(task, task)} AP")
        panel.grid(alpha=0.3)
    figure.suptitle(axis.note, fontsize="small")
    handles = panel.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def plot_comparison(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes :func:`comparison_figure` as PNG."""
    with atomic_path(path) as temporary:
        comparison_figure(rows).savefig(temporary, format="png", dpi=100)


def write_comparison(
    runs: Sequence[DetectorRun], folder: Path, paper: bool = False, workers: Workers = HERE
) -> str:
    """Writes ``comparison.json``, ``.md``, ``.csv`` and ``.png`` into a folder.

    Args:
        runs: of one recipe.
        folder: exists or not.
        paper: set the paper's own figures beside.
        workers: where they ran.

    Returns:
        The tables as Markdown.

    Raises:
        UserError: if the runs do not go together.
    """
    check_recipe(runs)
    rows = compare(runs)
    known = paper_results() if paper else None
    tables = [classification_table(rows, known), detection_table(rows, known)]
    warnings = table_warnings(rows)
    note = [f"† as printed in {known['source']}; its recipe is another one."] if known else []
    text = "\n\n".join([*map(markdown, tables), *warnings, *note, *_notes(rows)]) + "\n"
    facts = workers.facts(None if workers.here else command_threads(workers.count))
    warned = {"warnings": warnings} if warnings else {}
    write_json(folder / "comparison.json", {**facts, **warned, "rows": rows})
    write_atomic(folder / "comparison.md", text)
    write_atomic(folder / "comparison.csv", comma_separated(rows))
    plot_comparison(rows, folder / "comparison.png")
    return text


def table_warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for every latency table among the rows that is not to be trusted."""
    return list(dict.fromkeys(filter(None, (table_warning(row["cost"]) for row in rows))))


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the runtimes are from, as one paragraph; none without runtimes."""
    text = " ".join(column.note for column in runtime_columns(rows) if column.note)
    return [text] if text else []


def comparison_section(study: Mapping[str, Any]) -> str:
    """Backbones under one detector (Tables I and III)."""
    tables = [build(study["rows"], None) for build in (classification_table, detection_table)]
    return "\n\n".join(
        [
            *map(markdown, tables),
            *table_warnings(study["rows"]),
            *_notes(study["rows"]),
            beside(study),
        ]
    )


def comparison_summary(study: Mapping[str, Any]) -> str:
    """Tables I and III in short: AP of boxes and masks, and the runtime of the backbone."""
    columns = runtime_columns(study["rows"])
    headers = ["backbone", "runs", "box AP", "mask AP", *(column.header for column in columns)]
    rows: list[list[Any]] = []
    for row, *runtimes in zip(study["rows"], *(c.values for c in columns), strict=True):
        found = [row["scores"].get(task, {}).get("AP") for task in ("bbox", "segm")]
        scores = [_shown(value, row["runs"]) for value in found]
        rows.append([row["name"], _runs(row), *scores, *map(_scaled, runtimes)])
    notes = _notes(study["rows"])
    return "\n\n".join([markdown((headers, rows)), *notes, f"{study['hardware']}."])
