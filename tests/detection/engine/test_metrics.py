"""What a checkpoint keeps of the scalars, and what a resumed run makes of it."""

from __future__ import annotations

from detectron2.utils.events import EventStorage

from detection.engine.metrics import recent_scalars, restore_scalars


def logged(storage: EventStorage, iterations: range) -> None:
    for iteration in iterations:
        storage.iter = iteration
        storage.put_scalar("loss", 1 / (1 + iteration))
        storage.put_scalar("lr", 0.1 * iteration, smoothing_hint=False)
        storage.put_scalar("time", 0.5)


def test_a_resumed_run_keeps_the_scalars_of_the_whole_one() -> None:
    """Wherever it was interrupted, and whether or not the row there had been written."""
    with EventStorage() as whole:
        logged(whole, range(30))
    kept = recent_scalars(whole)
    assert kept.keys() == {"loss", "lr"}
    assert len(kept["loss"]["values"]) == 20
    for written in (True, False):
        with EventStorage() as before:
            logged(before, range(25))
        with EventStorage(25) as after:
            restore_scalars(after, recent_scalars(before), written)
            logged(after, range(25, 30))
        assert recent_scalars(after) == kept
