"""Samples that are judged before a strategy sees them.

Knows: that what has finished is judged at once, and together with what finished at the same moment; that it counts as
in flight until then; how much of the budget is kept aside so that nothing is bought that could not be judged. Does not
know how a verifier judges, or what its scores are used for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from outthink.core.errors import BadInput, OutthinkError
from outthink.core.sample import Candidate, Judged, Sample
from outthink.economics.tariff import Tariff
from outthink.session.calls import CallReservation, RunningCall
from outthink.session.scoring import Judgement, bounds_of, check_bounds, cut, in_one_line, note_refusal, tariff_of
from outthink.session.stream import Stream
from outthink.verifiers.protocol import Score, Verifier

Finished = tuple[RunningCall, Sample]
RATIO = 1.25
"""Tokens of a verifier for each token of a sample, prompt included, where nobody knows: it reads all of that, and a
quarter more for a template of its own and a tokeniser that is not the model's."""


class JudgedStream(Stream):
    """A stream whose samples carry the verifier's step scores (`scores`) and its tokens (`verifier_tokens`).

    A sample without a readable answer cannot vote: it is not judged, and nothing is paid for that. One that the
    verifier or the budget leaves without a score comes without any, as do those that the end of the stream overtakes;
    it votes with the mean weight. A cached sample that carries scores keeps them.

    Args:
        judged: True, or what is known of the verifier's use of tokens.
        stream: what a `Stream` is made of.
    """

    def __init__(self, verifier: Verifier, judged: bool | Judged, *stream: Any) -> None:
        super().__init__(*stream)
        session = self.session
        self._verifier, self._tariff = verifier, tariff_of(session, verifier)
        if verifier.parameters != 0:
            check_bounds(session, verifier, bounds_of(verifier, self._tariff, 1))
        if not session.account.unlimited:
            self.aside = _rates(judged, verifier, self._tariff)
        self._kept: dict[int, CallReservation] = {}
        """What is kept aside for judging, by the call's place."""
        self._finished: list[Finished] = []
        self._under_way: dict[Judgement, list[Finished]] = {}
        self._misuse: OutthinkError | None = None

    def _launch(self, max_tokens: int, bound: int) -> None:
        if self.aside is not None:
            tokens, usd, joules = (None if rate is None else rate * (bound + max_tokens) for rate in self.aside)
            # Tokens are whole; rounding must not take one away that was complete.
            kept = CallReservation(int((tokens or 0.0) + 1e-9), usd, joules)
            self._kept[self.launched] = self.session.account.hold(kept)
        super()._launch(max_tokens, bound)

    def _take(self) -> Sample | None:
        if self._misuse is not None:
            raise self._misuse
        return super()._take()

    def deliver(self, running: RunningCall, sample: Sample | None) -> None:
        """A call has ended; its sample is judged before it may be taken."""
        if sample is None or (running.started is None and sample.scores):  # of the cache
            self._give_back(running)
            super().deliver(running, sample)
        elif self.closed or sample.answer is None:
            self._give_back(running)
            super().deliver(running, _judged(sample, None))
        else:
            self.in_flight[running.place] = running
            if not self._finished:
                self.session.runner.soon(self._judge)
            self._finished.append((running, sample))

    def _judge(self) -> None:
        """Have judged what has finished, all at once."""
        together: list[Finished] = []
        candidates: list[Candidate] = []
        reserved: list[CallReservation] = []
        finished, self._finished = self._finished, []
        for running, sample in finished:
            candidate = cut(sample, self._verifier, self.before)
            bounds = self._reserved(running, candidate)
            if bounds is None:
                super().deliver(running, _judged(sample, None))
            else:
                together.append((running, sample))
                candidates.append(candidate)
                reserved.append(bounds)
        if not together:
            return
        account = self.session.account
        if not account.unlimited:
            for bounds in reserved:  # one entry replaces all of them
                account.settle(bounds, None)
        bounds = reserved[0] if len(reserved) == 1 else _summed(reserved)
        judgement = Judgement(self.session, self.request, candidates, bounds, self._verifier, self._tariff)
        self._under_way[judgement] = together
        judgement.then(lambda: self._collect(judgement))

    def _reserved(self, running: RunningCall, candidate: Candidate) -> CallReservation | None:
        """What was kept aside becomes what judging can take; None, with a note, for one that cannot be judged."""
        session, verifier = self.session, self._verifier
        kept = self._give_back(running)
        if not candidate.steps:
            session.note(f"{verifier.id}: an empty text has no score")
            return None
        try:
            tokens = verifier.bound(self.request, candidate)
        except Exception as error:  # noqa: BLE001 - whatever it dies of, the samples that are paid for are kept
            note_refusal(session, verifier, error.problem if isinstance(error, BadInput) else in_one_line(error))
            return None
        bounds = bounds_of(verifier, self._tariff, tokens)
        account = session.account
        if account.unlimited:
            return bounds
        covered = kept is not None and all((need or 0) <= (held or 0) for need, held in zip(bounds, kept, strict=True))
        if covered or account.has_room(bounds):
            return account.hold(bounds)
        session.note(f"{verifier.id}: some samples are not judged: the budget has no room for it")
        return None

    def _give_back(self, running: RunningCall) -> CallReservation | None:
        """End the keeping aside for a call; what was kept."""
        kept = self._kept.pop(running.place, None)
        if kept is not None:
            self.session.account.settle(kept, None)
        return kept

    def _collect(self, judgement: Judgement) -> None:
        """Settle what has been judged, or is judged no longer, and let its samples be taken."""
        together = self._under_way.pop(judgement)
        judgement.settle()
        self._misuse = self._misuse or judgement.misuse
        for (running, sample), score in zip(together, judgement.scores(), strict=True):
            super().deliver(running, _judged(sample, score))

    def close(self) -> None:
        """Cancel what is in flight and what is being judged; samples that have finished can still be taken."""
        self.closed = True
        for judgement in list(self._under_way):
            self._collect(judgement)
        finished, self._finished = self._finished, []
        for running, sample in finished:
            super().deliver(running, _judged(sample, None))
        for kept in self._kept.values():
            self.session.account.settle(kept, None)
        self._kept.clear()
        super().close()


def _rates(judged: bool | Judged, verifier: Verifier, tariff: Tariff) -> CallReservation | None:
    """What is kept aside for each token of a call's bound; None for nothing."""
    ratio = judged.ratio if isinstance(judged, Judged) else None
    if ratio is None:
        ratio = 0.0 if verifier.parameters == 0 else RATIO
    if not ratio:
        return None
    _, usd, joules = bounds_of(verifier, tariff, 1000)  # prices are told by the million
    each = ratio / 1000
    return CallReservation(ratio, usd and each * usd, joules and each * joules)


def _judged(sample: Sample, score: Score | None) -> Sample:
    """The sample with this score and no other."""
    scores, tokens = ((), None) if score is None else (score.steps, score.tokens)
    if scores == sample.scores and tokens == sample.verifier_tokens:
        return sample  # as it was recorded
    return replace(sample, scores=scores, verifier_tokens=tokens)


def _summed(bounds: list[CallReservation]) -> CallReservation:
    """Of several; a currency that one of them is not bounded in, they are not bounded in together."""
    tokens, usd, joules = (None if None in amounts else sum(amounts) for amounts in zip(*bounds, strict=True))
    return CallReservation(tokens or 0, usd, joules)
