"""What is decided before the first stage, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from backbones.errors import UserError
from backbones.files import read_json, write_json
from backbones.schema import to_json
from search.auto.baseline import Baseline
from search.auto.probe import Costs
from search.auto.quantities import spoken
from search.auto.recipe import Recipe
from search.auto.request import Request
from search.auto.schedule import Effort, Schedule, Work

PLAN_FILE = "plan.json"
"""In the folder of the whole."""


@dataclass(frozen=True)
class Plan:
    """All that is decided before the first stage, and the baseline once that is chosen.

    Attributes:
        request: what is asked for.
        recipe: the keys of every stage.
        fpn_channels: of the detector's pyramid.
        table: name or path of the latency table; the path is written by the profile.
        work: to do.
        costs: that the time was estimated by.
        schedule: epochs and seconds.
        baseline: to compare with; None while it is not chosen.
    """

    request: Request
    recipe: Recipe
    fpn_channels: int
    table: str
    work: Work
    costs: Costs
    schedule: Schedule
    baseline: Baseline | None = None

    def save(self, folder: Path) -> None:
        """Writes :data:`PLAN_FILE` into the folder of the whole."""
        recipe = {"proposed": self.recipe.proposed, "deploy_size": self.recipe.deploy_size}
        content = {**asdict(self), "recipe": recipe, "folder": str(folder)}
        write_json(folder / PLAN_FILE, to_json(content))

    @classmethod
    def load(cls, folder: Path) -> Plan | None:
        """The plan of a folder; None where there is none yet.

        Raises:
            UserError: if it is damaged.
        """
        path = folder / PLAN_FILE
        if not path.exists():
            return None
        content = read_json(path, "plan")
        try:
            request = Request.from_json(content["request"])
            recipe = content["recipe"]
            timed = content["schedule"]
            baseline, before = content["baseline"], content.get("folder") or str(folder)
            for part, keys in ((content, ("table",)), (baseline or {}, ("arch", "weights"))):
                part.update({k: _moved(part[k], before, folder) for k in keys if k in part})
            return cls(
                request=request,
                recipe=Recipe(request, tuple(recipe["proposed"]), tuple(recipe["deploy_size"])),
                fpn_channels=content["fpn_channels"],
                table=content["table"],
                work=Work(**content["work"]),
                costs=Costs(**content["costs"]),
                schedule=Schedule(**{**timed, "effort": Effort(**timed["effort"])}),
                baseline=baseline and Baseline(**_with_tuples(baseline)),
            )
        except (KeyError, TypeError) as error:
            raise UserError(
                f"'{path}' is not as this version writes it ({error}); name another folder "
                "(--output), or delete that one"
            ) from None


def _moved(path: str, before: str, now: Path) -> str:
    """A path below a folder that may be called otherwise now, as from another place."""
    inside = Path(path).is_relative_to(before)
    return str(now / Path(path).relative_to(before)) if inside else path


def _with_tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}


def plan_table(rows: list[tuple[str, str, float]]) -> str:
    """Stages with what they do and their minutes.

    Args:
        rows: title, what is done in numbers, and seconds of each.
    """
    cells = [
        [number, title, what, spoken(seconds)]
        for number, (title, what, seconds) in enumerate(rows, start=1)
    ]
    total = spoken(sum(seconds for *_, seconds in rows))
    headers = ["", "stage", "what", "about"]
    return str(tabulate([*cells, ["", "in all", "", total]], headers, "github"))
