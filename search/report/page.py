"""Puts a report together and writes it."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils import comm
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backbones.errors import UserError
from backbones.figures import shown
from backbones.files import read_json, write_atomic
from detection.engine.results import REPORT_FILE
from detection.report import TASK_NAMES
from search.report.answer import answer, progress
from search.report.charts import Chart, lines_chart
from search.report.decisions import Fall, histories
from search.report.fronts import fronts
from search.report.network import Drawing, draw_network
from search.report.pictures import galleries
from search.report.runs import Run, Study, read_all
from search.report.scores import score_tables
from search.report.whole import Whole, stage_rows

_FOLDER = Path(__file__).parent
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """How a run went.

    Attributes:
        run: of search, classifier or detector.
        charts: of its metrics.
        falls: decisions that changed, in the order in which they did.
    """

    run: Run
    charts: tuple[Chart, ...]
    falls: tuple[Fall, ...]


def write_report(
    folders: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    baseline: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes one self-contained HTML page about runs and studies.

    A section is there where its data are. A run that is not finished is reported as such.

    Args:
        folders: run folders, folders of run folders, and JSON files of studies. The first one
            with a detector's scores is what AP is shown of.
        path: of the page.
        baseline: the run that differences are to; None takes the second one with a detector's
            scores, if there is one.

    Returns:
        The page's path.

    Raises:
        UserError: if one is no run and no study, or a file in it is damaged.
    """
    runs, studies = read_all([Path(folder) for folder in folders])
    against, _ = read_all([Path(baseline)] if baseline is not None else [])
    whole = next((found for folder in folders if (found := Whole.read(Path(folder)))), None)
    scored = [run for run in (*runs, *against) if run.part("detection").get("scores")]
    if against and not any(run in scored for run in against):
        raise UserError(
            f"'{baseline}' has no detector's scores to compare with; name a run that has"
        )
    known = {run.folder.resolve(): run for run in (*runs, *against)}
    if whole:
        scored.sort(key=partial(_place, whole.compared))
    try:
        main = next((run for run in scored if run not in against), None)
        others = [run for run in (*against, *scored) if run is not main and run in scored]
        compared = others[0] if others and main else None
        html = render(list(known.values()), studies, main, compared, whole)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        names = ", ".join(f"'{run.folder}'" for run in known.values())
        raise UserError(
            f"a file of {names} is not as runs of this version write it ({type(error).__name__}: "
            f"{error}); repeat the run's command with --resume, or leave that run out"
        ) from error
    write_atomic(path, html)
    return Path(path)


def _place(folders: Sequence[Path], run: Run) -> int:
    """The place of a run's folder among others; behind all where it is none of them."""
    known = [folder.resolve() for folder in folders]
    here = run.folder.resolve()
    return known.index(here) if here in known else len(known)


def report_run(folder: str | os.PathLike[str]) -> None:
    """Leaves ``report.html`` in a run's folder at its end; what goes wrong is only logged.

    Args:
        folder: of the run; the main process alone writes.
    """
    if not comm.is_main_process():
        return
    try:
        path = write_report([folder], Path(folder) / REPORT_FILE)
    except Exception as error:  # the run is worth more than its report
        _log.warning("The report could not be written: %s", error)
        return
    _log.info("The run on one page: '%s'", path)


def render(
    runs: Sequence[Run],
    studies: Sequence[Study],
    main: Run | None,
    baseline: Run | None,
    whole: Whole | None = None,
) -> str:
    """The page as text.

    Args:
        runs: all of them.
        studies: all of them.
        main: whose AP is shown.
        baseline: that differences are to.
        whole: the ``spnas auto`` that the runs are of, if they are of one.
    """
    pictured = [main] if main else runs
    script = (_FOLDER / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    pages = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["shown"] = shown
    return pages.get_template("page.html").render(
        answer=whole.answer() if whole else answer(runs, main, baseline),
        whole=whole,
        stage_rows=stage_rows(whole.outcome.stages) if whole else (),
        names=TASK_NAMES,
        runs=runs,
        main=main,
        progress=progress,
        networks=_networks(_found_by(whole, runs) if whole else runs),
        courses=[course for run in runs if (course := _course(run)).charts],
        fronts=fronts((), studies) if whole else fronts(runs, studies),
        scores=score_tables(main, baseline) if main else [],
        baseline=baseline,
        galleries=[gallery for run in pictured for gallery in galleries(run)],
        studies=studies,
        configs={run.folder: yaml.safe_dump(dict(run.config), allow_unicode=True) for run in runs},
        style=(_FOLDER / "style.css").read_text(encoding="utf-8"),
        script=script,
        digest=digest,
    )


def _found_by(whole: Whole, runs: Sequence[Run]) -> list[Run]:
    """The search, and the runs of the networks that it found, in the order of its targets."""
    count = len(whole.found)
    found = [run for run in runs if run.kind == "search" or _place(whole.found, run) < count]
    return sorted(found, key=partial(_place, whole.found))


def _networks(runs: Sequence[Run]) -> list[tuple[Run, Drawing]]:
    """Every network of the runs once, with its first run; those that were searched come first."""
    ordered = sorted(runs, key=lambda run: run.kind != "search")
    found: dict[Any, tuple[Run, Any]] = {}
    for run in ordered:
        if network := run.architecture:
            found.setdefault((network.stem, network.layers, network.head), (run, network))
    drawings = []
    for run, network in found.values():
        part = next((run.part(p) for p in ("search", "classification") if run.part(p)), {})
        part = part or run.part("detection").get("cost", {})
        table = str(part.get("latency_table") or network.provenance.get("latency_table") or "")
        file = run.folder / "sensitivity.json"
        losses = read_json(file, "sensitivities") if file.exists() else {}
        drawings.append((run, draw_network(network, run, table, losses)))
    return drawings


def _course(run: Run) -> Course:
    charts = [*_loss_charts(run), *_runtime_charts(run)]
    found = histories(run)
    falls = sorted((fall for history in found for fall in history.falls()),
                   key=lambda fall: (fall.iteration, fall.layer))  # fmt: skip
    return Course(run, (*charts, *(history.chart() for history in found)), tuple(falls))


def _loss_charts(run: Run) -> list[Chart]:
    losses = {"all together": run.series("total_loss"), "cross entropy": run.series("loss_ce"),
              "held out": run.series("val/loss")}  # fmt: skip
    accuracies = {"training": run.series("train/top1"), "held out": run.series("val/top1")}
    scores = {"box": run.series("bbox/AP"), "mask": run.series("segm/AP")}
    found = []
    for title, label, lines in (
        ("loss", "loss", losses),
        ("accuracy", "top-1 (%)", accuracies),
        ("AP", "AP (%)", scores),
    ):
        lines = {name: line for name, line in lines.items() if line}
        if any(len(line) > 1 for line in lines.values()):
            found.append(lines_chart(title, label, lines))
    return found


def _runtime_charts(run: Run) -> list[Chart]:
    """Runtime of the decisions, as they are and relaxed, with what λ aims at (Fig. 5)."""
    lines = {
        "decided": run.series("search/runtime"),
        "relaxed": run.series("search/relaxed_runtime"),
        "budget": run.series("search/budget"),
    }
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:
        return []
    unit = run.part("search").get("unit", run.layers.get("unit", "ms"))
    target = run.config.get("SEARCH.TARGET")
    level = ("target", float(target)) if target else None
    charts = [lines_chart("runtime of the decisions", f"predicted ({unit})", lines, level)]
    if factors := run.series("search/lambda"):
        charts.append(lines_chart("λ, the weight of the runtime", "λ", {"λ": factors}))
    return charts
