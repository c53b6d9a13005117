"""A verifier in a child process: batches over requests, turns, cancelling, and how the process begins and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from outthink.controller.verifier import open_beside
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Message, Request
from outthink.core.sample import Candidate
from outthink.verifiers import process
from outthink.verifiers.child import frame
from outthink.verifiers.process import _SCRIPT, ProcessVerifier
from outthink.verifiers.protocol import Score, Verifier, VerifierAway, question_of
from outthink.workers.fairness import asker
from support.scripted_verifiers import (
    DEADLY,
    OF_AN_ARRAY,
    SWALLOWED,
    TOO_LONG,
    ScriptedVerifier,
    WaitingAt,
    importable,
    judged,
    make_gate,
    process_verifier,
    tokens,
)
from support.waiting import eventually, until

A, B = Request.of("What is two and two?"), Request.of("And three?")


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> None:
    importable(monkeypatch)


@asynccontextmanager
async def ready(folder: Path, opener: str = "ScriptedVerifier", **settings) -> AsyncIterator[ProcessVerifier]:
    verifier = process_verifier(folder, opener, **settings)
    try:
        await verifier.prepare()
        yield verifier
    finally:
        await verifier.aclose()


def texts(*ends: object) -> list[Candidate]:
    return [Candidate((f"it is {end}",)) for end in ends]


def kill(verifier: ProcessVerifier) -> None:
    """As the system does where memory runs out."""
    assert verifier.pid is not None
    os.kill(verifier.pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("opener", ["ScriptedVerifier", "SingleVerifier"])
def test_it_is_what_the_child_has_opened_and_scores_as_that_does(tmp_path: Path, opener: str) -> None:
    here = ScriptedVerifier(str(tmp_path))

    async def main() -> tuple[ProcessVerifier, list[Score]]:
        async with ready(tmp_path, opener) as verifier:
            assert verifier.ready
            return verifier, await verifier.score(A, texts(1, 9))

    verifier, scores = asyncio.run(main())
    names = ("id", "kind", "model", "parameters", "separator", "aggregation", "top_logprobs", "notes")
    assert [getattr(verifier, name) for name in names] == [getattr(here, name) for name in names]
    assert scores == here.judge([(A, texts(1, 9))])[0]
    assert [score.prompt_tokens for score in scores] == [8, 8]
    assert not verifier.ready
    assert asyncio.run(ready_again(verifier)) == []


async def ready_again(verifier: Verifier) -> list[Score]:
    """In another event loop."""
    await verifier.prepare()
    try:
        return await verifier.score(A, [])
    finally:
        await verifier.aclose()


async def asked(folder: Path, verifier: Verifier, *calls: tuple[str, Request, list[Candidate]]) -> list[asyncio.Task]:
    """Calls that came while the child was busy with another, in this order."""
    gate = make_gate(folder)
    first = asyncio.create_task(verifier.score(A, texts(0)))
    async with WaitingAt(gate):
        tasks = []
        for name, request, candidates in calls:
            asker.set(name)
            tasks.append(asyncio.create_task(verifier.score(request, candidates)))
            await asyncio.sleep(0)
        gate.unlink()
    await first
    return tasks


@pytest.mark.parametrize("opener", ["ScriptedVerifier", "SingleVerifier"])
def test_what_waited_is_judged_together(tmp_path: Path, opener: str) -> None:
    async def main() -> None:
        async with ready(tmp_path, opener) as verifier:
            tasks = await asked(tmp_path, verifier, ("k", A, texts(1, 2, 3)), ("k", B, texts(4)), ("l", B, texts(5, 6)))
            found = await asyncio.gather(*tasks)
        assert [[score.steps[0] for score in scores] for scores in found] == [[0.1, 0.2, 0.3], [0.4], [0.5, 0.6]]

    asyncio.run(main())
    _, *batches = judged(tmp_path)
    if opener == "ScriptedVerifier":
        assert len(batches) == 1
    assert sorted(len(group) for batch in batches for group in batch) == [1, 2, 3]


def test_askers_and_their_requests_take_turns(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready(tmp_path) as verifier:
            size = verifier.bound(A, texts(100)[0])
            verifier._batch = 4 * size
            other = Request.of("What is two and two!")
            calls = ("k", A, texts(*range(100, 164))), ("k", other, texts(1)), ("l", A, texts(2))
            await asyncio.gather(*await asked(tmp_path, verifier, *calls))

    asyncio.run(main())
    _, second, third, *rest = judged(tmp_path)
    # One of each asker, then the other request of the first; the 64 go on behind them.
    assert second == [["it is 100", "it is 101"], ["it is 2"], ["it is 1"]]
    assert third == [[f"it is {number}" for number in range(102, 106)]]
    assert sum(len(batch[0]) for batch in rest) == 64 - 6


def test_what_is_cancelled_waits_no_longer(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready(tmp_path) as verifier:
            gate = make_gate(tmp_path)
            first = asyncio.create_task(verifier.score(A, texts(0)))
            async with WaitingAt(gate):
                left = asyncio.create_task(verifier.score(A, texts(1, 2)))
                stays = asyncio.create_task(verifier.score(B, texts(3)))
                await asyncio.sleep(0)
                left.cancel()
                await asyncio.gather(left, return_exceptions=True)
                first.cancel()  # it is being judged, which nothing can break off
                await asyncio.gather(first, return_exceptions=True)
                gate.unlink()
            assert (await stays)[0].steps == (0.3,)
            assert not verifier._line._turns

    asyncio.run(main())
    assert judged(tmp_path) == [[["it is 0"]], [["it is 3"]]]


def test_one_that_cannot_be_judged_costs_no_other_its_score(tmp_path: Path) -> None:
    async def main() -> list[object]:
        async with ready(tmp_path) as verifier:
            long = [Candidate((f"{TOO_LONG} 1",)), *texts(7), Candidate(("no text \ud800 1",))]
            calls = ("k", A, long), ("k", B, [Candidate((f"{DEADLY} 1",))]), ("l", B, texts(8))
            tasks = await asked(tmp_path, verifier, *calls)
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    refused, failed, fine = asyncio.run(main())
    assert isinstance(refused, list)
    assert [score.steps for score in refused] == [(), (0.7,), ()]
    assert refused[0].message == "is too long"
    assert "surrogates not allowed" in refused[2].message
    assert isinstance(failed, EngineError)
    assert str(failed) == "RuntimeError: a kernel is missing"
    assert isinstance(fine, list)
    assert fine[0].steps == (0.8,)


def test_odd_scores_do_not_end_it(tmp_path: Path) -> None:
    async def main() -> list[object]:
        async with ready(tmp_path) as verifier:
            pid = verifier.pid
            lost, array = (Candidate((f"{what} 5",)) for what in (SWALLOWED, OF_AN_ARRAY))
            calls = ("k", A, [lost, *texts(7)]), ("k", B, [array]), ("l", B, texts(8))
            found = await asyncio.gather(*await asked(tmp_path, verifier, *calls), return_exceptions=True)
            assert (verifier.ready, verifier.pid) == (True, pid)
            return list(found)

    lost, array, fine = asyncio.run(main())
    assert str(lost) == "it gave [1] scores for [2] candidates"
    assert array == [Score((0.5,), 7)]
    assert isinstance(fine, list)
    assert fine[0].steps == (0.8,)


def test_signals_are_its_parents(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready(tmp_path) as verifier:
            gate = make_gate(tmp_path)
            running = asyncio.create_task(verifier.score(A, texts(3)))
            async with WaitingAt(gate):
                assert verifier.pid is not None
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    os.kill(verifier.pid, number)
                gate.unlink()
            assert (await running)[0].steps == (0.3,)

    asyncio.run(main())


def test_a_message_that_breaks_off_ends_it(tmp_path: Path) -> None:
    first = {"opener": "support.scripted_verifiers:ScriptedVerifier", "source": str(tmp_path)}
    content = frame({**first, "parent": os.getpid(), "signalled": False}) + frame({"work": []})[:-3]
    command = [sys.executable, "-P", str(_SCRIPT)]
    ended = subprocess.run(command, input=content, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_how_it_ended_is_logged_unless_it_was_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with ready(tmp_path) as verifier:
            kill(verifier)
            await eventually(lambda: bool(caplog.messages))
            await verifier.prepare()

    asyncio.run(main())
    (line,) = caplog.messages
    assert f"the verifier {tmp_path}: its process was killed (out of memory?); see " in line


def test_a_question_is_measured_once_for_all_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(process, "_bytes", lambda text: measured.append(text) or len(text))

    async def main() -> None:
        async with ready(tmp_path) as verifier:
            for request in (A, B):
                scores = await verifier.score(request, texts(1, 2, 3))
                assert verifier.bound(request, texts(1)[0]) >= (scores[0].prompt_tokens or 0)

    asyncio.run(main())
    assert measured.count(question_of(A)) == measured.count(question_of(B)) == 1


def test_when_it_is_killed_what_waits_fails_and_it_can_be_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready(tmp_path) as verifier:
            gate = make_gate(tmp_path)
            running = asyncio.create_task(verifier.score(A, texts(0)))
            async with WaitingAt(gate):
                waiting = asyncio.create_task(verifier.score(B, texts(1)))
                await asyncio.sleep(0)
                kill(verifier)
                found = await asyncio.gather(running, waiting, return_exceptions=True)
            assert [type(error) for error in found] == [EngineError, VerifierAway], "the one that waited cost nothing"
            assert [str(error) for error in found] == ["its process has ended"] * 2
            assert not verifier.ready
            with pytest.raises(VerifierAway, match="its process has ended"):
                await verifier.score(A, texts(0))
            gate.unlink()
            await verifier.prepare()
            assert (await verifier.score(A, texts(5)))[0].steps == (0.5,)
            kill(verifier)  # while it has nothing to do
            await eventually(lambda: not verifier.ready)

    asyncio.run(main())


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready(tmp_path, hung=0.01) as verifier:
            make_gate(tmp_path)  # and nobody opens it
            with pytest.raises(EngineError, match="has ended"):
                await verifier.score(A, texts(0))

    asyncio.run(main())


def test_what_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever asks the process itself takes its exit code away from asyncio, if it comes first.
    monkeypatch.setattr(subprocess.Popen, "poll", lambda child: pytest.fail(f"{child} was asked"))
    with pytest.raises(BadInput, match=r"'.*nowhere' is no folder; make one"):
        asyncio.run(process_verifier(tmp_path / "nowhere").prepare())
    (tmp_path / "dies").touch()
    with pytest.raises(EngineError, match=r"its process ended with code 3 before it was ready; see .*\.log") as raised:
        asyncio.run(process_verifier(tmp_path).prepare())
    assert raised.value.fatal
    with pytest.raises(EngineError, match="ModuleNotFoundError"):
        asyncio.run(ProcessVerifier("no_such_module:opened", "x").prepare())


def test_a_name_that_nobody_knows_is_refused_as_everywhere() -> None:
    verifier = open_beside("no such verifier")
    assert isinstance(verifier, ProcessVerifier)
    with pytest.raises(BadInput, match="is not known; use one of"):
        asyncio.run(verifier.prepare())
    for name in ("confidence", "http://127.0.0.1:9/v1"):
        assert not isinstance(open_beside(name), ProcessVerifier)
    with pytest.raises(BadInput, match="has no gold answers"):
        open_beside("exact")


_PARENT = """
import asyncio, sys
from pathlib import Path
from support.scripted_verifiers import process_verifier, texts

async def main():
    verifier = process_verifier(Path(sys.argv[1]))
    await verifier.prepare()
    print(verifier.pid, flush=True)
    await texts(verifier)

asyncio.run(main())
"""


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_its_parent(tmp_path: Path, busy: bool) -> None:
    if busy:
        make_gate(tmp_path)
    work = "verifier.score(Request.of('a'), [Candidate(('is 1',))])" if busy else "asyncio.Event().wait()"
    imports = "from outthink.core.request import Request; from outthink.core.sample import Candidate"
    source = _PARENT.replace(", texts", "\n" + imports, 1).replace("texts(verifier)", work)
    parent = subprocess.Popen([sys.executable, "-c", source, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        child = int(parent.stdout.readline())
        if busy:
            until(lambda: judged(tmp_path), "the batch")
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: gone(child), "the child's end")


def test_its_bound_is_above_what_is_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with ready(tmp_path) as verifier:
            for request in (A, Request.of([Message("system", "Be brief."), Message("user", "é" * 40)])):
                for candidate in (*texts(1), Candidate(("a b", "\nc d\n", "ﷺ 1"))):
                    (score,) = await verifier.score(request, [candidate])
                    assert score.prompt_tokens == tokens(request, candidate) <= verifier.bound(request, candidate)

    asyncio.run(main())
