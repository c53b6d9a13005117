"""What a finished completion teaches about its server. Knows evidence; asks no questions of its own."""

from __future__ import annotations

from outthink.engines.openai.facts import Facts
from outthink.engines.openai.prefix import decisive
from outthink.engines.openai.reading import Reading
from outthink.engines.protocol import Call

_ENOUGH = 20  # alternatives: as many as any strategy asks for


def learn(facts: Facts, call: Call, reading: Reading) -> None:
    """Note which log-probabilities came back, and whether a prefix was repeated."""
    if not (reading.text or reading.thought):
        return
    if call.top_logprobs is not None and "logprobs" not in facts.refused:
        facts.learn(logprobs=reading.counts.entries > 0)
        # As many as were asked for only shows that there may be more.
        if call.top_logprobs > reading.width or reading.width >= _ENOUGH:
            facts.learn(top_logprobs=reading.width)
    if call.prefix and reading.stripper is not None and facts.repeats is None and not reading.whole:
        repeated = reading.stripper.repeated
        # A short prefix may be what the model writes next; only a long one tells.
        if repeated is False or (repeated and decisive(call.prefix)):
            facts.learn(repeats=repeated)
