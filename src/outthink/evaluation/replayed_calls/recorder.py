"""A session that keeps which calls a strategy makes, and the stages that they are.

Knows: which streams of a session wait for which, what a call would have written had nobody stopped it, and how much of
its prompt is cached by then. Does not know how fast a server is, how a strategy works or what its name is: everything
is read from the streams that it opens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from outthink.core.errors import BadInput, Unsupported
from outthink.core.receipt import Entry, Status
from outthink.core.request import Request
from outthink.core.sample import Candidate, Sample
from outthink.economics.tariff import Tariff
from outthink.engines.protocol import CHUNK, Outcome, is_simulated
from outthink.evaluation.replayed_calls.rows import ReplayedCall, ReplayedStage, StageRule
from outthink.session.calls import CallStream, RunningCall
from outthink.session.open import SessionOptions, Source, open_session
from outthink.session.runner import Job, Runner
from outthink.session.session import Session
from outthink.session.stream import Stream
from outthink.verifiers.protocol import Score, Verifier

T = TypeVar("T")
_LONG = 1 << 60
_LIVE = "compare it live (outthink compare --live), or give another strategy"


def stages_of(
    strategy: Callable[[Session, Request], Job[Any]],
    request: Request,
    sources: Sequence[Source],
    *,
    seed: int | None = None,
    options: SessionOptions,
) -> tuple[str | None, tuple[ReplayedStage, ...]]:
    """Run a strategy on simulated engines: its answer, and the stages of its calls.

    Raises Unsupported where a call has failed, a stream was left before its first sample, or a call waits for several
    streams that are no one stage.
    """
    opened = open_session(sources, seed=seed, options=replace(options, kind=CallRecorder))
    session = opened.session
    assert isinstance(session, CallRecorder)
    verdict = opened.run_now(strategy(session, request))
    return verdict.answer, _stages(session.streams)


# What a session keeps of its streams while a strategy runs on it.


@dataclass(slots=True)
class _Frontier:
    """The streams, by number, that have to end before the next one of a branch begins."""

    ended: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class _OpenedStream:
    """A stream, the streams that ended before it, its calls as they were settled, and what a verifier took for them."""

    stream: Stream
    after: tuple[int, ...]
    judged: bool
    settled: dict[int, tuple[RunningCall, Status, int | None]] = field(default_factory=dict)
    scored: dict[int, int] = field(default_factory=dict)

    @property
    def need(self) -> int:
        """Calls that had ended when the strategy went on."""
        stream = self.stream
        if stream.in_order:
            return stream.next_place
        ended = sum(status in ("finished", "stopped") for _, status, _ in self.settled.values())
        return ended - len(stream.ready)

    def outcomes(self) -> Iterator[tuple[Outcome, int]]:
        """What each call that may be launched writes, and how much of it before its watch stops it."""
        stream, number = self.stream, -1
        engine, cap = stream.session.runner.engine, stream.request.sampling.max_tokens
        assert is_simulated(engine)
        for place in range(stream.n):
            if (known := self.settled.get(place)) is not None:
                running, status, generated = known
                number, outcome = running.call.index, running.outcome
                if status == "failed" or outcome is None:
                    raise Unsupported(f"a call to {running.model} failed, and a row is a call that ends; {_LIVE}")
                if status != "cancelled":
                    yield outcome, outcome.tokens if generated is None else generated
                    continue
            else:
                number += 1
                try:
                    outcome = engine.outcome(stream.call(cap, number))
                except BadInput:  # not recorded, so nobody could have gone on that far
                    return
            yield outcome, self._watched(outcome, number)

    def _watched(self, outcome: Outcome, number: int) -> int:
        watch = self.stream.watch
        if watch is not None:
            for tokens in range(CHUNK, outcome.tokens, CHUNK):
                if watch(outcome.progress(number, tokens)) == "stop":
                    return tokens
        return outcome.tokens

    def verifier(self, place: int, outcome: Outcome, tokens: int) -> int:
        """Tokens that judging a call takes."""
        sample = outcome.sample
        # One without an answer, or that was stopped on its way, is not judged.
        if self.judged and sample.answer is not None and tokens == outcome.tokens:
            return _judging(sample)
        return self.scored.get(place, 0)


def _judging(sample: Sample) -> int:
    """Tokens that judging a recorded sample took, 0 where it was not judged."""
    return _known(sample.verifier_tokens) if sample.scores else sample.verifier_tokens or 0


def _known(tokens: int | None) -> int:
    """BadInput for what judging took nobody knows how many of."""
    if tokens is None:
        what = "of a sample with a score are not known"
        raise BadInput("verifier_tokens", None, what, "score the samples anew: outthink verify")
    return tokens


class CallRecorder(Session):
    """A session that keeps its streams with those that each waited for; branches and views add to the same list."""

    def __init__(self, runner: Runner, tariff: Tariff, *, parent: Session | None = None, **options: Any) -> None:
        super().__init__(runner, tariff, parent=parent, **options)
        above = parent if isinstance(parent, CallRecorder) else None
        self.streams: list[_OpenedStream] = above.streams if above else []
        self._by_stream: dict[CallStream, _OpenedStream] = above._by_stream if above else {}
        self.frontier: _Frontier = above.frontier if above else _Frontier()

    def sample(self, request: Request, **options: Any) -> Stream:
        """Keep the stream."""
        stream = super().sample(request, **options)
        opened = _OpenedStream(stream, self.frontier.ended, bool(options.get("judged")))
        self._by_stream[stream] = opened
        self.frontier.ended = (len(self.streams),)
        self.streams.append(opened)
        return stream

    async def together(self, *branches: Callable[[Session], Job[T]]) -> list[T]:
        """Each branch begins behind what has ended here; what comes next waits for the last stream of each."""
        before = self.frontier.ended
        forks = [_Frontier(before) for _ in branches]

        def forked(branch: Callable[[Session], Job[T]], fork: _Frontier) -> Callable[[Session], Job[T]]:
            def start(session: Session) -> Job[T]:
                assert isinstance(session, CallRecorder)
                session.frontier = fork
                return branch(session)

            return start

        results = await super().together(*map(forked, branches, forks))
        ended = dict.fromkeys(number for fork in forks for number in fork.ended if number not in before)
        self.frontier.ended = tuple(ended) or before
        return results

    async def score(
        self, request: Request, candidates: Sequence[Candidate | Sample | str], verifier: Verifier | None = None
    ) -> list[Score | None]:
        """Keep what judging took with the calls that are judged; of texts put together, with the last ones."""
        scores = await super().score(request, candidates, verifier)
        calls = [(each, place) for each in self.streams for place in each.settled]
        known = {id(running.outcome.sample): call for call in calls if (running := call[0].settled[call[1]][0]).outcome}
        last = [call for call in calls if call[0] in [self.streams[number] for number in self.frontier.ended]]
        for number, (candidate, score) in enumerate(zip(candidates, scores, strict=True)):
            sample = candidate.sample if isinstance(candidate, Candidate) else candidate
            unscored = _judging(sample) if isinstance(sample, Sample) else 0
            tokens = unscored if score is None else _known(score.tokens)
            if not tokens:
                continue
            if not last:
                raise Unsupported(f"something is judged before the first call, and only calls are rows; {_LIVE}")
            opened, place = known.get(id(sample)) or last[number % len(last)]
            opened.scored[place] = opened.scored.get(place, 0) + tokens
        return scores

    def settle(
        self, running: RunningCall, status: Status, prompt: int | None, generated: int | None, *rest: Any, **more: Any
    ) -> Entry:
        """Keep how the call has ended."""
        self._by_stream[running.stream].settled[running.place] = running, status, generated
        return super().settle(running, status, prompt, generated, *rest, **more)


# From streams to stages.


def _stages(streams: Sequence[_OpenedStream]) -> tuple[ReplayedStage, ...]:
    outcomes = [list(opened.outcomes()) for opened in streams]
    prefixes = _cached(streams, outcomes)
    plain = []
    for opened, of_stream, cached in zip(streams, outcomes, prefixes, strict=True):
        if not opened.need:
            raise Unsupported(f"a stream was left before its first sample, and a stage ends with one; {_LIVE}")
        calls = tuple(
            ReplayedCall(prompt, min(prompt, cached), tokens, opened.verifier(place, outcome, tokens))
            for place, (outcome, tokens) in enumerate(of_stream)
            for prompt in [outcome.prompt_tokens]
        )
        stream = opened.stream
        rule: StageRule = "launched" if stream.in_order else "finished"
        plain.append(ReplayedStage(stream.session.tariff.model, -1, calls, stream.ahead, rule, opened.need))
    return _in_order(plain, [opened.after for opened in streams])


def _cached(streams: Sequence[_OpenedStream], outcomes: Sequence[Sequence[tuple[Outcome, int]]]) -> list[int]:
    """Tokens of each stream's prompts that are cached when it begins, at most: of the first prompt and what continues
    it, as written or at hand. A prompt with other messages shares nothing."""
    first = streams[0].stream.request.messages if streams else ()
    same = [opened.stream.request.messages == first for opened in streams]
    alone = sum(len(each) for each, like in zip(outcomes, same, strict=True) if like) < 2
    before: list[set[int]] = []
    cached = []
    for number, opened in enumerate(streams):
        earlier = set(opened.after).union(*(before[each] for each in opened.after))
        before.append(earlier)
        prefix = opened.stream.prefix or ""
        if not same[number] or alone:
            cached.append(0)
            continue
        known = [_LONG] if not prefix or not any(same[each] for each in earlier) else [0]
        for each in sorted(earlier if prefix else ()):
            begun = streams[each].stream.prefix or ""
            if not same[each] or not prefix.startswith(begun):
                continue
            for outcome, tokens in outcomes[each]:
                written = prefix.startswith(begun + outcome.sample.text)
                known.append(outcome.prompt_tokens + written * tokens)
        cached.append(max(known))
    return cached


def _in_order(stages: Sequence[ReplayedStage], after: Sequence[tuple[int, ...]]) -> tuple[ReplayedStage, ...]:
    """Stages with the one that each waits for; those that another one waits for together become one."""
    home = list(range(len(stages)))
    for waited in after:
        joined = {home[number] for number in waited}
        if len(joined) < 2:
            continue
        members = [number for number in range(len(stages)) if home[number] in joined]
        behind = {tuple(sorted({home[each] for each in after[number]})) for number in members}
        whole = all(stages[each].need == len(stages[each].calls) <= stages[each].ahead for each in members)
        if len(behind) > 1 or not whole or len({stages[each].model for each in members}) > 1:
            what = "a call waits for several streams that do not begin together and run to their ends"
            raise Unsupported(f"{what}, and a stage waits for one; {_LIVE}")
        for number in members:
            home[number] = min(joined)
    found: list[ReplayedStage] = []
    places: dict[int, int] = {}
    for number, stage in enumerate(stages):
        if home[number] != number:
            continue
        joint = [other for other, at in zip(stages, home, strict=True) if at == number]
        places[number] = len(found)
        found.append(
            replace(
                stage,
                after=places[home[after[number][0]]] if after[number] else -1,
                calls=tuple(call for other in joint for call in other.calls),
                ahead=sum(other.ahead for other in joint),
                need=sum(other.need for other in joint),
            )
        )
    return tuple(found)
