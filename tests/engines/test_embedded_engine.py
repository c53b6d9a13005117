"""The embedded engine on the real model: every call of the protocol, and a server that grows and dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import httpx2
import pytest
from embedded_files import gguf, needs_model

from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Message, Sampling
from outthink.engines.embedded import EmbeddedEngine
from outthink.engines.embedded.engine import prompt_bound, window
from outthink.engines.protocol import Call, Delta, Finish
from support.waiting import PATIENCE, eventually

T = TypeVar("T")
real = [pytest.mark.embedded, needs_model]


def call(prompt: str, *, tokens: int = 8, temperature: float = 0.8, **fields: Any) -> Call:
    return Call((Message("user", prompt),), Sampling(max_tokens=tokens, temperature=temperature), **fields)


async def complete(engine: EmbeddedEngine, wanted: Call) -> tuple[list[Delta], Finish]:
    events = [event async for event in engine.generate(wanted)]
    assert isinstance(events[-1], Finish)
    return [event for event in events[:-1] if isinstance(event, Delta)], events[-1]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddedEngine]:
    """One engine for all tests here, each of which runs an event loop of its own."""
    engine = EmbeddedEngine(threads=1)
    yield engine
    asyncio.run(engine.aclose())


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(PATIENCE):
            return await work

    return asyncio.run(limited())


class TestRealModel:
    pytestmark = real

    def test_one_completion(self, engine: EmbeddedEngine) -> None:
        deltas, finish = run(complete(engine, call("What is 2+3?", tokens=12, temperature=0)))
        assert "5" in text(deltas)
        assert finish.completion_tokens is not None
        assert 0 < finish.completion_tokens <= 12
        assert finish.prompt_tokens == run(engine.count_prompt(call("What is 2+3?")))

    def test_loops_one_after_another_share_the_server(self, engine: EmbeddedEngine) -> None:
        pids = set()
        for _ in range(3):
            run(complete(engine, call("hi")))
            pids.add(engine.pid)
        assert len(pids) == 1

    def test_system_message_is_optional(self, engine: EmbeddedEngine) -> None:
        with_own = Call((Message("system", "Be brief."), Message("user", "hi")), Sampling(max_tokens=4))
        assert run(complete(engine, with_own))[1].completion_tokens
        # SmolLM2's template puts in a system message of its own where there is none.
        assert (run(engine.count_prompt(call("hi"))) or 0) > (run(engine.count_prompt(with_own)) or 0)

    def test_same_seed_same_text(self, engine: EmbeddedEngine) -> None:
        first, again, other = (text(run(complete(engine, call("Say a word.", seed=seed)))[0]) for seed in (5, 5, 6))
        assert first == again
        assert first != other

    def test_eight_samples_read_a_prompt_once(self, engine: EmbeddedEngine) -> None:
        prompt = f"Story {time.time()}: " + "a dog and a cat run over the hill and home again, " * 8

        async def eight() -> list[tuple[list[Delta], Finish]]:
            return await asyncio.gather(*(complete(engine, call(prompt, seed=seed)) for seed in range(8)))

        done = run(eight())
        finishes = [finish for _, finish in done]
        read = [(finish.prompt_tokens or 0) - (finish.cached_tokens or 0) for finish in finishes]
        assert all(finish.prompt_tokens == finishes[0].prompt_tokens for finish in finishes)
        assert max(read) > 50, "the reading is charged to one of them"
        assert sorted(read)[-2] <= 2, f"the others found it in their slot: {read}"
        assert len({text(deltas) for deltas, _ in done}) > 1

    def test_log_probabilities(self, engine: EmbeddedEngine) -> None:
        deltas, finish = run(complete(engine, call("Tell a story.", tokens=10, top_logprobs=20)))
        logprobs = [value for delta in deltas for value in delta.logprobs]
        confidences = [value for delta in deltas for value in delta.confidences]
        assert len(logprobs) == len(confidences) == finish.completion_tokens
        assert all(value <= 0 for value in logprobs)
        assert all(value > 0 for value in confidences)

    def test_prefix_gives_only_new_text(self, engine: EmbeddedEngine) -> None:
        deltas, _ = run(complete(engine, call("What is 2+3?", temperature=0, prefix="The answer is")))
        assert text(deltas).strip().startswith("5")

    def test_leaving_frees_the_slot(self, engine: EmbeddedEngine) -> None:
        async def leave() -> None:
            events = engine.generate(call("Tell a long story.", tokens=900))
            await anext(events)
            await events.aclose()
            assert engine._server is not None
            while any(
                slot["is_processing"] for slot in (await engine._server.client.server.fetch("/slots", root=True)).json()
            ):
                await asyncio.sleep(0)

        run(leave())

    def test_strangers_are_turned_away(self, engine: EmbeddedEngine) -> None:
        run(engine.prepare(call("hi")))
        assert engine._server is not None
        reply = httpx2.post(engine._server.child.url + "/chat/completions", json={"messages": []}, trust_env=False)
        assert reply.status_code == 401

    def test_killed_server_is_an_error_and_then_replaced(self, engine: EmbeddedEngine) -> None:
        async def killed() -> None:
            events = engine.generate(call("Tell a long story.", tokens=900))
            await anext(events)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            async for _ in events:
                pass

        with pytest.raises(EngineError, match=r"killed.*\.log"):
            run(killed())
        assert run(complete(engine, call("hi")))[1].completion_tokens

    def test_context_grows_on_demand(self) -> None:
        async def grow() -> tuple[list[int | None], int]:
            engine = EmbeddedEngine(concurrency=2, threads=1)
            pids = []
            try:
                short = asyncio.create_task(complete(engine, call("Tell a story.", tokens=60)))
                await eventually(lambda: engine.pid)
                pids.append(engine.pid)
                # 800 bytes of one word: the bound exceeds the slot, the count does not.
                await engine.prepare(call("hello " * 140, tokens=800))
                pids.append(engine.pid)
                await engine.prepare(call("hi", tokens=1500))
                pids.append(engine.pid)
                _, finish = await short
                with pytest.raises(EngineError, match=r"at most 8192 tokens, and this call needs 8[0-9]{3} ") as caught:
                    await engine.prepare(call("hi", tokens=8190))
                assert caught.value.fatal
                return pids, finish.completion_tokens or 0
            finally:
                await engine.aclose()

        pids, finished = run(grow())
        assert pids[0] == pids[1] != pids[2]
        assert finished, "the running call was not cut off by the restart"

    def test_importing_the_room_loads_no_library(self) -> None:
        code = "import sys, outthink.engines.embedded; print('xllamacpp' in sys.modules, 'httpx2' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False", "False"]

    def test_damaged_weights_are_an_error_with_the_log(self, tmp_path: Any) -> None:
        path = tmp_path / "hollow.gguf"
        path.write_bytes(gguf())
        with pytest.raises(EngineError, match=r"did not start.*\.log") as caught:
            run(EmbeddedEngine(path).prepare(call("hi")))
        assert caught.value.fatal


def test_name_and_features_before_anything_starts() -> None:
    engine = EmbeddedEngine()
    assert engine.model == "SmolLM2-135M-Instruct.Q4_1"
    assert engine.concurrency == 8
    assert engine.features.prefix
    assert engine.pid is None
    assert EmbeddedEngine("/some/where/Own-7B.gguf").model == "Own-7B"
    asyncio.run(engine.aclose())


def test_bad_arguments() -> None:
    for name in ("concurrency", "threads"):
        with pytest.raises(BadInput, match=name):
            EmbeddedEngine(**{name: 0})


def test_missing_model_file() -> None:
    with pytest.raises(BadInput, match="does not exist"):
        run(EmbeddedEngine("/no/such.gguf").prepare(call("hi")))


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(BadInput, match=r"pip install '\.\[local\]'"):
        run(EmbeddedEngine().prepare(call("hi")))


def test_window() -> None:
    assert window(10, 8192) == 1024
    assert window(1025, 8192) == 1280
    assert window(9000, 8192) == 8192
    assert window(10, 512) == 512
    assert prompt_bound(call("é" * 10, prefix="ab")) == 20 + 16 + 2 + 16 + 64
