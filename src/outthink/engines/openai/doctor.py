"""What a server can do, found out with a few cheap calls: the logic of `outthink doctor URL`.

Knows: which question to put and how to read the answer. Does not know how to print it. What it finds
goes into the engine's facts, so that later runs start with them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from outthink.core.errors import EngineError
from outthink.core.request import Message, Sampling
from outthink.engines.openai.body import body
from outthink.engines.openai.engine import CHAT, OpenAIEngine
from outthink.engines.openai.reading import CompletionParser, logprob_entries
from outthink.engines.protocol import Call
from outthink.http.events import Decoder, JsonObject, NotJson
from outthink.http.transport import TransportFault
from outthink.http.usage import read_count

State = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report."""

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings about one server and model, in a fixed order.

    Args:
        requests: how many requests it took.
        seconds: how long it took.
    """

    url: str
    model: str
    findings: tuple[Finding, ...]
    requests: int
    seconds: float


@dataclass(slots=True)
class ProbeReply:
    """A reply: its chunks as they came, the same read as a completion, its new text and its thinking."""

    chunks: list[JsonObject]
    reading: CompletionParser
    text: str
    thought: str
    kind: str

    @property
    def written(self) -> tuple[str, str]:
        """Everything the model wrote: behind a reasoning parser a short completion may be thinking alone."""
        return self.thought, self.text


async def listen(engine: OpenAIEngine, call: Call) -> ProbeReply:
    """Run a call to its end, adapting as `generate` does.

    Raises:
        EngineError: it failed.
    """
    reply = await engine.start(call)
    decoder, reading = Decoder(), CompletionParser(call)
    chunks: list[JsonObject] = []
    try:
        async for piece in reply:
            chunks += decoder.feed(piece)
        chunks += decoder.close()
    except TransportFault as fault:
        raise engine.server.errors.fault(fault) from fault
    except NotJson as error:
        raise engine.server.errors.error(f"answered something that is not JSON ({str(error)!r})") from error
    finally:
        await reply.aclose()
    if decoder.kind == "page":
        raise engine.server.errors.page()
    text = thought = ""
    for chunk in chunks:
        engine.check(chunk)
        delta = reading.take(chunk)
        if delta is not None:
            text, thought = text + delta.text, thought + delta.reasoning
    rest = reading.rest()
    return ProbeReply(chunks, reading, text + (rest.text if rest is not None else ""), thought, decoder.kind)


# The single questions. Each is cheap, looks at one kind of evidence, and states what it cannot tell.

_MOST = 16
# Longer than the completion may be, so that a reply which contains all of it has it from the server.
_PREFIX = "Let me first say that everybody I have ever asked agrees that the capital of France is"
_PREFIX_MOST = 8

COMPLETION = (
    "completion",
    "streaming",
    "usage in stream",
    "continuous counts",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "parameters",
    "reasoning field",
)


def names_call(seed: int | None = None, top_logprobs: int | None = None) -> Call:
    """A question to which every sample differs, unless the seed is kept."""
    messages = (Message("user", "Write unusual first names, separated by commas."),)
    return Call(messages, Sampling(temperature=1.0, max_tokens=_MOST), seed, top_logprobs=top_logprobs)


def _state(yes: bool) -> State:
    return "yes" if yes else "no"


def probe_completion(engine: OpenAIEngine, reply: ProbeReply) -> list[Finding]:
    """What one completion shows about its server."""
    facts, reading, counts = engine.facts, reply.reading, reply.reading.counts
    wrote = reading.text or reading.thought
    streamed = reply.kind == "events"
    usages = sum(isinstance(chunk.get("usage"), dict) for chunk in reply.chunks)
    timings = sum(isinstance(chunk.get("timings"), dict) for chunk in reply.chunks)
    completion_tokens = counts.completion(text=wrote)
    if wrote:
        facts.learn(again=True, logprobs=counts.entries > 0, top_logprobs=reading.width)
    kind = "timings" if timings > 1 else "usage" if usages > 1 else ""
    if not kind and counts.entries and not counts.gaps:
        kind = "log-probability entries"
    name = facts.length_name or "max_tokens"
    past = completion_tokens is not None and completion_tokens > _MOST
    refused = sorted(facts.refused)
    if facts.top_k_off is not None:
        refused.append("top_k 0 (sent as -1)")
    key = reading.reasoning_key
    return [
        Finding("completion", _state(wrote), "" if wrote else "answered without any text"),
        Finding("streaming", _state(streamed), "" if streamed else "the whole answer comes at once"),
        Finding(
            "usage in stream",
            _state(bool(usages) and completion_tokens is not None),
            f"{completion_tokens} tokens" if usages else "",
        ),
        Finding("continuous counts", _state(streamed and bool(kind)), kind),
        Finding("logprobs", _state(counts.entries > 0)),
        Finding("top_logprobs", _state(reading.width > 0), f"{reading.width} of 20 asked"),
        Finding(
            "max_tokens", _state(not past), f"{name}; {completion_tokens} tokens came for {_MOST}" if past else name
        ),
        Finding("parameters", _state(not refused), "refused: " + ", ".join(refused) if refused else "all accepted"),
        Finding("reasoning field", "yes" if key else "unknown", key or "this completion had no separate reasoning"),
    ]


async def probe_tokenizer(engine: OpenAIEngine, first: ProbeReply) -> list[Finding]:
    """Whether the server counts tokens for us, and whether it then agrees with its own usage."""
    if await engine.count_text("The capital of France") is None:
        return [Finding("tokenizer", "no", "no /tokenize"), Finding("prompt counts", "no", "no /tokenize")]
    tokenizer = Finding("tokenizer", "yes", engine.facts.tokenizer or "")
    count = await engine.count_prompt(names_call())
    if count is None:
        return [tokenizer, Finding("prompt counts", "no", "texts only, no chats")]
    usage = first.reading.counts.prompt
    if usage is None or usage == count:
        return [
            tokenizer,
            Finding("prompt counts", "yes", f"{count} tokens" + (", as its usage says" if usage else "")),
        ]
    return [tokenizer, Finding("prompt counts", "no", f"{count} tokens, but its usage says {usage}")]


async def probe_prefix(engine: OpenAIEngine, first: ProbeReply) -> list[Finding]:
    """Whether a partial answer is continued, and whether the reply repeats it."""
    facts = engine.facts
    sampling = Sampling(temperature=0.0, max_tokens=_PREFIX_MOST)
    call = Call((Message("user", "What is the capital of France?"),), sampling, prefix=_PREFIX)
    try:
        reply = await listen(engine, call)
    except EngineError as error:
        if facts.prefix is not False:
            raise
        return [Finding("prefix", "no", str(error)), Finding("prefix repeated", "no")]
    repeated = bool(reply.reading.stripper is not None and reply.reading.stripper.repeated)
    start = reply.text.lstrip()
    anew = start.lower().startswith(("the capital", "let me", "france"))
    if not start:
        why = "all that it wrote came as reasoning" if reply.thought else "it wrote nothing more"
        return [Finding(name, "unknown", why) for name in ("prefix", "prefix repeated")]
    if repeated or (not anew and start.lower().startswith(("paris", "**paris", "the city of paris"))):
        facts.learn(again=True, prefix=True, repeats=repeated)
        detail = "its replies start with the prefix, which is taken off" if repeated else ""
        return [
            Finding("prefix", "yes", f"continued with {start!r}"),
            Finding("prefix repeated", _state(repeated), detail),
        ]
    if anew:
        facts.learn(again=True, prefix=False)
        return [Finding("prefix", "no", f"began anew with {start!r}"), Finding("prefix repeated", "no")]
    return [Finding("prefix", "unknown", f"wrote {start!r}"), Finding("prefix repeated", "no")]


async def probe_choices(engine: OpenAIEngine, first: ProbeReply) -> list[Finding]:
    """Whether `n` gives several choices, and whether usage then counts them all."""
    call = names_call(8, 0)  # with log-probabilities, whose entries give each choice's length
    sent: JsonObject = {**body(call, engine.model, engine.facts), "n": 2, "stream": False}
    sent.pop("stream_options", None)
    answer = await engine.server.fetch(CHAT, sent)
    if (reply := answer.object()) is None:
        error = engine.server.errors.status(answer.status, answer.headers, answer.content)
        if not error.fatal:
            raise error
        engine.facts.learn(again=True, n=False)
        return [Finding("n", "no", str(error)), Finding("usage sums choices", "unknown", "n is not available")]
    choices = reply.get("choices")
    rows = [row for row in (choices if isinstance(choices, list) else ()) if isinstance(row, dict)]
    honoured = len(rows) == 2
    engine.facts.learn(again=True, n=honoured)
    honours = Finding("n", _state(honoured), f"asked for 2 choices, got {len(rows)}")
    if not honoured:
        return [honours, Finding("usage sums choices", "unknown", "n is not available")]
    usage = reply.get("usage")
    used = read_count(usage.get("completion_tokens")) if isinstance(usage, dict) else None
    lengths = [_length(row) for row in rows]
    known = [length for length in lengths if length is not None]
    if not used or len(known) < len(rows):
        return [honours, Finding("usage sums choices", "unknown", "the choices' lengths are not told")]
    sums = used >= sum(known)
    engine.facts.learn(again=True, usage_sums=sums)
    return [
        honours,
        Finding("usage sums choices", _state(sums), f"usage says {used} for {' + '.join(map(str, known))}"),
    ]


def _length(row: JsonObject) -> int | None:
    """Tokens of a choice: its entries, or the cap where it was cut off there."""
    return len(logprob_entries(row)) or (_MOST if row.get("finish_reason") == "length" else None)


async def probe_seed(engine: OpenAIEngine, first: ProbeReply) -> list[Finding]:
    """Whether the first completion comes again with its seed, and does not with another."""
    if "seed" in engine.facts.refused:
        engine.facts.learn(again=True, seed=False)
        return [Finding("seed", "no", "the parameter is refused")]
    again = await listen(engine, names_call(7, 20))
    if again.written != first.written:
        engine.facts.learn(again=True, seed=False)
        return [Finding("seed", "no", "the same seed gave another text")]
    # A server that always gives one text would seem to heed every seed.
    other = await listen(engine, names_call(8, 20))
    if other.written == first.written:
        return [Finding("seed", "unknown", "every seed gives the same text: is sampling switched off?")]
    engine.facts.learn(again=True, seed=True)
    return [Finding("seed", "yes", "the same seed gave the same text")]


async def probe_cancellation(engine: OpenAIEngine, first: ProbeReply) -> list[Finding]:
    """Whether a running completion can be given up at once."""
    reply = await engine.start(names_call())
    try:
        await anext(reply)
    except StopAsyncIteration:
        return [Finding("cancellation", "unknown", "the completion was over too soon")]
    except TransportFault as fault:
        raise engine.server.errors.fault(fault) from fault
    finally:
        started = time.monotonic()
        await reply.aclose()
    seconds = time.monotonic() - started
    return [Finding("cancellation", _state(seconds < 0.1), f"the connection was closed within {seconds * 1e3:.0f} ms")]


MOST_REQUESTS = 12
Probe = Callable[[OpenAIEngine, ProbeReply], Awaitable[list[Finding]]]

# Each with the requests that it may take, so that `examine` never exceeds its bound.
_PROBES: tuple[tuple[Probe, int, tuple[str, ...]], ...] = (
    (probe_tokenizer, 3, ("tokenizer", "prompt counts")),
    (probe_prefix, 1, ("prefix", "prefix repeated")),
    (probe_choices, 1, ("n", "usage sums choices")),
    (probe_seed, 2, ("seed",)),
    (probe_cancellation, 1, ("cancellation",)),
)
_NAMES = ("reachable", "models", *COMPLETION, *(name for _, _, names in _PROBES for name in names))


async def examine(engine: OpenAIEngine) -> Report:
    """Examine a server with at most 12 requests of at most 16 tokens each.

    Raises:
        EngineError: the server cannot be reached at all.
    """
    started, before = time.monotonic(), engine.server.sent
    findings = [Finding("reachable", "yes", engine.url), await _models(engine)]
    why = "no model to ask" if engine.model == engine.url else ""
    first = None
    if not why:
        try:
            first = await listen(engine, names_call(7, 20))
        except EngineError as error:
            if isinstance(error.__cause__, TransportFault) and error.__cause__.kind in ("connect", "tls"):
                raise
            why = str(error)
    if first is not None:
        findings += probe_completion(engine, first)
        for probe, needs, names in _PROBES:
            if engine.server.sent - before + needs > MOST_REQUESTS:
                findings += [Finding(name, "unknown", f"{MOST_REQUESTS} requests were used up") for name in names]
                continue
            try:
                findings += await probe(engine, first)
            except EngineError as error:
                findings += [Finding(name, "unknown", str(error)) for name in names]
    have = {finding.name for finding in findings}
    findings += [Finding(name, "unknown", why) for name in _NAMES if name not in have]
    engine.save()
    return Report(engine.url, engine.model, tuple(findings), engine.server.sent - before, time.monotonic() - started)


async def _models(engine: OpenAIEngine) -> Finding:
    """The server's list; also settles the engine's model. Raises where nothing answers."""
    try:
        listed = await engine.begin_anew()
    except EngineError as error:
        if isinstance(error.__cause__, TransportFault):
            raise
        return Finding("models", "unknown", str(error))
    if listed is None:
        return Finding("models", "no", f"no list; asking for {engine.model!r}")
    shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
    missing = f"; {engine.model!r} is not among them" if engine.model not in listed else ""
    return Finding("models", "yes", shown + missing)
