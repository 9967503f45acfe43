"""Kills runs at moments spread over them, lets them go on, and compares what they leave."""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.files import read_json, write_json
from detection.engine.provenance import provenance
from search.studies.kills.differences import differences
from search.studies.kills.kinds import KINDS, Kind, prepare
from search.studies.kills.processes import Ended, Runner
from search.studies.kills.watch import Watch
from search.studies.markdown import beside, table
from search.studies.trials import run_trials

ATTEMPTS = 15
"""At a kill: a run may come to its end before the moment does."""


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        fraction: of the time that an undisturbed run takes.
        file: appears below the run's folder, as a pattern; None goes by the time.
    """

    fraction: float
    file: str | None = None

    def due(self, run: Path, whole_seconds: float) -> Callable[[float], bool]:
        """From seconds since the start → whether it has come."""
        if self.file is None:
            return lambda seconds: seconds >= self.fraction * whole_seconds
        place, _, name = self.file.rpartition("/")
        final = name[1:-2] if name.startswith(".") and name.endswith(".*") else name
        folder = run / place if place else run
        # what is written may be whole between two looks
        return lambda _: any(next(folder.glob(n), None) is not None for n in {name, final})

    def __str__(self) -> str:
        return self.file or f"{100 * self.fraction:.0f} %"


def moments(kind: Kind, number: int, kills: int) -> list[Moment]:
    """The kills of one run: by time, or in every other run by a file; every third run has two.

    Args:
        kind: of the run.
        number: of the run, from 0 on.
        kills: how many runs of the kind are killed.
    """
    by_time = Moment((number + 0.5) / kills)
    first = Moment(0.95, kind.late[number // 2 % len(kind.late)]) if number % 2 else by_time
    again = Moment(random.Random(number).uniform(0.1, 0.6))
    return [first, again] if number % 3 == 2 else [first]


class Killer:
    """Runs the commands of one kind, in a folder of its own.

    Args:
        kind: of the runs.
        folder: of the study.
        runner: starts them.
    """

    def __init__(self, kind: Kind, folder: Path, runner: Runner) -> None:
        self.kind, self.folder, self.runner = kind, folder, runner
        self.place = folder / kind.name.replace(" ", "_")
        self.run, self.whole = self.place / "run", self.place / "whole"
        self.log = self.place / "output.log"

    def start(self, moment: Callable[[float], bool]) -> Ended:
        """Starts, or repeats, the command."""
        self.run.mkdir(parents=True, exist_ok=True)
        return self.runner.run(self.kind.words(self.folder, self.run), self.log, moment)

    def whole_seconds(self) -> float:
        """Time of the undisturbed run, which is made unless it is there.

        Raises:
            UserError: if it fails.
        """
        done = self.place / "whole.json"
        if not done.exists():
            for folder in (self.run, self.whole):
                shutil.rmtree(folder, ignore_errors=True)
            ended = self.start(lambda _: False)
            if ended.code:
                raise UserError(
                    f"the run of kind '{self.kind.name}' ended with exit code {ended.code}; see "
                    f"'{self.log}'"
                )
            # every run has the same path, which its files name
            self.run.rename(self.whole)
            write_json(done, {"seconds": ended.seconds})
        return float(read_json(done, "undisturbed run")["seconds"])

    def trial(self, number: int, kills: int) -> dict[str, Any]:
        """One run that is killed once or twice and goes on to its end.

        Returns:
            ``killed``, the moments; ``differences`` from the undisturbed run; ``equal``, whether
            there are none.
        """
        seconds = self.whole_seconds()
        first, *more = moments(self.kind, number, kills)
        watch, killed = self._first_kill(first, seconds)
        for moment in more:
            if self._ended(moment.due(self.run, seconds), watch).killed:
                killed.append(str(moment))
        found = []
        if self.kind.goes_on(self.run):
            ended = self._ended(lambda _: False, watch)
            found += [f"the last start ended with exit code {ended.code}"] * bool(ended.code)
        found += [*watch.faults(), *differences(self.whole, self.run)]
        # what others leave there is not ours
        found += [f"{path.name}: left in TMPDIR" for path in (self.folder / "tmp").glob("spnas-*")]
        if found:  # for a look
            kept = self.place / f"different{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(self.run, kept)
        return {"killed": killed, "equal": not found, "differences": found}

    def _ended(self, due: Callable[[float], bool], watch: Watch) -> Ended:
        def moment(seconds: float) -> bool:
            watch.look()
            return due(seconds)

        ended = self.start(moment)
        watch.look(at_once=True)
        return ended

    def _first_kill(self, moment: Moment, seconds: float) -> tuple[Watch, list[str]]:
        """Starts afresh until a run is killed; earlier and earlier, where one has ended before."""
        for _ in range(ATTEMPTS):
            shutil.rmtree(self.run, ignore_errors=True)
            for path in (self.folder / "tmp").glob("spnas-*"):
                shutil.rmtree(path)
            watch = Watch(self.run)
            if self._ended(moment.due(self.run, seconds), watch).killed:
                return watch, [str(moment)]
            moment = Moment(0.8 * moment.fraction)
        raise RuntimeError(f"{self.kind.name} ended {ATTEMPTS} times before it was to be killed")


def run_study(kills: int, names: Sequence[str] | None, folder: Path, output: Path) -> Any:
    """Makes the kills that ``output`` does not have yet.

    Args:
        kills: runs that are killed, of every kind.
        names: of the kinds; None takes all.
        folder: for the runs.
        output: JSON file, written after every run.

    Returns:
        What the file then holds.

    Raises:
        UserError: for an unknown kind, or if an undisturbed run fails.
    """
    known = {kind.name: kind for kind in KINDS}
    if unknown := [name for name in names or () if name not in known]:
        raise UserError(f"unknown kind '{unknown[0]}'; expected one of {', '.join(known)}")
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    prepare(folder)
    runner = Runner(
        {
            "DETECTRON2_DATASETS": str((folder / "datasets").resolve()),
            "TMPDIR": str((folder / "tmp").resolve()),
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
    )
    pending = []
    for name in names or known:
        killer = Killer(known[name], folder, runner)
        pending += [
            ({"kind": name, "number": number}, functools.partial(killer.trial, number, kills))
            for number in range(kills)
        ]
    return run_trials(pending, output, provenance(threads=1), _summary)


def _summary(trials: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for kind in KINDS:
        mine = [trial for trial in trials if trial["kind"] == kind.name]
        if mine:
            rows.append(
                {
                    "kind": kind.name,
                    "runs": len(mine),
                    "kills": sum(len(trial["killed"]) for trial in mine),
                    "late": sum(not trial["killed"][0].endswith("%") for trial in mine),
                    "equal": sum(trial["equal"] for trial in mine),
                }
            )
    return json.loads(json.dumps(rows))


def kills_table(study: Mapping[str, Any]) -> str:
    """Runs of every kind, how often they were killed, and how many left what they should."""
    headers = ["kind of run", "runs killed", "kills", "by a file that appeared", "left the same"]
    rows = [
        [row["kind"], *(str(row[key]) for key in ("runs", "kills", "late", "equal"))]
        for row in study["summary"]
    ]
    return table(headers, rows)


def kills_section(study: Mapping[str, Any]) -> str:
    """What was killed, and what it left."""
    return f"{kills_table(study)}\n\n{beside(study)}"
