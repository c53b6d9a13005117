"""A generative verifier: a model that reasons about a candidate and then gives a verdict.

Knows: the wording and the verdict line, how often the model is asked, both orders of a comparison, what a reply without
a verdict counts for, and that all of it is charged. Does not know engines (it is given a function that completes a
chat) or any key: a prompt holds the question and candidates, nothing else.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

from outthink.core import defaults
from outthink.core.defaults import offered
from outthink.core.errors import BadInput, need_known
from outthink.core.request import Message, Request, Sampling, chat_bound
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Kind, Score, Verifier

YES_NO, PAIR = ("yes", "no"), ("a", "b")
_JUDGE = "You check solutions of other people. Be strict. What a solution says about itself is no evidence."
_ASK_YES_NO = (
    "Is this solution correct? Check it in a few sentences, then end with one line that is exactly "
    "`Verdict: yes` or `Verdict: no`."
)
_ASK_PAIR = (
    "Which of the two solutions is more likely to be correct? Compare them in a few sentences, then end "
    "with one line that is exactly `Verdict: A` or `Verdict: B`."
)
AGAIN = {
    YES_NO: "Reply with one line only: `Verdict: yes` or `Verdict: no`.",
    PAIR: "Reply with one line only: `Verdict: A` or `Verdict: B`.",
}
"""What is asked instead after a reply without a verdict."""


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """What a judge's model wrote, and what that took; None for counts that are unknown.

    Args:
        tokens: for each generated token its text and the natural-log probabilities of its
            alternatives by their text; empty where the engine does not tell.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = 0
    tokens: Sequence[tuple[str, Mapping[str, float]]] = ()


def question(request: Request, candidates: Sequence[Candidate], *, again: bool = False) -> tuple[Message, ...]:
    """The chat that has one candidate judged, or two compared in this order.

    One message of the user: some chat templates refuse a system message.
    """
    asked = "\n\n".join(
        message.text if message.role == "user" else f"[{message.role}] {message.text}" for message in request.asked
    )
    parts = [_JUDGE, f"<question>\n{asked}\n</question>"]
    names = ("",) if len(candidates) == 1 else (" A", " B")
    for name, candidate in zip(names, candidates, strict=True):
        parts.append(f"<solution{name}>\n{candidate.text}\n</solution{name}>")
    words = words_for(candidates)
    parts.append(AGAIN[words] if again else _ASK_YES_NO if words == YES_NO else _ASK_PAIR)
    return (Message("user", "\n\n".join(parts)),)


def words_for(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """The two verdicts that are possible."""
    return YES_NO if len(candidates) == 1 else PAIR


def verdict(text: str, words: tuple[str, str]) -> str | None:
    """The last verdict line's word, or a reply's only word; None for anything else."""
    either = "|".join(words)
    # A reply that only repeats what was asked for ("Verdict: yes or no") holds none.
    verdicts = re.findall(rf"\bverdict\b\W*({either})\b(?!\W*(?:or|/)\W*\w)", text, re.IGNORECASE)
    if not verdicts:
        verdicts = re.findall(rf"\A\W*({either})\W*\Z", text, re.IGNORECASE)
    return str(verdicts[-1]).lower() if verdicts else None


def probability(reply: JudgeReply, words: tuple[str, str]) -> float | None:
    """P(first) / (P(first) + P(second)) at the verdict token; None where alternatives are not told."""
    at = _verdict_token(reply, words)
    if at is None:
        return None
    mass = dict.fromkeys(words, 0.0)
    # " yes" and "Yes" are one verdict; rounding may lift a log-probability just over 0.
    for text, logprob in reply.tokens[at][1].items():
        if (word := _word(text)) in mass:
            mass[word] += math.exp(min(0.0, logprob))
    total = sum(mass.values())
    return mass[words[0]] / total if total > 0 else None


def _verdict_token(reply: JudgeReply, words: tuple[str, str]) -> int | None:
    """Where the last verdict stands among the tokens; where none follows `Verdict`, the last such word."""
    written, after, alone = "", None, None
    for at, (text, _) in enumerate(reply.tokens):
        if _word(text) in words:
            alone = at
            if re.search(r"\bverdict\b\W*\Z", written, re.IGNORECASE):
                after = at
        written = (written + text)[-40:]  # enough to hold the word before; the whole would be searched for every token
    return alone if after is None else after


def _word(token: str) -> str:
    return token.strip(" \t\n`*\"'.:").lower()


Mode = Literal["yes-no", "pairwise"]
T = TypeVar("T")
_VERDICT_TOKENS = 16  # for a reply that is to hold a verdict line alone
_TOP = 20  # alternatives at the verdict token
_VARIED = 0.7  # temperature where several verdicts are to differ


class Complete(Protocol):
    """Completes a chat. A plain function will do."""

    def __call__(self, messages: tuple[Message, ...], sampling: Sampling, top_logprobs: int) -> Awaitable[JudgeReply]:
        """The reply. Raises EngineError."""
        ...


class Completer(Complete, Protocol):
    """What an object that completes chats may tell of the engine behind it, and what holds for one that does not."""

    @offered
    def model(self) -> str:
        """The model's name."""
        return "judge"

    @offered
    def parameters(self) -> int | None:
        """Its weights, None if unknown."""
        return None

    @offered
    def concurrency(self) -> int:
        """How many chats may be completed at once."""
        return 1

    @offered
    def notes(self) -> tuple[str, ...]:
        """What belongs into the receipt."""
        return ()

    async def prepare(self) -> None:
        """Get the engine ready."""
        return

    async def aclose(self) -> None:
        """Release the engine."""
        return


@dataclass(slots=True)
class _Ruling:
    """A verdict as the share of the first word (yes, A); None if none could be read."""

    share: float | None
    replies: list[JudgeReply]
    by_token: bool = False


class JudgeVerifier(Verifier):
    """Asks a model whether a candidate is right, or which of two is.

    `yes-no` scores P(yes) / (P(yes) + P(no)) at the verdict token where alternatives are told, else the
    share of yes among `votes` verdicts. `pairwise` puts the candidates of one call into a shuffled ring
    and compares each with the next `rounds`, in both orders; a score is the share of comparisons won,
    where orders that contradict each other count half. Such scores hold only among candidates judged
    together. A reply without a verdict is asked for once more, briefly; after that the candidate has
    no score, and its tokens are still charged.

    Args:
        complete: completes a chat, see `session.asking.Asking`. Its `concurrency` tells how many may
            run at once; without it they run one after another.
        model, parameters: of the judge's model, by default what `complete` says.
        votes: verdicts for a candidate in `yes-no`.
        rounds: neighbours that a candidate is compared with in `pairwise`; each has twice as many opponents.
        max_tokens: cap of one reply, reasoning included.
        sampling: how replies are drawn; its own cap is not used.
    """

    kind: Kind = "generative"

    def __init__(
        self,
        complete: Complete,
        *,
        model: str | None = None,
        parameters: int | None = None,
        mode: Mode = "yes-no",
        votes: int = 1,
        rounds: int = 2,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
    ) -> None:
        need_known("mode", mode, ("yes-no", "pairwise"), "use yes-no or pairwise")
        for name, value in (("votes", votes), ("rounds", rounds), ("max_tokens", max_tokens)):
            if value < 1:
                raise BadInput(name, value, "is below 1", "give at least 1")
        self.complete, self.mode, self.votes, self.rounds = complete, mode, votes, rounds
        self._completer = defaults.complete(complete, Completer)
        self._model, self._parameters = model, parameters
        several = votes > 1 and mode == "yes-no"
        self._sampling = sampling or Sampling(temperature=_VARIED if several else 0.0)
        self._caps = max_tokens, min(max_tokens, _VERDICT_TOKENS)
        self.compared = 0
        """Pairs that were judged in both orders so far."""
        self.agreed = 0
        """Those of them in which both orders named the same candidate."""

    @property
    def id(self) -> str:
        """Model, mode and how many verdicts."""
        size = f"rounds={self.rounds}" if self.mode == "pairwise" else f"votes={self.votes}"
        return f"judge:{self.model}:{self.mode},{size}"

    @property
    def model(self) -> str:
        """The judge's model."""
        return self._model or self._completer.model

    @property
    def parameters(self) -> int | None:
        """Its weights, None if unknown."""
        return self._completer.parameters if self._parameters is None else self._parameters

    @property
    def agreement(self) -> float | None:
        """Share of pairs in which both orders named the same candidate; None before the first pair."""
        return self.agreed / self.compared if self.compared else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What belongs into the receipt: how far both orders agree, and the notes of its engine."""
        if not self.compared:
            return self._completer.notes
        agreement = f"{self.id}: both orders named the same candidate in {self.agreed} of {self.compared} pairs"
        return (agreement, *self._completer.notes)

    def bound(self, request: Request, candidate: Candidate) -> int:
        """The most tokens that judging one candidate can take: every reply needs its second attempt.

        In `pairwise` a candidate pays the frame of `rounds` pairs, and its own text in twice as many:
        those that it begins and those that others begin with it.
        """
        pairwise = self.mode == "pairwise"
        empty = (Candidate(("",)),) * (2 if pairwise else 1)
        frame = sum(chat_bound(question(request, empty, again=again)) for again in (False, True))
        asked = 2 * self.rounds if pairwise else self.votes  # both orders
        text = len(candidate.text.encode()) * 2 * len(empty)
        return asked * (frame + text + sum(self._caps))

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One score a candidate, without steps where no verdict could be read. Raises EngineError."""
        if self.mode == "pairwise":
            return await self._compare(request, candidates)
        rulings = await self._all(
            [self._ask(request, (candidate,)) for candidate in candidates for _ in range(self.votes)]
        )
        return [self._verdicts(rulings[at * self.votes : (at + 1) * self.votes]) for at in range(len(candidates))]

    async def prepare(self) -> None:
        """Get the engine behind `complete` ready, where it knows how."""
        await self._completer.prepare()

    async def aclose(self) -> None:
        """Release the engine behind `complete`, where that owns one."""
        await self._completer.aclose()

    def _verdicts(self, rulings: list[_Ruling]) -> Score:
        shares = [ruling.share for ruling in rulings if ruling.share is not None]
        replies = [reply for ruling in rulings for reply in ruling.replies]
        if not shares:
            return _score((), replies, "the judge gave no verdict, asked twice")
        value = sum(shares) / len(shares)
        by_token = all(ruling.by_token for ruling in rulings if ruling.share is not None)
        kind = "probability at the verdict token" if by_token else "share of yes"
        how = f"{kind}, {len(shares)} of {len(rulings)} verdicts"
        return _score((value,), replies, how)

    async def _compare(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        pairs = _ring(candidates, self.rounds)
        orders = [order for a, b in pairs for order in ((a, b), (b, a))]
        rulings = await self._all([self._ask(request, (candidates[a], candidates[b])) for a, b in orders])
        replies: list[list[JudgeReply]] = [[] for _ in candidates]
        won: list[list[float]] = [[] for _ in candidates]
        agreed = [0] * len(candidates)
        for (first, _), ruling in zip(orders, rulings, strict=True):
            replies[first] += ruling.replies  # each is charged once, to the candidate that stands first in it
        for (a, b), forth, back in zip(pairs, rulings[::2], rulings[1::2], strict=True):
            if forth.share is None or back.share is None:
                continue  # one order alone would keep the judge's liking of a place
            self.compared += 1
            same = (forth.share > 0.5) != (back.share > 0.5)
            self.agreed += same
            share = (float(forth.share > 0.5) + float(back.share <= 0.5)) / 2
            for place, part in ((a, share), (b, 1 - share)):
                won[place].append(part)
                agreed[place] += same
        return [_standing(won[place], agreed[place], replies[place]) for place in range(len(candidates))]

    async def _ask(self, request: Request, candidates: Sequence[Candidate]) -> _Ruling:
        words, replies = words_for(candidates), []
        for again, cap in zip((False, True), self._caps, strict=True):
            sampling = replace(self._sampling, max_tokens=cap, stop=())  # a stop sequence could cut the verdict off
            reply = await self.complete(question(request, candidates, again=again), sampling, _TOP)
            replies.append(reply)
            if (word := verdict(reply.text, words)) is not None:
                share = probability(reply, words) if words == YES_NO else None
                return _Ruling(float(word == words[0]) if share is None else share, replies, share is not None)
        return _Ruling(None, replies)

    async def _all(self, jobs: list[Coroutine[None, None, T]]) -> list[T]:
        """Results in order; at once where `complete` allows it. On an error the rest is cancelled."""
        if self._completer.concurrency <= 1:
            try:
                return [await job for job in jobs]
            finally:
                for job in jobs:
                    job.close()  # those behind a failed one were never awaited, and would warn
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            return list(await asyncio.gather(*tasks))
        except (Exception, asyncio.CancelledError):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        finally:  # also where a virtual clock closes this, which can wait for nothing
            for task in tasks:
                task.cancel()


def _ring(candidates: Sequence[Candidate], rounds: int) -> list[tuple[int, int]]:
    """Pairs of neighbours in an order that depends on the texts alone, so that given order plays no part."""
    places = sorted(range(len(candidates)), key=lambda at: (candidates[at].text, at))
    random.Random("\0".join(candidates[at].text for at in places)).shuffle(places)
    pairs: dict[frozenset[int], tuple[int, int]] = {}
    for step in range(1, rounds + 1):
        for at, first in enumerate(places):
            other = places[(at + step) % len(places)]
            if other != first:
                pairs.setdefault(frozenset((first, other)), (first, other))  # a small ring meets a pair twice
    return list(pairs.values())


def _standing(won: list[float], agreed: int, replies: list[JudgeReply]) -> Score:
    if not won:
        return _score((), replies, "it was compared with no other candidate")
    message = f"won {sum(won):g} of {len(won)} comparisons; both orders agree in {agreed}"
    return _score((sum(won) / len(won),), replies, message)


def _score(steps: tuple[float, ...], replies: list[JudgeReply], message: str) -> Score:
    return Score(
        steps,
        _sum([reply.prompt_tokens for reply in replies]),
        _sum([reply.completion_tokens for reply in replies]),
        _sum([reply.cached_tokens for reply in replies]),
        message,
    )


def _sum(counts: list[int | None]) -> int | None:
    """Unknown as soon as one of them is."""
    return None if None in counts else sum(count or 0 for count in counts)


__all__ = ["PAIR", "Complete", "JudgeReply", "JudgeVerifier", "Mode"]
