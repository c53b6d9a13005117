"""Real reward models of every format in a child process: their scores, their tokens, and the bound on those."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some

from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.process import ProcessVerifier
from outthink.verifiers.protocol import Score, Verifier
from outthink.verifiers.reward_model import FORMATS
from support.scripted_verifiers import importable
from support.tiny_models import tiny_verifier

REQUEST = Request.of("What is two and two?")
CANDIDATES = [Candidate(("Two - two.\n\n", "The answer is 4")), Candidate(("The answer is 5",))]


@pytest.mark.parametrize("format", FORMATS)
def test_it_scores_as_it_would_here_within_its_bound(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    importable(monkeypatch)
    here: Verifier = tiny_verifier(format)
    beside = ProcessVerifier("support.tiny_models:tiny_verifier", format)

    async def scores() -> list[Score]:
        await beside.prepare()
        try:
            return await beside.score(REQUEST, CANDIDATES)
        finally:
            await beside.aclose()

    found = asyncio.run(scores())
    score_many = here.score_many
    assert score_many is not None
    for score, wanted in zip(found, score_many([(REQUEST, CANDIDATES)])[0], strict=True):
        assert score.steps == pytest.approx(wanted.steps, abs=1e-5)
        assert score.prompt_tokens == wanted.prompt_tokens
    assert (beside.id, beside.parameters) == (here.id, here.parameters)

    visible = some.text(max_size=40).filter(lambda text: text.strip())

    @given(visible, some.lists(visible, min_size=1, max_size=4))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def bounded(question: str, steps: list[str]) -> None:
        request, candidate = Request.of(question), Candidate(tuple(steps))
        try:
            read = here.bound(request, candidate)
        except ValueError:  # it is too long, or has no text that the format would show
            assume(False)
        assert read <= beside.bound(request, candidate)

    bounded()
