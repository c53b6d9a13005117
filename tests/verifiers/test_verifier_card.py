"""What a trained verifier says of itself: read as it was written, or refused in one line."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.verifiers.reward_model.opening import Artefact, read_artefact

CARD = Artefact(
    id="gsm8k-prm@1", base="../base", adapter=True, layers=24, aggregation="min", max_context=4096, parameters=10**9
)
VALUES = st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3) | st.lists(st.integers())


def written(folder: Path, card: Any) -> Path:
    """The folder with this card."""
    (folder / "verifier.json").write_text(json.dumps(card))
    return folder


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_artefact(written(tmp_path, asdict(CARD))) == CARD
    assert read_artefact(written(tmp_path, {"more": 1})) == Artefact(id=tmp_path.name)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("aggregation", "median", "is not known; use one of last, min, prod, mean"),
        ("kind", "exact", "is not known; use one of process, outcome"),
        ("temperature", -1.5, "is no temperature; give a number above 0"),
        ("max_context", "long", "is no whole number"),
        ("layers", 0, "is below 1"),
        ("adapter", "yes", "is neither true nor false"),
        ("separator", "", "is empty"),
    ],
)
def test_a_field_that_cannot_be_used(tmp_path: Path, field: str, value: object, problem: str) -> None:
    with pytest.raises(BadInput, match=rf"verifier\.json: {field}: {value!r} {problem}"):
        read_artefact(written(tmp_path, {"id": "x", field: value}))


@given(st.sampled_from([field.name for field in fields(Artefact)]), VALUES)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_one_value_changed_works_or_is_refused_in_one_line(tmp_path: Path, field: str, value: Any) -> None:
    try:
        read = read_artefact(written(tmp_path, asdict(CARD) | {field: value}))
    except BadInput as error:
        line = str(error)
    else:
        assert read == Artefact(**asdict(CARD) | {field: value})
        return
    assert line.startswith(f"{tmp_path}/verifier.json: {field}: ")
    assert "\n" not in line


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_a_file_that_is_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "verifier.json").write_text(text)
    with pytest.raises(BadInput, match="cannot be read"):
        read_artefact(tmp_path)
