"""Judging candidates within the budget, and engines as judges.

Knows: that a verifier's tokens are reserved, settled and entered like any others, and what is no
score; how a judge's completion is collected, tried again and counted. Does not know how a verifier judges.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from numbers import Real

from outthink.core.errors import BadInput, EngineError, OutthinkError, Unsupported
from outthink.core.receipt import Entry
from outthink.core.request import Message, Request, Sampling
from outthink.core.sample import Candidate, Sample, split_steps
from outthink.economics.tariff import Tariff, active_parameters
from outthink.engines.protocol import Call, Delta, Engine, Finish, Simulated, complete, is_simulated
from outthink.session.calls import SPENT, CallReservation, Retries
from outthink.session.runner import HostSession
from outthink.verifiers.judge import JudgeReply
from outthink.verifiers.protocol import Score, Verifier, VerifierAway


async def judge(
    session: HostSession, request: Request, given: Sequence[Candidate | Sample | str], verifier: Verifier
) -> list[Score | None]:
    """Scores in order, None for what has none (see `Session.score`)."""
    scores: list[Score | None] = [None] * len(given)
    candidates = {place: cut(item, verifier) for place, item in enumerate(given)}
    candidates = {place: candidate for place, candidate in candidates.items() if candidate.steps}
    if len(candidates) < len(given):
        session.note(f"{verifier.id}: an empty text has no score")
    if not candidates or session.stopped is not None:
        return scores
    within, bound = _within_reach(session, request, candidates, verifier)
    if within:
        judged = await _judge(session, request, list(within.values()), bound, verifier)
        for place, score in zip(within, judged, strict=True):
            scores[place] = score
    return scores


def cut(given: Candidate | Sample | str, verifier: Verifier, before: str = "") -> Candidate:
    """Cut into steps as the verifier wants them, with the text that it goes on from; the empty candidate for text
    without a step."""
    if isinstance(given, Candidate):
        return given
    text, sample = (before + given, None) if isinstance(given, str) else (before + given.text, given)
    if sample is not None and sample.scores:  # recorded: the text may not have been kept
        return Candidate((text,), sample)
    steps = split_steps(text, verifier.separator) if verifier.kind == "process" else (text,) if text.strip() else ()
    if not steps and verifier.kind == "confidence":
        steps = (text,)
    return Candidate(steps, sample)


async def _judge(
    session: HostSession, request: Request, candidates: list[Candidate], bound: int, verifier: Verifier
) -> list[Score | None]:
    tariff = tariff_of(session, verifier)
    bounds = bounds_of(verifier, tariff, bound)
    check_bounds(session, verifier, bounds)
    # As for a call: wait for a settlement, and end where none is to come.
    while not session.account.has_room(bounds):
        session.out_of_budget()
        if session.stopped is not None:
            return [None] * len(candidates)
        await session.pause()
    judgement = Judgement(session, request, candidates, bounds, verifier, tariff)
    try:
        while not judgement.finished and session.stopped is None:
            await session.pause()
    finally:  # also where the strategy is closed meanwhile
        judgement.settle()
    if judgement.misuse is not None:
        raise judgement.misuse
    return judgement.scores()


def tariff_of(session: HostSession, verifier: Verifier) -> Tariff:
    """What a verifier costs: one on a model of this request what that model costs."""
    member = session.pool.get(verifier.model)
    return replace(member.tariff if member else Tariff.of(verifier.model), parameters=verifier.parameters)


def bounds_of(verifier: Verifier, tariff: Tariff, tokens: int) -> CallReservation:
    """What judging cannot exceed that takes so many tokens at most."""
    # Of a judge's tokens nobody knows beforehand how many are read and how many are written.
    written = tokens if verifier.kind == "generative" else 0
    return CallReservation(tokens, tariff.usd_bound(tokens, written), tariff.joules_bound(tokens, written))


def check_bounds(session: HostSession, verifier: Verifier, bounds: CallReservation) -> None:
    """Refuse a verifier that takes tokens where a ceiling is set in a currency in which they have no price."""
    for account in session.account.chain():
        for name, amount in zip(SPENT, bounds, strict=True):
            if bounds.tokens and amount is None and account.budget.get(name) is not None:
                what = f"what the verifier {verifier.id} costs in it is unknown"
                raise Unsupported(f"budget {name}: {what}; drop that ceiling, or judge with a model of this request")


class Judgement:
    """What a verifier says of some candidates of one request: reserved, under way, settled.

    Args:
        bounds: what judging all of them cannot exceed.
    """

    def __init__(
        self,
        session: HostSession,
        request: Request,
        candidates: Sequence[Candidate],
        bounds: CallReservation,
        verifier: Verifier,
        tariff: Tariff,
    ) -> None:
        self._session, self._verifier, self._tariff, self._bounds = session, verifier, tariff, bounds
        self._count = len(candidates)
        if not session.account.unlimited:
            session.account.hold(bounds)
        self._began = session.runner.now()
        speed = session.runner.speed
        seconds = None if speed is None else lambda scores: _processed(scores) / speed.judge
        self._work = session.runner.perform(verifier.score(request, candidates), seconds)

    @property
    def finished(self) -> bool:
        """Whether the verifier has answered, or failed."""
        return self._work.finished

    def then(self, call: Callable[[], None]) -> None:
        """Call something when the verifier has answered or failed, now if it has."""
        if self._work.finished:
            call()
        else:
            self._work.then = call

    def settle(self) -> None:
        """Write the entry; one that still runs is cancelled.

        What that has read is not known in real time, so its bound is charged; on a virtual clock all that it would
        have read: a model that reads is not broken off.
        """
        work, session = self._work, self._session
        work.cancel()
        scores = work.result if work.result is not None and len(work.result) == self._count else None
        if isinstance(work.error, VerifierAway):
            scores = []
        entry = _entry(self._tariff, scores, session.runner.now() - self._began, self._bounds, work.finished)
        if work.error is not None:
            entry.status, entry.error = "failed", str(work.error)
        session.ledger.entries.append(entry)
        if not session.account.unlimited:
            session.account.settle(self._bounds, entry)

    @property
    def misuse(self) -> OutthinkError | None:
        """An error that tells that the verifier is misused, and not that it has failed."""
        error = self._work.error
        return error if isinstance(error, OutthinkError) and not isinstance(error, EngineError) else None

    def scores(self) -> list[Score | None]:
        """The scores in order, once it is settled; None for what has none, with a note where that is the verifier's
        doing."""
        work, session, verifier = self._work, self._session, self._verifier
        if work.error is not None:
            # Whatever else it dies of, the samples that are paid for and their receipt are kept.
            session.note(f"{verifier.id} failed, its scores are missing: {in_one_line(work.error)}")
        elif work.finished:
            scores = work.result or []
            if len(scores) == self._count:
                return [_usable(session, verifier, score) for score in scores]
            session.note(f"{verifier.id} gave {len(scores)} scores for {self._count} candidates; none is used")
        return [None] * self._count


def _processed(scores: Sequence[Score]) -> int:
    """Tokens that a verifier has read anew or written, as far as they are known."""
    return sum(
        (score.prompt_tokens or 0) - (score.cached_tokens or 0) + (score.completion_tokens or 0) for score in scores
    )


def _within_reach(
    session: HostSession, request: Request, candidates: dict[int, Candidate], verifier: Verifier
) -> tuple[dict[int, Candidate], int]:
    """Which candidates the verifier can take, and a bound on the tokens of all of them.

    One that is too long for it loses only its own score.
    """
    within: dict[int, Candidate] = {}
    bound, refusal = 0, None
    for place, candidate in candidates.items():
        try:
            bound += verifier.bound(request, candidate)
        except BadInput as error:
            refusal = error
        else:
            within[place] = candidate
    if refusal is not None and not within and all(entry.role != "verifier" for entry in session.ledger.entries):
        raise refusal  # the first it ever sees, and refuses: a wrong use rather than a path grown too long
    if refusal is not None:
        session.note(f"{verifier.id}: {len(candidates) - len(within)} candidates are unscored: {refusal}")
    return within, bound


def _usable(session: HostSession, verifier: Verifier, score: Score) -> Score | None:
    """The score, or None with a note where a step has none between 0 and 1 (NaN included)."""
    wrong = [step for step in score.steps if not (isinstance(step, Real) and 0 <= step <= 1)]
    if score.steps and not wrong:
        return score
    if score.message and not score.steps and not score.tokens:
        note_refusal(session, verifier, score.message)
        return None
    what = f"{wrong[0]!r}, which is not between 0 and 1" if wrong else "no step score"
    session.note(f"{verifier.id} gave {what}; that candidate counts as unscored")
    return None


def note_refusal(session: HostSession, verifier: Verifier, problem: str) -> None:
    """Say once why samples are not judged: a problem names lengths, each time others."""
    what = f"{verifier.id}: some samples cannot be judged: "
    if not any(note.startswith(what) for note in session.ledger.notes):
        session.note(what + problem)


def in_one_line(error: BaseException) -> str:
    """One line; the kind of an error that is not ours says more than its text."""
    line = " ".join(str(error).split())[:200]
    return line if isinstance(error, OutthinkError) else f"{type(error).__name__}: {line}".rstrip(": ")


def _entry(
    tariff: Tariff, scores: Sequence[Score] | None, seconds: float, bounds: CallReservation, finished: bool
) -> Entry:
    """One entry for all candidates judged together; without scores nobody knows what was read."""
    ended = finished and scores is not None
    entry = Entry("verifier", tariff.model, "finished" if ended else "cancelled", seconds=seconds)
    prompts = [score.prompt_tokens for score in scores or ()]
    generated = [score.completion_tokens for score in scores or ()]
    if None in prompts or None in generated or (bounds.tokens and scores is None):
        entry.prompt_tokens = entry.completion_tokens = None
        entry.estimated = True
        if bounds.tokens:
            entry.reserved_tokens = int(bounds.tokens)
            entry.reserved_usd, entry.reserved_joules = bounds.usd, bounds.joules
        return entry
    read, made = sum(count or 0 for count in prompts), sum(count or 0 for count in generated)
    cached = sum(score.cached_tokens or 0 for score in scores or ())
    entry.prompt_tokens, entry.cached_tokens = read, cached
    entry.completion_tokens, entry.cancelled_tokens = (made, 0) if ended else (0, made)
    entry.flops = entry.usd = entry.joules = 0.0
    if read + made:  # else no model has run
        entry.flops, entry.usd, entry.joules = tariff.charge(read, cached, made)
    return entry


class Asking:
    """An engine as a plain function from a chat to its reply; `complete` of a JudgeVerifier.

    It knows no budget: whoever asks through it charges what the reply says it took. A simulated engine
    answers at once, so that a judge on one runs on the virtual clock too.

    Args:
        owned: `aclose` closes the engine.
        seed: the n-th call is drawn with seed + n; None leaves the engine its own randomness.
        retries: how a call that failed is tried again.
    """

    def __init__(
        self, engine: Engine, *, owned: bool = False, seed: int | None = None, retries: Retries | None = None
    ) -> None:
        self.engine, self.owned, self.seed = complete(engine), owned, seed
        self._retries = retries or Retries()
        self._numbers = itertools.count()
        self._slots: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    @property
    def model(self) -> str:
        """The engine's model."""
        return self.engine.model

    @property
    def parameters(self) -> int | None:
        """Its weights: the engine's own count, else the known one of this name."""
        return self.engine.parameters or active_parameters(self.engine.model)

    @property
    def concurrency(self) -> int:
        """Calls that run at once; one after another on a simulated engine, where they take no time."""
        return 1 if is_simulated(self.engine) else self.engine.concurrency

    async def __call__(self, messages: tuple[Message, ...], sampling: Sampling, top_logprobs: int) -> JudgeReply:
        """The reply to a chat. Raises EngineError when retries are used up, or none can help."""
        number = next(self._numbers)
        call = Call(
            messages,
            sampling,
            None if self.seed is None else self.seed + number,
            number,
            top_logprobs=top_logprobs,
            alternatives=top_logprobs > 0,
        )
        if is_simulated(self.engine):
            return _known_reply(self.engine, call)
        async with self._place():
            for attempt in itertools.count(1):
                arrived: list[str] = []
                try:
                    return await self._generated(call, arrived)
                except EngineError as error:
                    delay = self._retries.delay(attempt, error)
                    if delay is None or arrived:  # what has been generated could not be charged again
                        raise
                await asyncio.sleep(delay)
        raise AssertionError  # pragma: no cover - the loop has no end

    @property
    def notes(self) -> tuple[str, ...]:
        """What the engine has to say about itself."""
        return self.engine.notes

    async def prepare(self) -> None:
        """Get the engine ready, so that its model's name is known before its first reply. Generates nothing."""
        await self.engine.prepare(Call((Message("user", "Hello"),), Sampling(max_tokens=1)))

    async def aclose(self) -> None:
        """Close the engine, if it is this one's own."""
        if self.owned:
            await self.engine.aclose()

    def _place(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:  # a semaphore belongs to the loop that waited for it
            self._slots = loop, asyncio.Semaphore(self.engine.concurrency)
        return self._slots[1]

    async def _generated(self, call: Call, text: list[str]) -> JudgeReply:
        """One attempt; `text` receives what arrives."""
        await self.engine.prepare(call)
        if self.engine.features.logprobs is False:
            call = replace(call, top_logprobs=None, alternatives=False)
        tokens: list[tuple[str, Mapping[str, float]]] = []
        counted: int | None = None
        prompt: int | None = None
        async with aclosing(self.engine.generate(call)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta):
                    text.append(event.text)  # empty where it only thinks
                    tokens += event.alternatives
                    counted, prompt = event.tokens or counted, event.prompt_tokens or prompt
                elif isinstance(event, Finish):
                    counted = counted if event.completion_tokens is None else event.completion_tokens
                    prompt = prompt if event.prompt_tokens is None else event.prompt_tokens
                    return JudgeReply("".join(text), prompt, counted, event.cached_tokens, tokens)
        raise EngineError(f"{self.engine.model}: the stream ended without saying that it was finished", begun=True)


def _known_reply(engine: Simulated, call: Call) -> JudgeReply:
    """What a simulated engine would write, without its time."""
    outcome = engine.outcome(call)
    fault = outcome.fault
    if fault is not None and fault.after <= outcome.tokens:
        raise fault.error
    return JudgeReply(
        outcome.sample.text,
        outcome.prompt_tokens if outcome.told else None,
        outcome.tokens if outcome.told else None,
    )
