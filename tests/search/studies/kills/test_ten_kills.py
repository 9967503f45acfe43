"""Ten kills at drawn moments, with loader processes and augmentation: the run is the whole one."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.studies.kills.differences import differences
from search.studies.kills.kinds import KINDS, prepare
from search.studies.kills.processes import Runner
from search.studies.kills.study import Killer

KILLS = {"search": 3, "classifier": 3, "detector": 4}
PRELOADED = ("search.runs.run", "search.classification.classifier", "tensorboard")
AUGMENTED = {
    "detector": (
        *("INPUT.MIN_SIZE_TRAIN", "(48,56,64)", "INPUT.RANDOM_FLIP", "horizontal"),
        *("INPUT.CROP.ENABLED", "True"),
    ),
}
ON_IMAGES = (
    *("CLASSIFICATION.AUGMENTATION.CROP_SCALE", "[0.3,1.0]"),
    *("CLASSIFICATION.AUGMENTATION.COLOR_JITTER", "0.4", "CLASSIFICATION.AUGMENTATION.FLIP", "0.5"),
    *("CLASSIFICATION.AUGMENTATION.AUTO_AUGMENT", "rand-m9-mstd0.5"),
)


@dataclass(frozen=True)
class Drawn:
    """When to kill: a time after so many checkpoints of a start, or after the start itself.

    Attributes:
        checkpoints: that this start has written; every one brings the run on.
        seconds: from then on.
    """

    checkpoints: int
    seconds: float

    def due(self, run: Path) -> Callable[[float], bool]:
        """From seconds since the start → whether it has come."""
        seen = [_written(run)]
        since = [0.0]

        def moment(seconds: float) -> bool:
            if len(seen) <= self.checkpoints and (now := _written(run)) != seen[-1]:
                seen.append(now)
                since[0] = seconds
            return len(seen) > self.checkpoints and seconds >= since[0] + self.seconds

        return moment


def _written(run: Path) -> int:
    """What is another number after every checkpoint."""
    try:
        return (run / "last_checkpoint").stat().st_ino
    except FileNotFoundError:
        return 0


def kill_in_a_row(killer: Killer, kills: int, seed: int) -> int:
    """One run, killed and started again as often as asked, and then to its end.

    Returns:
        The kills. A run that has come to its end before its moment is started again, as far back
        as it takes: with all files gone.
    """
    draw = random.Random(f"{seed} {killer.kind.name}")
    done = 0
    while done < kills:
        moment = Drawn(draw.randrange(3), draw.uniform(0, 1.5))
        ended = killer.start(moment.due(killer.run))
        assert ended.killed or ended.code == 0, killer.log.read_text()
        done += ended.killed
        if not ended.killed:
            killer.run.rename(killer.place / f"early{done}{draw.random()}")
    ended = killer.start(lambda _: False)
    assert ended.code == 0, killer.log.read_text()
    return done


@pytest.mark.slow
def test_ten_kills_leave_what_no_kill_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL of a run with its two loader processes; weights, states and metrics bit for bit."""
    monkeypatch.setattr("search.studies.kills.processes.PRELOADED", PRELOADED)
    (tmp_path / "tmp").mkdir()
    environment = {
        "DETECTRON2_DATASETS": str(tmp_path / "datasets"),
        "TMPDIR": str(tmp_path / "tmp"),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    for name, value in environment.items():  # which the runner sets for good
        monkeypatch.setenv(name, value)
    prepare(tmp_path)
    runner = Runner(environment)
    kills = 0
    for kind in KINDS:
        if kind.name not in KILLS:
            continue
        more = ("DATALOADER.NUM_WORKERS", "2", *AUGMENTED.get(kind.name, ON_IMAGES))
        words = kind.words

        def with_workers(
            folder: Path,
            run: Path,
            words: Callable[[Path, Path], list[str]] = words,
            more: tuple[str, ...] = more,
        ) -> list[str]:
            return [*words(folder, run), *more]

        killer = Killer(dataclasses.replace(kind, words=with_workers), tmp_path, runner)
        killer.whole_seconds()
        kills += kill_in_a_row(killer, KILLS[kind.name], seed=18)
        assert differences(killer.whole, killer.run) == [], kind.name
        assert "Resuming at iteration" in killer.log.read_text()
    assert kills == 10
