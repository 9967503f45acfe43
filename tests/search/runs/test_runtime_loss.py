from __future__ import annotations

from detectron2.utils.events import EventStorage

from search.runs.runtime_loss import search_note
from search.selection.tradeoff import FixedTradeOff, TargetTradeOff


def test_a_line_of_progress() -> None:
    steered, fixed = TargetTradeOff(80.0), FixedTradeOff(1.5)
    with EventStorage() as storage:
        assert search_note(steered, "ms") == ""  # a formulation without the runtime in its loss
        storage.put_scalars(**{"search/relaxed_runtime": 93.14159, "search/lambda": 1.2345})
        assert search_note(fixed, "ms") == "runtime: 93.14 ms  lambda: 1.23"
        storage.put_scalar("search/budget", 88.0)
        expected = "runtime: 93.14 ms (budget 88, target 80)  lambda: 1.23"
        assert search_note(steered, "ms") == expected
