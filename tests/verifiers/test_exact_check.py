"""The exact verifier: a check, at once or awaited, becomes 1 or 0."""

from __future__ import annotations

import asyncio

import pytest

from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.checks import ExactVerifier

REQUEST = Request.of("What is 17 * 23?", answer="number")
CANDIDATES = [Candidate(("17 * 23\n\n", "= 391")), Candidate(("393",)), Candidate(())]


def test_a_check_is_asked_about_the_whole_text() -> None:
    seen = []

    def check(request: Request, text: str) -> bool:
        seen.append((request, text))
        return text.endswith("391")

    verifier = ExactVerifier(check, id="number")
    scores = asyncio.run(verifier.score(REQUEST, CANDIDATES))
    assert [score.steps for score in scores] == [(1.0,), (0.0,), (0.0,)]
    assert seen == [(REQUEST, "17 * 23\n\n= 391"), (REQUEST, "393"), (REQUEST, "")]
    assert (verifier.id, verifier.kind, verifier.parameters) == ("number", "exact", 0)


def test_a_check_may_wait() -> None:
    async def check(request: Request, text: str) -> bool:
        await asyncio.sleep(0)
        return "391" in text

    scores = asyncio.run(ExactVerifier(check).score(REQUEST, CANDIDATES))
    assert [score.value("last") for score in scores] == [1.0, 0.0, 0.0]


def test_it_costs_no_tokens() -> None:
    verifier = ExactVerifier(lambda request, text: True)
    assert verifier.bound(REQUEST, CANDIDATES[0]) == 0
    (score,) = asyncio.run(verifier.score(REQUEST, CANDIDATES[:1]))
    assert (score.prompt_tokens, score.completion_tokens, score.cached_tokens) == (0, 0, 0)


def test_what_a_check_raises_is_not_a_verdict() -> None:
    def check(request: Request, text: str) -> bool:
        raise RuntimeError("no key")

    with pytest.raises(RuntimeError, match="no key"):
        asyncio.run(ExactVerifier(check).score(REQUEST, CANDIDATES))
