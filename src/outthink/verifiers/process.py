"""A verifier in a process of its own, for programs that serve: torch loads there, and what fails there fails alone.

Knows how the process is started, asked and ended; that what waits when it is free is judged together, in turns by
asker and request; and a bound on tokens that needs no question to it. Does not know what is opened: it names a
function.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import signal
import sys
import threading
import unicodedata
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Request
from outthink.core.sample import Candidate, split_steps
from outthink.http.fields import JsonDict
from outthink.verifiers.child import HEAD, frame
from outthink.verifiers.protocol import Aggregation, Kind, Score, Verifier, VerifierAway, question_of
from outthink.workers.fairness import asker
from outthink.workers.files import log_file

_SCRIPT = Path(__file__).with_name("child.py")
_PATIENT = {"OMP_WAIT_POLICY": "passive"}  # threads that wait sleep: spinning ruins what runs beside
_BATCH = 16_384
_HUNG = 600.0
_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
_AWAY = "its process has ended"
_log = logging.getLogger("outthink.verifiers")
_numbers = itertools.count(1)


@dataclass(eq=False, slots=True)
class AskedScores:
    """One call of `score`.

    Args:
        sizes: bounds on the candidates' tokens.
        asker: on whose behalf it came.
        done: when all scores are there; fails where there will be none.
        taken: candidates that are judged or being judged.
    """

    request: Request
    candidates: Sequence[Candidate]
    sizes: Sequence[int]
    asker: str | None
    done: asyncio.Future[None]
    scores: dict[int, Score] = field(default_factory=dict)
    taken: int = 0

    def fail(self, line: str) -> None:
        """There will be no scores; those of which no candidate was taken have cost nothing."""
        error = EngineError(line) if self.taken else VerifierAway(line)
        if not self.done.done():
            self.done.set_exception(error)


class JudgingLine:
    """What waits to be judged: askers take turns, of one asker its requests, and a turn is one candidate.

    It holds no copies: what waits is the requests' own text.
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[str | None, OrderedDict[int, deque[AskedScores]]] = OrderedDict()

    def join(self, asked: AskedScores) -> None:
        """Wait, behind what the same request has asked before."""
        requests = self._turns.setdefault(asked.asker, OrderedDict())
        requests.setdefault(id(asked.request), deque()).append(asked)

    def leave(self, asked: AskedScores) -> None:
        """Wait no longer."""
        requests = self._turns.get(asked.asker, OrderedDict())
        line = requests.get(id(asked.request), deque())
        if asked not in line:
            return
        line.remove(asked)
        if not line:
            del requests[id(asked.request)]
        if not requests:
            del self._turns[asked.asker]

    def take(self, most: int) -> list[tuple[AskedScores, int]]:
        """The next candidates, each by its place in what was asked: one at least, of all others `most` tokens."""
        taken: list[tuple[AskedScores, int]] = []
        left = most
        while self._turns:
            name, requests = next(iter(self._turns.items()))
            number, line = next(iter(requests.items()))
            asked = line[0]
            left -= asked.sizes[asked.taken]
            if taken and left < 0:
                break
            taken.append((asked, asked.taken))
            asked.taken += 1
            requests.move_to_end(number)
            self._turns.move_to_end(name)
            if asked.taken == len(asked.candidates):
                self.leave(asked)
        return taken

    def fail(self, line: str) -> None:
        """Nothing that waits will be judged."""
        for requests in self._turns.values():
            for asked in itertools.chain(*requests.values()):
                asked.fail(line)
        self._turns.clear()


class ProcessVerifier(Verifier):
    """A verifier that a child process opens and runs. `prepare` starts it, also again after it has ended.

    The child gets texts alone: a verifier that reads samples' log-probabilities or gold answers judges nothing there.

    Args:
        opener: `package.module:function` that makes a verifier of `source`, called in the child.
        batch: bound on the tokens that are judged together.
        hung: seconds after which a batch that is not judged ends the process.
    """

    id: str
    kind: Kind
    model: str
    parameters: int | None
    separator: str
    aggregation: Aggregation
    notes: tuple[str, ...]

    def __init__(self, opener: str, source: str, *, batch: int = _BATCH, hung: float = _HUNG) -> None:
        self._opener, self._source, self._batch, self._hung = opener, source, batch, hung
        self.id = self.model = source  # until it has told
        self._fixed = self._each = 0
        # Of the last request: a long question beyond ASCII takes a while, and its candidates are bounded one by one.
        self._sized: tuple[Request | None, int] = (None, 0)
        self._line, self._came = JudgingLine(), asyncio.Event()
        self._child: VerifierChild | None = None
        self._starting: asyncio.Task[None] | None = None
        self._judging: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether its process runs."""
        return self._child is not None

    @property
    def pid(self) -> int | None:
        """The child process, None while there is none."""
        return None if self._child is None else self._child.pid

    def bound(self, request: Request, candidate: Candidate) -> int:
        """As many tokens as bytes, and what the verifier's format adds; the child is not asked."""
        steps = len(candidate.steps)
        if self.kind == "outcome":  # which may be read in steps all the same
            steps = max(steps, len(split_steps(candidate.text, self.separator)))
        if not self._fixed and not self._each:
            return 0  # no model runs
        if self._sized[0] is not request:
            self._sized = request, _bytes(question_of(request))
        return self._fixed + self._each * steps + self._sized[1] + _bytes(candidate.text)

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """See the protocol; VerifierAway where its process has ended, until `prepare` has started another."""
        if self._child is None:
            raise VerifierAway(_AWAY)
        if not candidates:
            return []
        sizes = [self.bound(request, candidate) for candidate in candidates]
        done = asyncio.get_running_loop().create_future()
        asked = AskedScores(request, candidates, sizes, asker.get(), done)
        self._line.join(asked)
        self._came.set()
        try:
            await done
        finally:
            self._line.leave(asked)
        return [asked.scores[place] for place in range(len(candidates))]

    async def prepare(self) -> None:
        """Start the process where there is none. Raises BadInput or EngineError where nothing can be opened."""
        if self._child is not None:
            return
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen
        await asyncio.shield(self._starting)

    async def aclose(self) -> None:
        """End the process; `prepare` starts another."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._child is not None:
            self._child.kill(wanted=True)
        if self._judging is not None:
            await asyncio.gather(self._judging, return_exceptions=True)  # not cancelled: it sees to the process's end
        self._starting = self._judging = None

    async def _start(self) -> None:
        child = await VerifierChild.start()
        try:
            first = {"opener": self._opener, "source": self._source, **child.about_parent}
            told = await child.exchange(first)
            if told is None:
                line = f"verifier {self._source}: its process {await child.end()} before it was ready; see {child.log}"
                raise EngineError(line, fatal=True)
            if (error := told.get("error")) is not None:
                raise BadInput(*error["bad"]) if "bad" in error else EngineError(error["failed"], fatal=True)
        except BaseException:
            await child.end()
            raise
        self.id, self.kind, self.model, self.parameters = (told[n] for n in ("id", "kind", "model", "parameters"))
        self.separator, self.aggregation, self.notes = told["separator"], told["aggregation"], tuple(told["notes"])
        self._fixed, self._each = told["fixed"], told["each"]
        self._came = asyncio.Event()  # of this event loop
        self._child, self._judging = child, asyncio.create_task(self._judge(child))

    async def _judge(self, child: VerifierChild) -> None:
        """Have judged what waits, until the process ends."""
        ended = asyncio.create_task(child.wait())
        ended.add_done_callback(lambda _: self._came.set())
        batch: list[tuple[AskedScores, int]] = []
        try:
            while not ended.done():
                self._came.clear()
                if batch := self._line.take(self._batch):
                    if not await self._exchange(child, batch):
                        break
                else:
                    await self._came.wait()
        finally:
            self._child = None
            for asked, _ in batch:
                asked.fail(_AWAY)
            self._line.fail(_AWAY)
            ended.cancel()
            how = await child.end()
            if not child.wanted:
                _log.error("the verifier %s: its process %s; see %s", self._source, how, child.log)

    async def _exchange(self, child: VerifierChild, batch: Sequence[tuple[AskedScores, int]]) -> bool:
        """Have a batch judged; False where the process has ended, or has hung."""
        groups: dict[AskedScores, list[int]] = {}
        for asked, place in batch:
            groups.setdefault(asked, []).append(place)
        work = [
            {
                "messages": [(message.role, message.text) for message in asked.request.asked],
                "candidates": [asked.candidates[place].steps for place in places],
            }
            for asked, places in groups.items()
        ]
        try:
            async with asyncio.timeout(self._hung):
                reply = await child.exchange({"work": work})
        except TimeoutError:
            _log.error("the verifier %s: its process hangs, and is ended; see %s", self._source, child.log)
            child.kill(wanted=True)
            reply = None
        if reply is None:
            return False
        for (asked, places), outcome in zip(groups.items(), reply["groups"], strict=True):
            if (error := outcome.get("error")) is not None:
                asked.fail(error["failed"] if "failed" in error else str(BadInput(*error["bad"])))
                self._line.leave(asked)
                continue
            for place, score in zip(places, outcome["scores"], strict=True):
                asked.scores[place] = Score(**{**score, "steps": tuple(score["steps"])})
            if len(asked.scores) == len(asked.candidates) and not asked.done.done():
                asked.done.set_result(None)
        return True


class VerifierChild:
    """The process, between its start and its end."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process, self.log, self.pid = process, log, process.pid
        self.wanted = False
        """Its end was asked for."""
        main = threading.current_thread() is threading.main_thread()
        self.about_parent = {"parent": os.getpid(), "signalled": main}

    @classmethod
    async def start(cls) -> VerifierChild:
        """Start it. Raises EngineError."""
        try:
            log = log_file("verifier", f"{os.getpid()}-{next(_numbers)}")
            with log.open("wb") as errors:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", str(_SCRIPT)),
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=errors,
                    env={**_PATIENT, **os.environ},
                )
        except OSError as error:
            where = error.filename or sys.executable
            raise EngineError(f"cannot start a verifier's process: {where}: {error.strerror}", fatal=True) from error
        return cls(process, log)

    async def exchange(self, message: JsonDict) -> JsonDict | None:
        """Its reply, None where it has ended."""
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None
        assert reader is not None
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(frame(message))
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(HEAD), "big")
            reply: JsonDict = json.loads(await reader.readexactly(size))
            return reply
        return None

    async def wait(self) -> None:
        """Until it has ended."""
        await self._process.wait()

    def kill(self, *, wanted: bool = False) -> None:
        """End it now: nothing is to be saved."""
        self.wanted = self.wanted or wanted
        if self._process.returncode is None:
            # Not by `Process.kill`: that may read how it ended, which asyncio then reports as 255.
            with suppress(ProcessLookupError):  # it ended, and nobody has told us yet
                os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> str:
        """End it, if it has not ended by itself; returns how it did, for people."""
        self.kill()
        code = await self._process.wait()
        self._process._transport.close()  # type: ignore[attr-defined]  # else its pipes wait for the collector
        if code == -signal.SIGKILL:
            return "was killed (out of memory?)"
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


def _bytes(text: str) -> int:
    """UTF-8 bytes, of which no tokeniser makes more tokens; in whichever normal form it may read the text."""
    if text.isascii():
        return len(text)
    forms = text, *(unicodedata.normalize(form, text) for form in _FORMS)
    return max(len(form.encode(errors="surrogatepass")) for form in forms)
