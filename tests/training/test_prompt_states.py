"""Hidden states of a tiny model at the end of each prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outthink.core.errors import BadInput

PROMPTS = ["How many legs do three cats have?", "Why?", "Add 12 and 30, then halve it."]


def test_states_do_not_depend_on_the_batch(base: Path) -> None:
    from outthink.training.prompt_states import prompt_states

    seen: list[tuple[int, int]] = []
    alone = prompt_states(PROMPTS, base=str(base), batch=1, progress=lambda *done: seen.append(done))
    together = prompt_states(PROMPTS, base=str(base), batch=3)
    assert alone.states.shape == (3, 4, 32)
    assert np.allclose(alone.states, together.states, atol=1e-4)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert alone.tokens.tolist() == [len(prompt) for prompt in PROMPTS]
    assert not np.allclose(alone.states[0, 3], alone.states[1, 3], atol=1e-3)


def test_reading_further_costs_more_and_a_long_prompt_is_cut(base: Path) -> None:
    from outthink.training.prompt_states import prompt_states

    result = prompt_states(["x" * 90], base=str(base), limit=50)
    assert result.tokens.tolist() == [50]
    assert result.flops(3) == 2 * result.parameters * 50
    assert result.flops(1) == pytest.approx(result.flops(3) / 3)


def test_a_base_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from outthink.training.prompt_states import prompt_states

    with pytest.raises(BadInput, match="cannot be loaded"):
        prompt_states(PROMPTS, base=str(tmp_path))
