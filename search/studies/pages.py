"""The tables of README.md and ``docs/*.md``, generated from the studies' results and the code."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backbones.errors import UserError
from backbones.files import read_json
from detection.data.annotations.kinds import kinds_table
from detection.installation.lock import systems_table
from search.profiling.report import latency_section
from search.runs.formulations.registry import formulations_table
from search.studies.ablation import ablation_section
from search.studies.benchmarks.busy_machine import busy_machine_section
from search.studies.benchmarks.coco_scoring import scoring_section
from search.studies.benchmarks.data_checks import data_section
from search.studies.benchmarks.gpu.tables import gpu_section
from search.studies.benchmarks.loader import loader_section
from search.studies.benchmarks.operations import operations_section
from search.studies.benchmarks.search_step import search_step_section, search_steps_section
from search.studies.comparison.tables import comparison_section, comparison_summary
from search.studies.config_keys import keys_table
from search.studies.demo import auto_section, demo_section
from search.studies.demo_repeats import demo_repeats_section
from search.studies.kills.study import kills_section
from search.studies.known_answer.tables import known_answer_section
from search.studies.methods.tables import importance_section, study_section
from search.studies.precisions.report import precisions_section
from search.studies.pretrained.tables import study_section as pretrained_section
from search.studies.reproduction import hours_section, se_section
from search.studies.tuning.report import tuning_section
from search.studies.weights import weights_section

RESULTS = Path("docs/results")
_MARKER = re.compile(r"^<!-- (/?)([\w-]+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """Results between ``<!-- name -->`` and ``<!-- /name -->``.

    Attributes:
        files: the studies below ``docs/results``, as a pattern without ``.json``.
        tables: of the studies, in the order of their files' names.
        plot: description of the plots beside the files; None shows none.
    """

    files: str
    tables: Callable[..., str]
    plot: str | None = None

    def render(self, results: Path, link: str) -> str:
        """The tables, and the plots below them.

        Args:
            results: folder of the studies' files.
            link: to that folder, as seen from the page.

        Raises:
            UserError: if there is no such file, or it is not JSON.
        """
        paths = sorted(results.glob(f"{self.files}.json"))
        if not paths:
            raise UserError(f"no '{self.files}.json' in '{results}'; run the study first")
        text = self.tables(*(read_json(path, "study") for path in paths))
        plots = [f"![{self.plot}]({link}/{path.stem}.png)" for path in paths if self.plot]
        return "\n\n".join([text, *plots])


@dataclass(frozen=True)
class CodeSection:
    """What the code itself says, between such markers.

    Attributes:
        table: of what there is.
    """

    table: Callable[[], str]

    def render(self, results: Path, link: str) -> str:
        """The table, whatever the results."""
        return self.table()


_METHODS_PLOT = "accuracy, and runtime over the target, by method"

SECTIONS: dict[str, Section | CodeSection] = {
    "auto": Section("auto", auto_section),
    "demo": Section("demo", demo_section),
    "demo-repeats": Section("demo-repeats", demo_repeats_section),
    "comparison-summary": Section("comparison", comparison_summary),
    "comparison": Section(
        "comparison", comparison_section, "AP of boxes and masks against runtime"
    ),
    "formulations": CodeSection(formulations_table),
    "systems": CodeSection(systems_table),
    "compare-search": Section("compare-search", study_section, _METHODS_PLOT),
    "targets": Section("targets", study_section, _METHODS_PLOT),
    "targets-three-epochs": Section("targets-three-epochs", study_section),
    "keys-detection": CodeSection(keys_table("detection/custom.yaml")),
    "keys-detection-lite": CodeSection(keys_table("detection/custom_lite.yaml")),
    "keys-detector-search": CodeSection(keys_table("search/mask_rcnn_custom.yaml")),
    "keys-classification": CodeSection(keys_table("classification/custom.yaml")),
    "keys-search": CodeSection(keys_table("search/custom.yaml")),
    "keys-pretrained": CodeSection(keys_table("search/pretrained.yaml")),
    "keys-finetune": CodeSection(keys_table("classification/finetune.yaml")),
    "keys-detector-pretrained": CodeSection(keys_table("search/mask_rcnn_pretrained.yaml")),
    "pretrained-classes-fitted": Section("pretrained-classes-fitted", pretrained_section),
    "pretrained-classes": Section("pretrained-classes", pretrained_section),
    "pretrained-classes-lite1": Section("pretrained-classes-lite1", pretrained_section),
    "pretrained-classes-short": Section("pretrained-classes-short", pretrained_section),
    "pretrained-classes-taught": Section("pretrained-classes-taught", pretrained_section),
    "pretrained-parts": Section("pretrained-parts", pretrained_section),
    "pretrained-parts-short": Section("pretrained-parts-short", pretrained_section),
    "pretrained-persons": Section("pretrained-persons", pretrained_section),
    "pretrained-persons-long": Section("pretrained-persons-long", pretrained_section),
    "known-answer-measured": Section("known-answer-measured", known_answer_section),
    "importance": Section("importance", importance_section),
    "ablation": Section("ablation", ablation_section),
    "known-answer": Section("known-answer", known_answer_section),
    "latency": Section("latency-*", latency_section, "predicted against measured, and SE factors"),
    "precisions": Section("precisions-*", precisions_section),
    "tuning": Section(
        "tuning", tuning_section, "best value by epochs spent, and the grid of λ × epochs"
    ),
    "coco-scoring": Section("coco-scoring", scoring_section),
    "busy-machine": Section("busy-machine", busy_machine_section),
    "check-data": Section("check-data", data_section),
    "loader": Section("loader", loader_section),
    "data-kinds": CodeSection(kinds_table),
    "kills": Section("kills", kills_section),
    "operations": Section("operations", operations_section),
    "search-step": Section("search-step", search_step_section),
    "search-step-small": Section("search-step-small", search_step_section),
    "search-step-gpu": Section("search-step-gpu", search_steps_section),
    "gpu": Section("gpu", gpu_section),
    "weights": Section("weights", weights_section),
    "reproduction-hours": Section("gpu", hours_section),
    "reproduction-se": Section("latency-*_224", se_section),
}
"""By name. Every one stands in one page."""


def pages(root: Path) -> list[Path]:
    """The pages of a checkout: README.md and ``docs/*.md``."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def render_pages(root: Path) -> dict[Path, str]:
    """Every page of a checkout with its sections made anew.

    Args:
        root: top of the checkout.

    Raises:
        UserError: as in :func:`render`, or if a section stands in no page or in two.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in pages(root)}
    named = Counter(name for text in texts.values() for name in section_names(text))
    if wrong := [name for name in SECTIONS if named[name] != 1]:
        raise UserError(
            f"the section '{wrong[0]}' stands in {named[wrong[0]]} pages of '{root}'; expected "
            f"<!-- {wrong[0]} --> and <!-- /{wrong[0]} --> in one"
        )
    return {page: render(text, page, root / RESULTS) for page, text in texts.items()}


def render(text: str, page: Path, results: Path) -> str:
    """A page with every section between its markers made anew.

    Args:
        text: the present text.
        page: its file, to which links are relative.
        results: folder of the studies' JSON files.

    Raises:
        UserError: if a section is unknown, unclosed or there twice, or its study is missing.
    """
    link = Path(os.path.relpath(results, page.parent)).as_posix()
    try:
        names = section_names(text)
    except UserError as error:
        raise UserError(f"'{page}': {error}") from None
    for name in names:
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}{SECTIONS[name].render(results, link)}\n{end}{after}"
    return text


def section_names(text: str) -> list[str]:
    """The sections of a page, from its markers.

    Raises:
        UserError: if a marker is unknown, without its other one, or there twice.
    """
    markers = _MARKER.findall(text)
    names = [name for _, name in markers[::2]]
    if unknown := [name for _, name in markers if name not in SECTIONS]:
        raise UserError(f"unknown section '{unknown[0]}'; expected one of {', '.join(SECTIONS)}")
    for opening, closing in zip(markers[::2], [*markers[1::2], ("", "")], strict=False):
        if opening[0] or closing != ("/", opening[1]):
            raise UserError(f"expected <!-- /{opening[1]} --> after one <!-- {opening[1]} -->")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"the section '{twice[0]}' is there {names.count(twice[0])} times")
    return names
