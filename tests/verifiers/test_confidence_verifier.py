"""The model's own certainty as a score: the map to [0, 1], and what is refused."""

from __future__ import annotations

import asyncio
import math

import pytest

import outthink as ot
from outthink.core.sample import Candidate, ConfidenceTrace, Sample
from outthink.verifiers.checks import ConfidenceVerifier

REQUEST = ot.Request.of("What is 2 + 2?", answer="number")
FULL = Sample(
    0,
    "4",
    "4",
    "number",
    40,
    mean_logprob=-0.5,
    confidence=ConfidenceTrace((1.0, 3.0, 4.0), 16, 40),
    self_certainty=3.0,
)


def score(name: str, sample: Sample | None, **options: int) -> float:
    verifier = ConfidenceVerifier(name, **options)
    candidate = Candidate(("4",), sample)
    assert verifier.bound(REQUEST, candidate) == 0
    (only,) = asyncio.run(verifier.score(REQUEST, [candidate]))
    assert (only.prompt_tokens, only.completion_tokens) == (0, 0)
    return only.value(verifier.aggregation)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("confidence", (16 * 1 + 16 * 3 + 8 * 4) / 40),
        ("tail", 4.0),
        ("bottom", 1.0),
        ("lowest", 1.0),
        ("self-certainty", 3.0),
    ],
)
def test_what_is_unbounded_is_compressed_in_order(name: str, raw: float) -> None:
    assert score(name, FULL, window=16) == pytest.approx(raw / (1 + raw))


def test_a_mean_logprob_is_the_geometric_mean_of_the_token_probabilities() -> None:
    assert score("logprob", FULL) == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize("name", ["confidence", "tail", "bottom", "lowest", "logprob", "self-certainty"])
def test_a_sample_without_what_it_needs_is_refused_with_the_reason(name: str) -> None:
    bare = Sample(0, "4", "4", "number", 40)
    with pytest.raises(ot.Unsupported, match=rf"{name}.*carry no .*doctor"):
        score(name, bare)
    with pytest.raises(ot.Unsupported, match="not text"):
        score(name, None)


def test_one_measure_never_stands_in_for_another() -> None:
    """Scores of one id must be comparable."""
    without = Sample(0, "4", "4", "number", 40, confidence=FULL.confidence)
    with pytest.raises(ot.Unsupported, match="whole vocabulary"):
        score("self-certainty", without)


def test_names_and_ids() -> None:
    assert ConfidenceVerifier().id == "confidence"
    assert ConfidenceVerifier("lowest", window=64).id == "lowest@64"
    assert (ConfidenceVerifier("tail").top_logprobs, ConfidenceVerifier("logprob").top_logprobs) == (20, 0)
    with pytest.raises(ot.BadInput, match="self-certainty"):
        ConfidenceVerifier("hunch")


def test_it_is_free_in_the_receipt() -> None:
    engine = ot.ScriptedEngine(
        lambda call: ot.Completion(answer=str(call.index), tokens=10, logprob=-2.0 if call.index else -0.1),
        prompt_tokens=5,
    )

    async def best(session: ot.Session, request: ot.Request) -> ot.Verdict:
        samples = [sample async for sample in session.sample(request, n=3, ahead=3)]
        scores = await session.score(request, samples)
        _, sample = max(zip(scores, samples, strict=True), key=lambda pair: pair[0].value("last"))
        return ot.Verdict(sample.answer, sample.text)

    result = asyncio.run(ot.ask("q", model=engine, answer="number", strategy=best, verifier="logprob"))
    assert result.answer == "0"
    assert result.receipt.tokens == 3 * 15
    (entry,) = [entry for entry in result.receipt.entries if entry.role == "verifier"]
    assert (entry.tokens, entry.usd, entry.flops) == (0, 0, 0)
