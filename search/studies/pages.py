"""The README's result tables, generated from the studies in ``docs/results``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from backbones.errors import UserError
from backbones.files import read_json
from search.studies.comparison.tables import classification_table, detection_table, markdown
from search.studies.tuning.report import summary_table


def _table(headers: list[str], rows: list[list[str]]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _beside(study: Mapping[str, Any]) -> str:
    return f"`{study['command']}`; {study['hardware']}."


def demo_section(study: Mapping[str, Any]) -> str:
    """Layers, runtime and accuracy that the demo ended with, and AP by object scale."""
    facts = _table(
        ["searched layers", "predicted runtime", "target", "held-out digits", "time"],
        [
            [
                " ".join(study["layers"]),
                f"{study['predicted_runtime']:.2f} {study['unit']}",
                f"{study['target_runtime']:g} {study['unit']}",
                f"{study['top1']:.2f} %",
                f"{study['minutes']:.1f} min",
            ]
        ],
    )
    names = {"bbox": "box", "segm": "mask"}
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    scores = [
        [names[task], *(f"{study['scores'][task][key]:.2f}" for key in keys)] for task in names
    ]
    table = _table(["AP of", "AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"], scores)
    return f"{facts}\n\n{table}\n\n{_beside(study)}"


def study_table(study: Mapping[str, Any]) -> str:
    """Methods at targets: accuracy, loss and runtime, and how far above chance."""
    summary = sorted(study["summary"], key=lambda row: (row["target"], row["method"] == "random"))
    within = any(row.get("intra") is not None for row in summary)
    rows = [
        [
            f"`{row['method']}`",
            f"{row['target']:g} {study['unit']}",
            f"{row['seeds']}",
            f"{row['top1_mean']:.2f} ± {row['top1_std']:.2f}",
            f"{row['loss_mean']:.3f} ± {row['loss_std']:.3f}",
            f"{row['runtime_mean']:.2f} ± {row['runtime_std']:.2f}",
            f"{100 * row['furthest']:.2f} %",
            _margin(row["margin_top1"]),
            _margin(row["margin_loss"]),
            *(["–" if row["intra"] is None else f"{row['intra']:.2f}"] if within else []),
        ]
        for row in summary
    ]
    headers = [
        *("method", "target", "seeds", "held-out top-1 (%)", "held-out loss"),
        *(f"runtime ({study['unit']})", "furthest from target"),
        *("above random in top-1", "in loss"),
        *(["spread within a search (%)"] if within else []),
    ]
    return _table(headers, rows)


def _margin(deviations: float | None) -> str:
    return "–" if deviations is None else f"{deviations:+.1f} σ"


def study_section(study: Mapping[str, Any]) -> str:
    """A study of search methods without its plot."""
    return f"{study_table(study)}\n\n{_beside(study)}"


def importance_section(study: Mapping[str, Any]) -> str:
    """What thresholds are judged by, compared at one target under one recipe."""
    alive = ", ".join(f"`{name}` {100 * s:.0f} %" for name, s in study["live_thresholds"].items())
    found = study_section(study)
    return f"Thresholds with a gradient at step 0 of the full space: {alive}.\n\n{found}"


def plotted_section(name: str) -> Callable[[Mapping[str, Any]], str]:
    """The section of a study of search methods whose plot is shown too."""

    def section(study: Mapping[str, Any]) -> str:
        plot = f"![accuracy, and runtime over the target, by method](docs/results/{name}.png)"
        return f"{study_section(study)}\n\n{plot}"

    return section


def tuning_section(study: Mapping[str, Any]) -> str:
    """The solvers for λ, with Fig. 9."""
    plot = "![best value by epochs spent, and the grid of λ × epochs](docs/results/tuning.png)"
    return f"{summary_table(study['studies'], study['unit'])}\n\n{_beside(study)}\n\n{plot}"


def ablation_table(study: Mapping[str, Any]) -> str:
    """Table II: kernels trained alone and as subsets of larger ones."""
    rows = []
    for row in study["summary"]:
        trained = row["training"].replace("x", "×")
        gap = "–" if row["gap"] is None else f"{row['gap'][0]:+.2f} ± {row['gap'][1]:.2f}"
        spreads = [
            f"{row[f'{key}_mean']:.{digits}f} ± {row[f'{key}_std']:.{digits}f}"
            for key, digits in (("top1", 2), ("top5", 2), ("loss", 3))
        ]
        kernel = row["kernel"].replace("x", "×")
        rows.append([trained, kernel, f"{row['seeds']}", *spreads, gap])
    headers = [
        *("kernels trained", "evaluated with", "seeds", "held-out top-1 (%)"),
        *("held-out top-5 (%)", "held-out loss", "top-1 against alone"),
    ]
    return _table(headers, rows)


def ablation_section(study: Mapping[str, Any]) -> str:
    """The ablation of kernel subsets."""
    return f"{ablation_table(study)}\n\n{_beside(study)}"


def reliability_table(truth: Mapping[str, Any]) -> str:
    """How much of the truth is the architecture, and how much the seed."""
    labels = {"top1": ("top-1", " %", 2), "loss": ("cross entropy", "", 4)}
    rows = []
    for measure, found in truth["reliability"].items():
        label, unit, digits = labels[measure]
        rows.append(
            [
                f"held-out {label}",
                f"{found['architectures']:.{digits}f}{unit}",
                f"{found['seeds']:.{digits}f}{unit}",
                f"{found['ratio']:.1f}",
                f"{found['rank_correlation']:.2f}",
            ]
        )
    headers = [
        f"{truth['networks']} networks, {truth['seeds']} trainings of each",
        *("σ of architectures", "σ of seeds", "ratio", "Spearman's ρ of two seeds"),
    ]
    return _table(headers, rows)


def regret_table(study: Mapping[str, Any]) -> str:
    """Methods by their regret: at every target, and over all."""
    chance = next(row for row in study["summary"] if row["method"] == "chance")
    targets = list(chance["regret_top1"])
    rows = []
    for row in sorted(study["summary"], key=lambda row: row["regret_top1_mean"]):
        searched = "seeds" in row
        spread = f" ± {row['regret_top1_std']:.2f}" if searched else ""
        rows.append(
            [
                f"`{row['method']}`" if searched else "chance, exactly",
                *(f"{row['regret_top1'][target]:.2f}" for target in targets),
                f"{row['regret_top1_mean']:.2f}{spread}",
                f"{row['regret_loss_mean']:.3f}",
                f"{100 * row['best_found']:.0f} %" if searched else "–",
                f"{row['cpu_seconds']:.1f} s" if searched else "–",
            ]
        )
    headers = [
        *("method", *(f"regret at {target} {study['unit']}" for target in targets)),
        *("over all", "in cross entropy", "best one found", "CPU time"),
    ]
    return _table(headers, rows)


def known_answer_section(study: Mapping[str, Any]) -> str:
    """The benchmark with a known answer: the truth, and the methods' regret against it."""
    truth = study["truth"]
    seeds = max(row.get("seeds", 0) for row in study["summary"])
    note = f"Regret in points of top-1, mean over {seeds} seeds ± their standard deviation."
    tables = [reliability_table(truth), regret_table(study), note]
    return "\n\n".join([*tables, f"`{truth['command']}`, then", _beside(study)])


def scoring_section(report: Mapping[str, Any]) -> str:
    """Both implementations of COCO's AP on one set."""
    rows = [
        [
            name,
            f"{report['seconds'][backend]:.1f} s",
            f"{report['seconds'][backend] / report['seconds']['faster']:.1f}",
        ]
        for backend, name in (("faster", "faster-coco-eval"), ("pycocotools", "pycocotools"))
    ]
    setting = f"{report['images']:,} images, {report['detections']} detections each"
    table = _table([setting, "time", "ratio"], rows)
    difference = f"Largest difference of any figure: {report['largest_difference']:.0e} %."
    return f"{table}\n\n{difference} {_beside(report)}"


def comparison_section(study: Mapping[str, Any]) -> str:
    """Backbones under one detector (Tables I and III), and AP against runtime."""
    tables = [build(study["rows"], None) for build in (classification_table, detection_table)]
    plot = "![AP of boxes and masks against runtime](docs/results/comparison.png)"
    return "\n\n".join([*map(markdown, tables), _beside(study), plot])


STEP_LABELS = {
    "supernet": "single-path supernet",
    "multi_path": "multi-path supernet, half width",
    "largest": "largest fixed network",
}


def search_step_section(study: Mapping[str, Any]) -> str:
    """A training step of the supernet beside one of the largest fixed network."""
    rows = [
        [
            label,
            f"{study[name]['seconds']:.2f} s",
            f"{study[name]['peak_bytes'] / 2**30:.2f} GiB",
            f"{study[name]['time_ratio']:.3f}",
            f"{study[name]['memory_ratio']:.3f}",
        ]
        for name, label in STEP_LABELS.items()
    ]
    setting = f"training step, {study['size']} px, batch {study['batch']}"
    headers = [setting, "time", "peak memory", "time, ratio", "memory, ratio"]
    return f"{_table(headers, rows)}\n\n{_beside(study)}"


def latency_section(reports: Sequence[Mapping[str, Any]]) -> str:
    """How well tables predict whole networks, and the plots."""
    rows = []
    for report in reports:
        found, plain = report["scores"]["all"], report["scores"]["plain sum"]
        height, width = report["input_size"]
        rows.append(
            [
                f"`{report['table']}`: {report['task']}, {height}×{width}",
                f"{found['networks']}",
                f"{plain['mean_error']:.2f} %",
                f"**{found['mean_error']:.2f} %**",
                f"{report['scores']['as measured']['mean_error']:.2f} %",
                f"{found['rmse']:.2f} ms",
                f"{found['spearman']:.4f}",
            ]
        )
    headers = [
        *("table", "networks", "mean error, plain sum", "corrected", "corrected, as measured"),
        *("RMSE", "Spearman's ρ"),
    ]
    plots = [
        f"![predicted against measured, and SE factors](docs/results/latency-{name}.png)"
        for name in (report["table"] for report in reports)
    ]
    made = [f"`{report['command']}`; {report['table_source']}." for report in reports]
    setting = f"{reports[0]['device']}, {reports[0]['threads']} thread."
    return "\n\n".join([_table(headers, rows), setting, *made, *plots])


PLOTTED_STUDIES = ("compare-search", "targets")
"""Studies of search methods whose plot a section shows."""

SECTIONS = {
    "demo": demo_section,
    "importance": importance_section,
    **{name: plotted_section(name) for name in PLOTTED_STUDIES},
    "targets-three-epochs": study_section,
    "tuning": tuning_section,
    "comparison": comparison_section,
    "known-answer": known_answer_section,
    "ablation": ablation_section,
    "coco-scoring": scoring_section,
    "search-step": search_step_section,
}


def render(readme: str, results: Path) -> str:
    """The README with every section between its markers made anew.

    Args:
        readme: the present text, with ``<!-- name -->`` and ``<!-- /name -->`` lines.
        results: folder of the studies' JSON files.

    Raises:
        UserError: if a marker or a study is missing.
    """
    sections = {
        name: section(read_json(results / f"{name}.json", "study"))
        for name, section in SECTIONS.items()
        if f"<!-- {name} -->" in readme
    }
    reports = [read_json(path, "report") for path in sorted(results.glob("latency-*.json"))]
    if reports:
        sections["latency"] = latency_section(reports)
    for name, text in sections.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = readme.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise UserError(f"the README has no '{begin.strip()}' … '{end}'")
        readme = f"{before}{begin}{text}\n{end}{after}"
    return readme
