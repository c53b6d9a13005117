"""What searches over steps have in common: paths, their continuation, scored children, and the vote at the end.

Knows: where a step ends, how paths get their values, when looking further is no use, and what is answered if the
budget or the verifier ends first. Does not know which path a search extends next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from outthink.core.errors import BadInput, Unsupported
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import Candidate, Sample
from outthink.session.session import Session
from outthink.strategies.votes import Votes, aggregation_of, judged, ranked, verifier_of, weights

_LETTERS = 4
"""Characters a token, for servers that tell no counts: it limits lengths and never enters a receipt."""


@dataclass(frozen=True, slots=True)
class Path:
    """Steps whose concatenation, with `opening`, is the text so far.

    Args:
        opening: blank text behind the last step; it opens the next one.
        tokens: generated tokens, estimated where `counted` is False.
        logprob: sum of the tokens' log-probabilities, None if unknown.
        finished: the model has ended it, or its length has.
        answer, rule: read from the whole text.
        value: the verifier's score, None while or where there is none.
        preview: the rollout that `value` judges instead of the path itself.
    """

    steps: tuple[str, ...] = ()
    opening: str = ""
    tokens: int = 0
    counted: bool = True
    logprob: float | None = 0.0
    finished: bool = False
    answer: str | None = None
    rule: str = "none"
    finish_reason: str = "stop"
    value: float | None = None
    preview: Path | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.steps) + self.opening

    @property
    def certainty(self) -> float | None:
        """Mean log-probability of its tokens, None if unknown."""
        return None if self.logprob is None or not self.tokens else self.logprob / self.tokens

    @property
    def rank(self) -> tuple[float, float, float]:
        """See `ranked`; a path without a value stands behind all others."""
        return ranked(-1.0 if self.value is None else self.value, self.certainty, self.tokens)

    def grown(self, sample: Sample, text: str, *, finished: bool) -> Path:
        """With a sample's text behind it: a step, or blank text that opens the next one."""
        count = sample.tokens if sample.tokens is not None else -(-len(sample.text) // _LETTERS)
        known = self.logprob is not None and sample.mean_logprob is not None
        blank = not text.strip()
        return replace(
            self,
            steps=self.steps if blank else (*self.steps, self.opening + text),
            opening=self.opening + text if blank else "",
            tokens=self.tokens + count,
            counted=self.counted and sample.tokens is not None,
            logprob=(self.logprob or 0.0) + (sample.mean_logprob or 0.0) * count if known else None,
            finished=finished,
            answer=sample.answer,
            rule=sample.rule,
            finish_reason=sample.finish_reason,
            value=None,
            preview=None,
        )

    def sample(self, index: int) -> Sample:
        """As a finished sample that may vote."""
        tokens = self.tokens if self.counted else None
        return Sample(index, self.text, self.answer, self.rule, tokens, self.finish_reason, mean_logprob=self.certainty)


ROOT = Path()
"""Where every search begins: nothing written."""


# Continuing many prefixes by one step each, side by side. Nothing here knows verifiers.

SHORTEST = 5
"""Tokens below which a step is no progress (short loops win verifiers, Snell et al. 2408.03314)."""
_BLANKS = 3
"""Times that a blank continuation is continued before its path counts as finished."""


@dataclass(frozen=True, slots=True)
class Steps:
    """How the paths of one request grow.

    Args:
        separator: text that ends a step, None to continue to the end. The server takes it off; here it is put back.
        tokens: the most tokens of one step. The request's own limit holds for the whole path.
    """

    request: Request
    separator: str | None
    tokens: int

    async def advance(self, session: Session, plans: Sequence[tuple[Path, int]]) -> list[list[Path]]:
        """For every (path, count) that many continuations, all in flight at once.

        Families are in order; what the budget does not reach is missing from them.
        """
        if session.stopped is not None or not plans:
            return [[] for _ in plans]
        if len(plans) == 1:
            return [await self._children(session, *plans[0])]
        return await session.together(*(partial(self._children, path=path, count=count) for path, count in plans))

    async def _children(self, session: Session, path: Path, count: int, blanks: int = _BLANKS) -> list[Path]:
        children: list[Path] = []
        blank: list[Path] = []
        for child in await self._calls(session, path, count):
            (blank if child.opening and not child.finished else children).append(child)
        if not blanks:
            return children + [replace(child, finished=True) for child in blank]
        for opening in distinct(blank):  # a blank line opens the next step; it is none itself
            if session.stopped is None:
                again = sum(child.text == opening.text for child in blank)
                children += await self._children(session, opening, again, blanks - 1)
        return children

    async def _calls(self, session: Session, path: Path, count: int) -> list[Path]:
        sampling = self.request.sampling
        room = max(1, sampling.max_tokens - path.tokens)
        if self.separator is not None:
            stop = tuple(dict.fromkeys((self.separator, *sampling.stop)))
            sampling = replace(sampling, stop=stop, max_tokens=min(room, self.tokens))
        else:
            sampling = replace(sampling, max_tokens=room)
        request = replace(self.request, sampling=sampling)
        prefix = path.text or None  # the first step is an ordinary sample
        stream = session.sample(request, n=count, ahead=count, prefix=prefix)
        return [self._grown(path, sample) async for sample in stream]

    def _grown(self, path: Path, sample: Sample) -> Path:
        separator, text, blank = self.separator, sample.text, not sample.text.strip()
        limit = self.request.sampling.max_tokens
        # A step that its own cap has cut goes on where it was cut; at the request's limit its path ends.
        if sample.finish_reason == "length":
            cut = path.grown(sample, text, finished=False)
            return replace(cut, finished=separator is None or blank or cut.tokens >= limit)
        # Ended by the model itself, or by a stop sequence of the user's.
        if separator is None or (sample.stop is not None and sample.stop != separator):
            return path.grown(sample, text, finished=True)
        if sample.stop is None and (blank or sample.rule == "boxed" or sample.finish_reason != "stop"):
            return path.grown(sample, text, finished=True)  # not told; this is how an end looks
        grown = path.grown(sample, text + separator, finished=False)
        return replace(grown, finished=True, finish_reason="length") if grown.tokens >= limit else grown


def worthwhile(parent: Path, child: Path) -> bool:
    """Whether a step is more than a few tokens and no repetition. A finished path always is."""
    if child.finished:
        return True
    if child.counted and child.tokens - parent.tokens < SHORTEST:  # an estimate prunes nothing
        return False
    earlier = {step.strip() for step in parent.steps}
    return all(step.strip() not in earlier for step in child.steps[len(parent.steps) :])


def distinct(paths: Sequence[Path]) -> list[Path]:
    """One path of every text, the first."""
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(path.text, path)
    return list(first.values())


SATURATED = 0.99
"""Score from which more search only finds what deceives the verifier, if all answers agree."""
SILENT = "the verifier gave no score for a whole level; its paths are completed without it"
LevelPlan = Callable[[list[Path], int], list[tuple[Path, int]]]
"""From the scored unfinished paths and the active budget to (path, children) of the next level."""
Rollout = int | Literal["end"]


@dataclass(frozen=True, slots=True)
class Search:
    """One search over one request.

    Args:
        aggregation: how a path's step scores become its value.
        guarded: drop steps that are no progress, and stop at saturation. A search that never chooses
            is not guarded: nothing exploits the verifier there.
    """

    session: Session
    request: Request
    steps: Steps
    aggregation: str
    guarded: bool

    @classmethod
    def open(
        cls,
        session: Session,
        request: Request,
        name: str,
        separator: str,
        step_tokens: int,
        aggregation: str,
        *,
        guarded: bool = True,
        exact: bool = False,
    ) -> Search:
        """Check before anything is spent that this search can run.

        Args:
            separator: where a step ends, `auto` as the verifier wants it; `\\n` may be written out.
            exact: an exact verifier will do, because the search completes paths before it judges them.

        Raises BadInput without a verifier that can judge steps, Unsupported on an engine that cannot
        continue a prefix.
        """
        verifier = verifier_of(session, name)
        if verifier.kind == "confidence" or (verifier.kind == "exact" and not exact):
            remedy = f"give {name} a reward model, or use best-of-n"
            raise BadInput("verifier", verifier.id, "judges whole solutions only", remedy)
        if session.runner.features.prefix is False:
            raise Unsupported(f"{name}: {session.tariff.model} cannot continue a prefix; use weighted-vote instead")
        how = aggregation_of(verifier, aggregation)
        separator = verifier.separator if separator == "auto" else separator.replace("\\n", "\n")
        if not separator:
            raise BadInput(f"{name}:separator", separator, "is empty", "give the text that ends a step")
        return cls(session, request, Steps(request, separator, step_tokens), how, guarded)

    def on(self, session: Session) -> Search:
        """The same search on a branch of its session."""
        return replace(self, session=session)

    @property
    def ended(self) -> bool:
        """Whether the budget, or the engine, has ended it."""
        return self.session.stopped is not None

    async def families(
        self, plans: Sequence[tuple[Path, int]], rollout: Rollout = 0
    ) -> tuple[list[list[Path]], Path | None]:
        """Scored children of every (path, count), without those that are no progress.

        Where that leaves no child at all, the second value is the best of those dropped.
        """
        families = await self.steps.advance(self.session, plans)
        kept = [
            [child for child in family if not self.guarded or worthwhile(parent, child)]
            for (parent, _), family in zip(plans, families, strict=True)
        ]
        flat = [child for family in kept for child in family]
        dropped = [child for family in families for child in family]
        if not flat and dropped:
            self.session.note("every step was pruned as too short or repeated; the best of them is completed")
            return [[] for _ in plans], max(await self.scored(dropped), key=lambda path: path.rank)
        scored = iter(await self.scored(flat, rollout))
        return [[next(scored) for _ in family] for family in kept], None

    async def scored(self, paths: Sequence[Path], rollout: Rollout = 0) -> list[Path]:
        """The paths with the verifier's values.

        Args:
            rollout: steps at temperature 0 that an unfinished path is continued by for its value, or
                `end` for a sampled continuation to its end.
        """
        seen = await self._previews(list(paths), rollout) if rollout else list(paths)
        scored_paths = []
        for path, end, value in zip(paths, seen, await self._values(seen), strict=True):
            preview = None if end is path else replace(end, value=value)
            scored_paths.append(replace(path, value=value, preview=preview))
        return scored_paths

    async def _values(self, paths: Sequence[Path]) -> list[float | None]:
        if not paths:
            return []
        try:
            candidates = [Candidate(path.steps) for path in paths]
            return await judged(self.session, self.request, candidates, self.aggregation)
        except BadInput as error:
            if all(len(path.steps) < 2 for path in paths):
                raise  # misused from the start, not a path that has become too long
            self.session.note(f"refused by the verifier: {error}")
            return [None] * len(paths)

    async def _previews(self, paths: list[Path], rollout: Rollout) -> list[Path]:
        """A path whose rollout fails stands for itself."""
        previews = list(paths)
        if rollout == "end":
            rounds, steps = 1, replace(self.steps, separator=None)
        else:
            rounds, steps = rollout, replace(self.steps, request=self.request.greedy)
        for _ in range(rounds):
            places = [place for place, path in enumerate(previews) if not path.finished]
            families = await steps.advance(self.session, [(previews[place], 1) for place in places])
            for place, family in zip(places, families, strict=True):
                previews[place] = family[0] if family else previews[place]
        return previews

    async def completed(self, paths: Sequence[Path]) -> list[Path]:
        """Unfinished paths written to their end, one call each, and scored."""
        families = await replace(self.steps, separator=None).advance(self.session, [(path, 1) for path in paths])
        return await self.scored([path for family in families for path in family])

    def saturated(self, done: Sequence[Path]) -> bool:
        """Whether at least two finished paths all give one answer and the best has nothing left to gain."""
        answers = {path.answer for path in done if path.answer is not None}
        best = max((path.value for path in done if path.value is not None), default=0.0)
        return self.guarded and len(done) > 1 and len(answers) == 1 and best >= SATURATED

    async def verdict(self, done: Sequence[Path], left: Sequence[Path] = ()) -> Verdict:
        """Weighted vote over the finished paths, after completing those that are left.

        Without a readable answer among them, the best partial path is read.
        """
        done = list(done)
        if left and not self.ended:
            done += await self.completed(left)
        if not done and self.session.runner.features.prefix is False:  # found out on the way
            raise Unsupported(f"{self.session.tariff.model} cannot continue a prefix; use weighted-vote instead")
        votes = Votes("confidence", self.session.random)
        readable = [path for path in done if path.answer is not None]
        for place, path in enumerate(path for path in done if path.answer is None):
            votes.add(path.sample(place))
        for place, weight in enumerate(weights(self.session, [path.value for path in readable])):
            votes.add(readable[place].sample(place), weight)
        if votes.weights or not left:
            return votes.winner()
        for path in sorted(left, key=lambda path: path.rank, reverse=True):
            seen = path.preview or path
            answer = seen.answer or (await self.session.read(self.request, seen.text)).answer
            if answer is not None:
                self.session.note("no path was finished; the answer is read from a partial one")
                return Verdict(answer, seen.text)
        best = max(left, key=lambda path: path.rank)
        return Verdict(None, best.text)


async def climb(search: Search, plan: LevelPlan, n: int, depth: int, rollout: Rollout = 0) -> Verdict:
    """Level by level: extend, score, release the budget of what has finished, let `plan` choose the rest."""
    done: list[Path] = []
    left: list[Path] = []
    plans = [(ROOT, n)]
    for _ in range(depth):
        families, fallback = await search.families(plans, rollout)
        if fallback is not None:
            return await search.verdict(done, [fallback])
        children = [child for family in families for child in family]
        done += [child for child in children if child.finished]
        live = [child for child in children if not child.finished]
        left = live if children else left
        if not live or search.ended or search.saturated(done):
            break
        if all(child.value is None for child in children):
            search.session.note(SILENT)
            break
        # N_active = N - completed: what has finished keeps its vote and frees its place.
        plans = [(path, count) for path, count in plan(live, n - len(done)) if count]
        left = [path for path, _ in plans]
    return await search.verdict(done, [] if search.saturated(done) else left)
