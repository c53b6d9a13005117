"""A reasoning trace that is written in pieces: grown, paused, added to, probed and closed.

Knows: the marks around thinking, words at which a trace turns, what a trace has used of its cap, and
when it runs in circles. Does not know when a strategy wants to pause, go on or stop. There is no
tokeniser here: text that we insert counts as its UTF-8 bytes, an upper bound on its tokens, until the
server tells the prompt's length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from outthink.core.errors import BadInput, Unsupported
from outthink.core.receipt import Stopped, Verdict
from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.session.session import Session

CLOSE = "</think>"
CUE = "Final Answer:"
ANSWER_TOKENS = 256
SENTENCE_ENDS = (". ", ".\n", "? ", "?\n", "! ", "!\n", "\n\n")
MARKERS = tuple(
    f"{before}{word.capitalize()}{after}"
    for word in ("so", "therefore", "thus", "wait", "but", "alternatively", "hmm", "however")
    for before in ("\n", ". ", "? ", "! ")
    for after in (" ", ",")
)
"""Stop sequences for a marker word at the start of a sentence or paragraph."""
_HESITATION = re.compile(r"\b(?:wait|hmm|but)\b", re.IGNORECASE)
_PEEK = 8  # tokens that show what a silent server has stopped at
_GRAM, _TIMES = 64, 3  # the guard of budget forcing against loops

End = Literal["closed", "paused", "piece", "ended", "spent", "cut"]
"""Why a piece ended: at the closing mark, at another stop sequence, at its own length, by the model's
own decision, at the trace's cap, or because the session admits no further call."""


def looping(text: str) -> bool:
    """Whether the same run of 64 words occurs three times or more (overlapping runs count)."""
    words = text.split()
    # Hashes, since the tuples of a long trace would be 64 times as long as it.
    seen = Counter(hash(tuple(words[i : i + _GRAM])) for i in range(len(words) - _GRAM + 1))
    return max(seen.values(), default=0) >= _TIMES


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """A trial answer. `confidence` is exp(mean log-probability) of its tokens, None if unknown."""

    answer: str | None
    text: str
    confidence: float | None

    @property
    def hesitating(self) -> bool:
        """It holds a word of doubt instead of an answer (Dynasor discards such probes)."""
        return bool(_HESITATION.search(self.text))


class Trace:
    """The thinking of one request so far.

    Args:
        max_think: tokens that the thinking may have, inserted text included; None for those of the request.

    `pause` is where the text before the current marker word ends. Raises Unsupported at once for an
    engine that is known not to continue a prefix.
    """

    def __init__(self, session: Session, request: Request, max_think: int | None) -> None:
        if session.runner.features.prefix is False:
            raise Unsupported(f"{session.tariff.model} cannot continue a prefix; use an engine that can (see doctor)")
        limit = request.sampling.max_tokens if max_think is None else max_think
        if limit < 1:
            raise BadInput("max_think", limit, "is below 1", "give the tokens that the thinking may have")
        self.session, self.request, self.limit = session, request, limit
        self.text, self.pause = "", 0
        self.last: Sample | None = None
        self.bare: int | None = None
        """Tokens of the prompt without any thinking, None until told."""
        self.generated = self.inserted = 0

    @property
    def used(self) -> int:
        """Tokens of the thinking so far, at most."""
        return self.generated + self.inserted

    @property
    def left(self) -> int:
        """Tokens that it may still grow by."""
        return self.limit - self.used

    def insert(self, text: str, at: int | None = None) -> None:
        """Put text that the model has not written at the end, or at a place; it counts against the limit."""
        at = len(self.text) if at is None else at
        self.text = self.text[:at] + text + self.text[at:]
        self.inserted += len(text.encode())

    async def grow(self, limit: int | None = None, stop: Sequence[str] = ()) -> End:
        """Write on for `limit` tokens at most, up to the closing mark or a stop sequence.

        The closing mark is left out of the text, another stop sequence stays. Where the server does
        not tell what it has stopped at, eight more tokens show it.
        """
        room = self.left if limit is None else min(limit, self.left)
        if room < 1:
            return "spent"
        sample = await self._call(self.text, room, (CLOSE, *stop))
        if sample is None:
            return "cut"
        end = self._add(sample, room)
        if sample.stop:
            if sample.stop == CLOSE:
                return "closed"
            if sample.stop in stop:
                self.text += sample.stop
                self.pause = len(self.text) - len(sample.stop.lstrip(".?! \n"))
                return "paused"
        if end == "ended" and sample.stop is None and sample.finish_reason == "stop" and sample.text:
            return await self._peek()
        return end

    async def _peek(self) -> End:
        """Look behind a stop that the server has not named."""
        seam, room = len(self.text), min(_PEEK, self.left)
        if room < 1:
            return "spent"
        sample = await self._call(self.text, room, ())
        if sample is None:
            return "cut"
        end = self._add(sample, room)
        if end == "closed" or not sample.text.strip():
            return "closed" if end == "closed" else "ended"
        self.pause = seam
        return "paused"

    def _add(self, sample: Sample, room: int) -> End:
        before = sample.prompt_tokens
        if before is not None:
            if self.bare is None and not self.text:
                self.bare = before
            # The prompt holds what was inserted: the server's count of it takes the place of the bound by bytes.
            elif self.bare is not None and before - self.bare >= self.generated:
                self.inserted = min(self.inserted, before - self.bare - self.generated)
        counted = sample.tokens
        if counted is None:  # unknown is not 0: at most what was asked for, or a token a byte
            counted = room if sample.finish_reason == "length" else min(room, len(sample.text.encode()))
        self.generated += counted
        self.last = sample
        self.text += sample.text
        self.pause = len(self.text)
        closing = self.text.find(CLOSE)
        if closing >= 0:  # written in two pieces; what follows is paid for and written again
            self.text = self.text[:closing]
            self.pause = len(self.text)
            return "closed"
        unclear = sample.finish_reason == "unknown" and counted >= room  # not told, and as long as it could be
        if sample.finish_reason == "length" or unclear:
            return "piece" if self.left > 0 else "spent"
        return "ended"

    async def _call(self, prefix: str, tokens: int, stop: Sequence[str], *, probe: bool = False) -> Sample | None:
        sampling = self.request.sampling
        request = replace(self.request, sampling=replace(sampling, max_tokens=tokens, stop=(*sampling.stop, *stop)))
        request = request.greedy if probe else request
        stream = self.session.sample(request, n=1, role="probe" if probe else "policy", prefix=prefix or None)
        async for sample in stream:
            if sample.reasoning:
                raise Unsupported(
                    f"{self.session.tariff.model} returns thinking apart from the text, where it cannot be continued; "
                    "switch the server's reasoning parser off"
                )
            return sample
        return None

    def closed(self, cue: str, at: int | None = None) -> str:
        """The trace, up to a place, with its thinking closed; where we close it, on its own line and with a cue."""
        text = self.text[:at]
        if not cue:
            return text + CLOSE
        newline = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{newline}{CLOSE}\n\n{cue}"

    async def answer(self, cue: str = "", tokens: int = ANSWER_TOKENS, stopped: Stopped = "finished") -> Verdict:
        """Close the thinking and have the answer written under a limit of its own."""
        head = self.closed(cue)
        sample = await self._call(head, tokens, ())
        if sample is None:
            return await self.unfinished()
        answer = sample.answer
        if cue:
            # Behind its cue a bare value is a statement.
            answer = (await self.session.read(self.request, cue + sample.text)).answer or answer
        return Verdict(answer, head + sample.text, stopped)

    async def probe(self, cue: str, tokens: int) -> TrialAnswer | None:
        """A greedy trial answer at the pause, charged as role `probe`. None where the budget ends."""
        sample = await self._call(self.closed(cue, self.pause), tokens, ("\n\n",), probe=True)
        if sample is None:
            return None
        # Of the trial alone: an answer that stands in the thinking would be read from every probe.
        reading = await self.session.read(self.request, cue + sample.text)
        known = sample.mean_logprob is not None
        answer = reading.answer if sample.text.strip() else None
        return TrialAnswer(answer, sample.text, math.exp(sample.mean_logprob or 0.0) if known else None)

    async def unfinished(self) -> Verdict:
        """What can be read where the session ends before an answer is written."""
        reading = await self.session.read(self.request, self.text)
        return Verdict(reading.answer, self.text)

    async def finish(self, end: End, cue: str, tokens: int) -> Verdict:
        """The verdict of a trace that has come to an end by itself, at its cap or at the session's."""
        if end == "cut":
            return await self.unfinished()
        if end == "ended" and self.last is not None:
            return Verdict(self.last.answer, self.text)
        return await self.answer("" if end == "closed" else cue, tokens)
