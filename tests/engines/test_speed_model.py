"""The time model's input: every rate is a positive finite number, and nothing is dropped in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from outthink import BadInput, Speed


def test_rates_are_read_from_text_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    file.write_text('{"stream": 30, "concurrency": 2}')
    assert Speed.parse("stream=30, concurrency=2") == Speed.parse(str(file)) == Speed(stream=30.0, concurrency=2)


@pytest.mark.parametrize(
    "text",
    [
        "stream=0",
        "stream=nan",
        "stream=inf",
        "concurrency=inf",
        "stream=fast",
        "stream=30,total",
        "steam=30",
        "none.json",
    ],
)
def test_what_cannot_be_read_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="speed"):
        Speed.parse(text)


def test_streams_share_the_total() -> None:
    speed = Speed(stream=50, total=200)
    assert [speed.rate(active) for active in (0, 1, 4, 8)] == [50, 50, 50, 25]
