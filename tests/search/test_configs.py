"""Searches and trainings on the digits differ in their schedules alone."""

from __future__ import annotations

import pytest

from backbones.files import differing, leaves
from search.config import load_search_config

SCHEDULE = {
    *("CLASSIFICATION.EPOCHS", "CLASSIFICATION.CHECKPOINT_EPOCHS"),
    *("SOLVER.WARMUP_EPOCHS", "SOLVER.WARMUP_FACTOR"),
}


@pytest.mark.parametrize(("name", "size"), [("digits", 48), ("digits_small", 32)])
def test_a_network_is_trained_on_the_images_of_its_search(name: str, size: int) -> None:
    search = leaves(load_search_config(f"search/{name}.yaml"))
    training = leaves(load_search_config(f"classification/{name}.yaml"))
    changed = {key for key in differing(search, training) if not key.startswith("SEARCH.")}
    assert changed <= {*SCHEDULE, "OUTPUT_DIR"}
    assert (search["CLASSIFICATION.INPUT_SIZE"], search["MODEL.DEVICE"]) == (size, "cpu")
