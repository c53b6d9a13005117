"""Learns which arm to take from what came of earlier choices.

Knows: the log (JSON lines, durable, with several writers) and the posterior that follows from it, line by line;
replaying the log gives the same state as having lived through it. Does not know how an arm is run or who says that
an answer was right.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from outthink.controller.online.arms import Arm, Posterior, Settings
from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput
from outthink.core.paths import private_file, private_folder

# The append-only log of choices and outcomes. Nothing is ever deleted or changed: an undo is a line, too.

Kind = Literal["policy", "choice", "cost", "outcome", "revert"]
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One event.

    Args:
        n: its number, counted from 0 without gaps.
        kind: `policy` opens the log; `choice` precedes the request's first call; `cost` and `outcome`
            follow; `revert` forgets the outcomes after line `to`.
        time: seconds since 1970, UTC.
        request, policy: their identifiers.
        arm, propensity: what was taken and how likely that was, repeated on later lines of the request.
        outcome: whether the answer was right, None where that is not known (yet).
        cost: what the request cost, in the unit of the arms' costs; None where unknown.
        to: number of the last line whose outcome still counts (`revert` only).
        about: arms and settings (`policy` only).
    """

    n: int = -1
    kind: Kind
    time: float
    policy: str
    request: str | None = None
    arm: str | None = None
    propensity: float | None = None
    outcome: bool | None = None
    cost: float | None = None
    to: int | None = None
    about: dict[str, Any] | None = None
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def text(self) -> str:
        """The line as it is written, without its end."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if name not in ("to", "about") or value is not None}
        )


@dataclass(frozen=True, slots=True)
class _LogHeader:
    """What a log begins with."""

    arms: tuple[Arm, ...]
    settings: Settings


class Log:
    """One file; several processes may append to it.

    `torn` holds what a crash has left of lines: they are ignored, kept in the file, and `notes` says so.
    Raises BadInput for a file that cannot be read or written, or that lacks a line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn: list[str] = []
        self.count = 0
        self._offset = 0
        try:
            private_folder(path.parent)
            self._file = os.open(private_file(path), os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise BadInput("log", str(path), f"cannot be opened ({error.strerror})", "check the path") from None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should be told."""
        if not self.torn:
            return ()
        return (f"{self.path}: {len(self.torn)} torn lines (a writer was killed) are ignored",)

    def read(self) -> Iterator[LogLine]:
        """Lines that have come since the last read."""
        size = os.fstat(self._file).st_size
        content = os.pread(self._file, size - self._offset, self._offset)
        lines, end, rest = content.rpartition(b"\n")
        self._offset += len(lines) + len(end)
        # What had no end at the last read is read again, from its start.
        self.torn = [text for text in self.torn if text.endswith("\n")]
        for text in lines.split(b"\n") if end else ():
            if (line := self._parsed(text)) is not None:
                yield line
        if rest:
            self.torn.append(rest.decode(errors="replace"))  # or another writer is not finished yet

    def append(self, make: Callable[[], LogLine], apply: Callable[[LogLine], None]) -> LogLine:
        """Apply what others have written meanwhile, then write one line; it is on disk when this returns.

        Args:
            make: the line to write, made when no other writer can come between.
            apply: receives the lines of others, then this one.
        """
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            for line in self.read():
                apply(line)
            if os.fstat(self._file).st_size > self._offset:  # torn: under the lock, its writer is gone
                os.write(self._file, b"\n")
                for line in self.read():
                    apply(line)
            line = replace(make(), n=self.count)
            data = line.text().encode() + b"\n"
            if os.write(self._file, data) != len(data):
                raise BadInput("log", str(self.path), "is on a full disk", "make room; the torn line is ignored")
            os.fsync(self._file)  # a choice is on disk before the request's first call (docs/contracts.md)
            # Applied as it was read back, so that living through a log and replaying it give the same state.
            for written in self.read():
                apply(written)
            return line
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _parsed(self, text: bytes) -> LogLine | None:
        """A line, None for a torn one."""
        from outthink.validation import Border, is_json, read_json

        border = Border(source=f"log {self.path}: line {self.count}", remedy="give a file of --learn")
        try:
            line = read_json(LogLine, text, border)
        except BadInput:
            if is_json(text):
                raise
            self.torn.append(text.decode(errors="replace") + "\n")
            return None
        if line.n != self.count:
            raise BadInput(
                "log", str(self.path), f"lacks line {self.count}", "restore it from a copy; lines are never deleted"
            )
        self.count += 1
        return line


class OutcomeList(NamedTuple):
    """The outcomes that count after a line: the last one, and those before it."""

    line: LogLine
    before: OutcomeList | None


class Choice(NamedTuple):
    """The arm for a request, and the probability with which it was drawn."""

    arm: str
    propensity: float


class ArmBelief(NamedTuple):
    """What is believed of an arm now: mean accuracy and cost, and the probability that it is taken next."""

    arm: Arm
    mean: float
    cost: float
    propensity: float


class Learner:
    """A log and what follows from it.

    Args:
        path: the log; made if it does not exist and `arms` are given.
        policy: identifier of the calibrated policy that the arms come from.
        arms: what may be done; None to take those of the log.
        settings: how to learn; None to take those of the log, or the defaults.
        clock: seconds since 1970.

    Raises BadInput for a log of another policy, other arms or other settings, or a damaged one.
    """

    def __init__(
        self,
        path: Path,
        policy: str | None = None,
        arms: Sequence[Arm] | None = None,
        settings: Settings | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if arms is None and not path.is_file():
            raise BadInput("log", str(path), "does not exist", "learn first, or check the path")
        self._clock = clock
        self._log = Log(path)
        self.policy = ""
        self.posterior: Posterior | None = None
        self.choices: dict[str, LogLine] = {}
        self.costs: dict[str, float] = {}
        self.outcomes: dict[str, LogLine] = {}
        # The outcomes that count after each line: the lists share their tails, so any line is cheap to go back to.
        self._effective: list[OutcomeList | None] = []
        try:
            self._open(policy, arms, settings)
        # Nobody else can close the file of a learner that was never made.
        except BaseException:
            self._log.close()
            raise

    def _open(self, policy: str | None, arms: Sequence[Arm] | None, settings: Settings | None) -> None:
        for line in self._log.read():
            self._apply(line)
        if self.posterior is None:
            if arms is None:
                raise BadInput("log", str(self._log.path), "is empty", "learn first, or check the path")
            fresh = Posterior(arms, settings)
            about = {"schema_version": SCHEMA, **{name: fresh.state()[name] for name in ("arms", "settings")}}
            self._append("policy", about=about, policy=policy or "")
        assert self.posterior is not None
        asked = {
            "policy": (policy, self.policy),
            "arms": (None if arms is None else tuple(arms), self.posterior.arms),
            "settings": (settings, self.posterior.settings),
        }
        for name, (wanted, stored) in asked.items():
            if wanted is not None and wanted != stored:
                raise BadInput(
                    "log",
                    str(self._log.path),
                    f"was learned with other {name}",
                    "give another file, or the same policy",
                )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told about the log."""
        return self._log.notes

    @property
    def count(self) -> int:
        """Lines so far."""
        return self._log.count

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What may be done."""
        return self._learned().arms

    @property
    def fallback(self) -> bool:
        """Whether no arm's calibrated interval meets the target, so that the most accurate one is taken."""
        return self._learned().fallback

    def beliefs(self) -> tuple[ArmBelief, ...]:
        """Of every arm, in their order."""
        learned = self._learned()
        chances = learned.propensities()
        betas = [learned.beta(i) for i in range(len(learned.arms))]
        return tuple(
            ArmBelief(arm, a / (a + b), learned.cost(i), chances[arm.name])
            for i, (arm, (a, b)) in enumerate(zip(learned.arms, betas, strict=True))
        )

    def choose(self, request: str) -> Choice:
        """Take an arm for a request; the choice is on disk when this returns. Asked twice, it is the same."""

        def make() -> LogLine:
            arm, propensity = self._learned().choose(request)
            return self._line("choice", request=request, arm=arm, propensity=propensity)

        if request not in self.choices:
            self._log.append(make, self._apply)
        made = self.choices[request]
        return Choice(made.arm or "", made.propensity or 0.0)

    def spent(self, request: str, cost: float) -> None:
        """What a request has cost, in the unit of the arms' costs."""
        _check(cost)
        self._about(request, "cost", cost=cost)

    def learn(self, request: str, right: bool, cost: float | None = None) -> bool:
        """Learn whether the answer to a request was right; False where that teaches nothing.

        Only choices with a known propensity teach: what was not drawn by this policy may have been
        picked for its outcome. Raises BadInput for a request that is not in the log, or whose
        outcome is known already (undo it first).
        """
        known = self.outcomes.get(request)
        if known is not None:
            word = "right" if known.outcome else "wrong"
            raise BadInput("request", request, f"has the outcome {word} already", "undo that line first")
        cost = self.costs.get(request) if cost is None else cost
        _check(cost)
        return _teaches(self._about(request, "outcome", outcome=right, cost=cost))

    def revert(self, to: int) -> None:
        """Forget all outcomes after line `to`. This is a line itself: reverting to before it takes it back."""
        if not 0 <= to < self.count:
            raise BadInput("undo", to, "is no line of the log", f"give a number from 0 to {self.count - 1}")
        self._append("revert", to=to)

    def state(self) -> JsonObject:
        """Everything that decides; equal for a log that was lived through and one that was replayed."""
        return {
            "policy": self.policy,
            **self._learned().state(),
            "choices": {request: [line.arm, line.propensity] for request, line in self.choices.items()},
            "outcomes": {request: line.outcome for request, line in self.outcomes.items()},
            "spent": dict(self.costs),
        }

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _learned(self) -> Posterior:
        if self.posterior is None:
            raise BadInput("log", str(self._log.path), "does not begin with a policy", "give a file of --learn")
        return self.posterior

    def _about(self, request: str, kind: str, **fields: Any) -> LogLine:
        made = self.choices.get(request)
        if made is None:
            raise BadInput("request", request, "is not in the log", "give the id that the receipt names")
        return self._append(kind, request=request, arm=made.arm, propensity=made.propensity, **fields)

    def _append(self, kind: str, **fields: Any) -> LogLine:
        return self._log.append(lambda: self._line(kind, **fields), self._apply)

    def _line(self, kind: str, **fields: Any) -> LogLine:
        fields.setdefault("policy", self.policy)
        return LogLine(kind=kind, time=self._clock(), **fields)  # type: ignore[arg-type]

    def _apply(self, line: LogLine) -> None:
        """One line of the log, lived or replayed."""
        from outthink.validation import Border, read_values

        # Two processes may have opened the same empty log: the first policy holds.
        if line.kind == "policy" and self.posterior is None:
            about = line.about or {}
            if about.get("schema_version") != SCHEMA:
                raise BadInput("log schema_version", about.get("schema_version"), f"is not {SCHEMA}", "learn anew")
            self.policy = line.policy
            border = Border(source=f"log {self._log.path}: about", remedy="give a file of --learn")
            header = read_values(_LogHeader, about, border)
            self.posterior = Posterior(header.arms, header.settings)
        self._learned()
        effective = self._effective[-1] if self._effective else None
        if line.kind == "choice" and line.request is not None:
            self.choices.setdefault(line.request, line)  # two processes may have drawn for it: the first draw holds
        elif line.kind == "cost" and line.request is not None and line.cost is not None:
            self.costs[line.request] = line.cost
        elif line.kind == "outcome" and line.request is not None and line.request not in self.outcomes:
            effective = OutcomeList(line, effective)
            self._count(line)
        elif line.kind == "revert" and line.to is not None:
            if not 0 <= line.to < len(self._effective):
                raise BadInput(f"log {self._log.path}: to", line.to, "is no line before", "give a file of --learn")
            effective = self._effective[line.to]
            self._rebuild(effective)
        self._effective.append(effective)

    def _count(self, line: LogLine) -> None:
        self.outcomes[line.request or ""] = line
        if _teaches(line):
            self._learned().learn(line.arm or "", bool(line.outcome), line.cost)

    def _rebuild(self, effective: OutcomeList | None) -> None:
        old = self._learned()
        self.posterior, self.outcomes = Posterior(old.arms, old.settings), {}
        lines = []
        while effective is not None:
            lines.append(effective.line)
            effective = effective.before
        for line in reversed(lines):
            self._count(line)


def _teaches(line: LogLine) -> bool:
    """Whether the outcome is known, and drawn with a known probability."""
    return line.outcome is not None and line.arm is not None and 0 < (line.propensity or 0.0) <= 1


def _check(cost: float | None) -> None:
    if cost is not None and not (math.isfinite(cost) and cost >= 0):
        raise BadInput("cost", cost, "is no cost", "give a number from 0")
