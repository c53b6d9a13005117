"""Reading takes time in proportion to the text, whatever it holds."""

from __future__ import annotations

import gc
import time

import pytest

from outthink.answers import read_sync
from outthink.answers.reading import last_boxed

pytestmark = pytest.mark.timing


def test_many_open_boxes_take_linear_time() -> None:
    def spent(boxes: int) -> float:
        gc.disable()  # how long a collection takes depends on what other tests have left
        try:
            started = time.process_time()
            assert last_boxed(r"\boxed{" * boxes) is None
            assert read_sync("number", r"\boxed{1}" + r"\boxed{" * boxes).answer == "1"
            return time.process_time() - started
        finally:
            gc.enable()

    spent(1000)
    few, many = (min(spent(boxes) for _ in range(3)) for boxes in (20_000, 200_000))
    assert many < 40 * few, "ten times the boxes; a hundred times the time if each looked at all others"
