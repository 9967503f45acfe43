"""Every network of the zoo gives the reference's logits, in every form of its weights."""

from __future__ import annotations

import pytest

from backbones import list_models
from search.studies.weights import (
    ELSEWHERE,
    FORMS,
    REFERENCES,
    TOLERANCE,
    forms_of,
    reference_of,
    weights_section,
)


@pytest.mark.slow
@pytest.mark.parametrize("network", list_models())
def test_every_form_gives_the_reference_logits(network: str) -> None:
    differences = dict(forms_of(network))
    elsewhere = {library for library, networks in ELSEWHERE.items() if network in networks}
    assert set(differences) == {*FORMS, *elsewhere}
    assert {form: value for form, value in differences.items() if value > TOLERANCE} == {}


def test_other_weights_would_be_noticed() -> None:
    first, second = (reference_of(REFERENCES["mnasnet_b1"], seed) for seed in (0, 1))
    assert any(not a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_table_has_every_form() -> None:
    differences = {"a": dict.fromkeys(FORMS, 1e-7)}
    report = {"differences": differences, "tolerance": 1e-5, "command": "python x", "hardware": "y"}
    text = weights_section(report)
    assert all(f"| {form} " in text for form in FORMS)
    assert text.count("–") == len(ELSEWHERE)
