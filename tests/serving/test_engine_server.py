"""A plugin's engine behind the proxy: through OpenAI's protocol and back, and `serve --model SCHEME:REST`."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.cli.main import main
from outthink.core import plugins
from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Message, Sampling
from outthink.engines.openai import OpenAIEngine
from outthink.engines.protocol import Call, Delta, Event, Finish
from outthink.serving.admission import Limits
from outthink.serving.chat.engine_server import EngineServer
from outthink.serving.config import read_config
from outthink.serving.pool import BackendSettings
from support.plugins import install
from support.proxy_server import Got, ProxyServer
from support.waiting import eventually

LIMITS = Limits(messages=2)
CODE = '''
import asyncio

import outthink as ot
from outthink.core.errors import BadInput, EngineError
from outthink.engines.protocol import Delta, Features, Finish

open_calls, tried = [], []
FIRST = {
    "waits": {},
    "away": {},
    "later": {"retry_after": 40.0},
    "begun": {"begun": True},
    "once": {"again": False},
    "mute": None,
}


class Echo(ot.Engine):
    """Says what was said, a word a token, and one thing besides for each argument."""

    parameters = 1234
    features = Features(prefix=True, logprobs=True, top_logprobs=2)

    def __init__(self, rest):
        self.model, self.rest = f"echo-{rest}", rest

    async def generate(self, call):
        open_calls.append(call)
        try:
            if self.rest == "refuses":
                raise EngineError("the prompt is too long", fatal=True)
            if self.rest in FIRST:
                tried.append(call)
                if self.rest == "waits" and len(tried) > 1:
                    yield Finish("stop", 7, 3, 0)
                elif FIRST[self.rest] is not None:
                    raise EngineError("the card is away", **FIRST[self.rest])
                return
            words = call.messages[-1].text.split()[: call.sampling.max_tokens]
            if call.prefix:
                words = ["more"]
            for at, word in enumerate(words, 1):
                if self.rest == "breaks" and at == 2:
                    raise EngineError("the card fell out")
                top = [(word + " ", {word + " ": -0.1, "x": -2.5})] if call.top_logprobs else ()
                chosen = [-0.1] if call.top_logprobs is not None else ()
                thought = "hm " if at == 1 else ""
                yield Delta(word + " ", thought, tokens=at, logprobs=chosen, alternatives=top)
            if self.rest == "hangs":
                await asyncio.Event().wait()
            if self.rest == "stops":
                return
            prompt = None if self.rest == "silent" else 7
            yield Finish("length" if len(words) == call.sampling.max_tokens else "stop", prompt, 3, len(words))
        finally:
            open_calls.remove(call)
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the path with a distribution that brings the engine, and one that cannot be loaded."""
    install(
        tmp_path,
        "echoing",
        {"engines": {"echo": "echo_code:Echo", "gone": "missing_code:Engine"}},
        modules={"echo_code": CODE},
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "_loaded", {})
    yield tmp_path
    sys.modules.pop("echo_code", None)


def with_client(model: str, work: Callable[[OpenAIEngine], Coroutine[Any, Any, Any]]) -> Any:
    """What some work with a client of the engine's server brings."""

    async def run() -> Any:
        server = EngineServer(model, LIMITS)
        url, key = await server.start()
        client = OpenAIEngine(url, api_key=key)
        try:
            return await work(client)
        finally:
            await client.aclose()
            await server.aclose()

    return asyncio.run(run())


def asked(model: str, call: Call) -> list[Event]:
    """The events of one call through the server."""

    async def work(client: OpenAIEngine) -> list[Event]:
        await client.prepare(call)
        return [event async for event in client.generate(call)]

    return list(with_client(model, work))


def call(text: str = "one two three", tokens: int = 16, **more: Any) -> Call:
    return Call((Message("user", text),), Sampling(max_tokens=tokens), **more)


def test_what_the_engine_says_comes_through(site: Path) -> None:
    *deltas, finish = asked("echo:a", call())
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert "".join(delta.text for delta in deltas) == "one two three "
    assert "".join(delta.reasoning for delta in deltas) == "hm "
    assert isinstance(finish, Finish)
    assert (finish.finish_reason, finish.prompt_tokens, finish.cached_tokens, finish.completion_tokens) == (
        "stop",
        7,
        3,
        3,
    )


def test_a_cap_a_prefix_and_log_probabilities_reach_it(site: Path) -> None:
    assert asked("echo:a", call(tokens=2))[-1] == Finish("length", 7, 3, 2, stop="")
    assert "".join(delta.text for delta in asked("echo:a", call(prefix="so"))[:-1]) == "more "
    deltas = asked("echo:a", call(top_logprobs=2, alternatives=True))[:-1]
    assert [value for delta in deltas for value in delta.logprobs] == [-0.1] * 3
    assert dict(deltas[0].alternatives[0][1]) == {"one ": -0.1, "x": -2.5}


def test_a_refusal_is_fatal_and_a_break_is_not(site: Path) -> None:
    with pytest.raises(EngineError, match="the prompt is too long") as refused:
        asked("echo:refuses", call())
    assert refused.value.fatal
    with pytest.raises(EngineError, match="the card fell out") as broken:
        asked("echo:breaks", call())
    assert not broken.value.fatal


def test_a_client_that_leaves_ends_the_call(site: Path) -> None:
    async def work(client: OpenAIEngine) -> None:
        import echo_code  # type: ignore[import-not-found]

        events = client.generate(call())
        assert isinstance(await anext(events), Delta)
        assert len(echo_code.open_calls) == 1
        await events.aclose()  # type: ignore[attr-defined]
        await eventually(lambda: not echo_code.open_calls)

    with_client("echo:hangs", work)


class Wire:
    """Plain requests to a server."""

    def __init__(self, port: int, key: str) -> None:
        self._port, self._key = port, key

    def post(self, body: Mapping[str, Any] | bytes, key: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", "/v1/chat/completions", sent, {"authorization": f"Bearer {key or self._key}"})
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, json.loads(content) if content.startswith(b"{") else content


def wired(model: str, work: Callable[[Wire], Any]) -> Any:
    async def serve() -> Any:
        server = EngineServer(model, LIMITS)
        url, key = await server.start()
        try:
            return await asyncio.to_thread(work, Wire(int(url.split(":")[2].partition("/")[0]), key))
        finally:
            await server.aclose()

    return asyncio.run(serve())


SAID = [{"role": "user", "content": "one two"}]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"messages": SAID, "n": 2}, 400, "n"),
        ({"messages": SAID, "tools": [{"type": "function"}]}, 400, "tools"),
        ({"messages": SAID, "response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"messages": []}, 400, "messages"),
        ({"messages": SAID, "max_tokens": -1}, 400, "max_tokens"),
        ({"messages": SAID * 3}, 400, "messages"),
        ([], 400, "body"),
        (b"{", 400, "body"),
        (b"\xff", 400, "body"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(site: Path, body: Any, status: int, param: str) -> None:
    got, said = wired("echo:a", lambda wire: wire.post(body))
    assert (got, said["error"]["param"]) == (status, param)


def test_it_answers_nobody_without_its_key(site: Path) -> None:
    assert wired("echo:a", lambda wire: wire.post({"messages": SAID}, "another"))[0] == 401
    assert wired("echo:a", lambda wire: wire.post({"messages": SAID}, "schl\u00fcssel"))[0] == 401


def test_an_engine_that_does_not_count_sends_no_usage(site: Path) -> None:
    status, said = wired("echo:silent", lambda wire: wire.post({"messages": SAID}))
    assert (status, said["choices"][0]["message"]["content"]) == (200, "one two ")
    assert "usage" not in said


def test_serve_takes_one_by_name(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", "serve", "--port", "0"]
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OUTTHINK_STATE": str(tmp_path / "state")}
    process = subprocess.Popen(
        [*command, "--model", "echo:a"], stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "echo-a" in line, line
        wire = Wire(int(line.partition("127.0.0.1:")[2].split("/")[0].split()[0]), "none")
        status, said = wire.post({"model": "echo-a", "messages": SAID})
        assert (status, said["choices"][0]["message"]["content"]) == (200, "one two ")
        assert said["usage"] == {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
        }
        status, said = wire.post({"model": "outthink/self-consistency@3", "messages": SAID})
        assert (status, said["choices"][0]["message"]["content"]) == (200, "one two ")
        receipt = said["outthink"]["receipt"]
        assert (receipt["model"], len(receipt["entries"])) == ("echo-a", 3)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_the_check_says_whether_it_could_run(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--check", "--model", "echo:a"]) == 0
    assert "backend echo:a: a plugin's engine would run here" in capsys.readouterr().out
    assert main(["serve", "--check", "--model", "gone:a"]) != 0
    assert "backend gone:a: model 'gone': entry point missing_code:Engine" in capsys.readouterr().err


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("served", ["engine", "outthink/single"])
@pytest.mark.parametrize(
    ("kind", "status", "tries"),
    [("away", 503, 2), ("later", 503, 1), ("begun", 502, 1), ("once", 502, 1), ("mute", 502, 1), ("waits", 200, 2)],
)
def test_a_call_that_the_engine_has_not_begun_is_tried_once_more(
    site: Path, kind: str, status: int, tries: int, served: str, streamed: bool
) -> None:
    passed = served == "engine"
    if passed and tries == 2:  # what is passed through is tried again by its client
        status, tries = 503, 1

    async def serve() -> tuple[Got, int]:
        server = EngineServer(f"echo:{kind}", LIMITS)
        url, key = await server.start()
        try:
            return await asyncio.to_thread(ask, BackendSettings(url=url, key=key)), len(tried())
        finally:
            await server.aclose()

    def ask(backend: BackendSettings) -> Got:
        with ProxyServer(backend) as proxy:
            return proxy.chat(f"echo-{kind}" if passed else served, "one two", stream=streamed)

    def tried() -> list[Call]:
        return list(sys.modules["echo_code"].tried)

    got, seen = asyncio.run(serve())
    assert (got.status, seen) == (status, tries)
    assert ("retry-after" in got.headers) == (status == 503)
    assert int(got.headers.get("retry-after", 40)) == (40 if kind == "later" or status != 503 else 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_events_that_end_without_an_end_are_no_reply(site: Path, streamed: bool) -> None:
    status, said = wired("echo:stops", lambda wire: wire.post({"messages": SAID, "stream": streamed}))
    assert status == (200 if streamed else 502)
    assert "without saying that the completion was finished" in str(said)
    assert "[DONE]" not in str(said)


@pytest.mark.parametrize("url", ["localhost:8000", "ecko:a", "echo"])
def test_what_no_plugin_offers_is_an_address_as_before(
    site: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", url]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_key_for_one_is_refused(site: Path, tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('[[serve.backends]]\nurl = "echo:a"\nkey_env = "A"\n')
    with pytest.raises(BadInput, match="is of no use here"):
        read_config(file)
