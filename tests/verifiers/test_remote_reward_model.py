"""A reward model behind HTTP, on a scripted server that speaks vLLM's shapes over loopback."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Score, VerifierAway
from outthink.verifiers.remote import RemoteRewardModel

REQUEST = Request.of("What is 2+2?", system="Be brief.")
STEPS = ("Two and two.\n\n", "Makes four.\n\n", "The answer is 4")
USAGE = {"prompt_tokens": 70, "total_tokens": 70}


class Script:
    """What the server answers by path; a path without an answer is a 404."""

    def __init__(self, **answers: Callable[[dict[str, Any]], Any]) -> None:
        self.answers, self.asked = answers, list[tuple[str, dict[str, Any], dict[str, str]]]()
        self.model, self.listed = "Qwen2.5-Math-PRM-7B", 0


@contextmanager
def serve(script: Script) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            script.listed += 1
            self.reply(200, {"object": "list", "data": [{"id": script.model, "max_model_len": 4096}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            script.asked.append((self.path, body, dict(self.headers.items())))
            answer = script.answers.get(self.path.strip("/"))
            if answer is None:
                self.reply(404, {"detail": "Not Found"})
            else:
                made = answer(body)
                self.reply(*(made if isinstance(made, tuple) else (200, made)))

        def reply(self, status: int, body: Any) -> None:
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pooled(data: Any, usage: Any = USAGE) -> dict[str, Any]:
    rows = [{"index": 0, "object": "pooling", "data": data}]
    return {"id": "pool-1", "object": "list", "created": 1, "model": "m", "data": rows, "usage": usage}


def scored(*values: float) -> dict[str, Any]:
    rows = [{"index": index, "object": "score", "score": value} for index, value in enumerate(values)]
    return {"id": "score-1", "object": "list", "model": "m", "data": rows[::-1], "usage": USAGE}


def prepared(url: str, **settings: Any) -> RemoteRewardModel:
    verifier = RemoteRewardModel(url, **settings)
    asyncio.run(verifier.prepare())
    return verifier


def ask(url: str, steps: tuple[str, ...] = STEPS, **settings: Any) -> Score:
    return asyncio.run(RemoteRewardModel(url, **settings).score(REQUEST, [Candidate(steps)]))[0]


def test_pooling_gives_two_classes_a_step() -> None:
    script = Script(pooling=lambda body: pooled([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]))
    with serve(script) as url:
        verifier = prepared(f"{url}/v1/", api_key="secret")
        assert (verifier.model, verifier.max_context, verifier.kind) == (script.model, 4096, "process")
        assert verifier.id == f"{script.model}@{url.removeprefix('http://')}/qwen-prm"
        (score,) = asyncio.run(verifier.score(REQUEST, [Candidate(STEPS)]))
    assert score == Score((0.1, 0.7, 0.8), 70, 0, None)
    path, body, headers = script.asked[0]
    assert (path, body["model"]) == ("/pooling", script.model)
    assert headers["authorization"] == "Bearer secret"
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    assert body["messages"] == [
        {"role": "system", "content": system},
        {"role": "user", "content": "What is 2+2?"},
        {"role": "assistant", "content": "Two and two.<extra_0>Makes four.<extra_0>The answer is 4<extra_0>"},
    ]
    assert verifier.bound(REQUEST, Candidate(STEPS)) >= 70


def test_the_name_of_the_model_is_asked_for_once_and_not_before() -> None:
    async def run(url: str) -> None:
        verifier = RemoteRewardModel(url)
        assert verifier.model == f"reward model at {url.removeprefix('http://')}"
        await verifier.prepare()
        await verifier.prepare()
        assert verifier.model == "Qwen2.5-Math-PRM-7B"
        await verifier.aclose()

    script = Script()
    with serve(script) as url:
        asyncio.run(run(url))
        assert script.listed == 1
        asyncio.run(RemoteRewardModel(url, model="mine").prepare())
        assert script.listed == 1, "a model that was named is not looked up"


def test_pooling_for_math_shepherd_takes_text() -> None:
    script = Script(pooling=lambda body: pooled([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]))
    script.model = "math-shepherd-mistral-7b-prm"
    with serve(script) as url:
        assert ask(url).steps == (0.9, 0.3, 0.2)
    wanted = "What is 2+2? Two and two. ки\nMakes four. ки\nThe answer is 4 ки"
    assert script.asked[0][1] == {"model": script.model, "input": wanted}


def test_pooling_for_whole_solutions_reads_the_last_value() -> None:
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 64}}
    script = Script(pooling=lambda body: pooled([[-3.0], [0.5], [1.0]], usage))
    script.model = "some-reward-model"
    with serve(script) as url:
        score = ask(url, sigmoid=True)
    assert score.steps == pytest.approx((1 / (1 + math.exp(-1)),))
    assert score.cached_tokens == 64
    assert [message["role"] for message in script.asked[0][1]["messages"]] == ["user", "assistant"]


def test_score_is_tried_when_there_is_no_pooling() -> None:
    script = Script(score=lambda body: scored(*[len(text) / 100 for text in body["text_2"]]))
    with serve(script) as url:
        verifier = RemoteRewardModel(url)
        scores = asyncio.run(verifier.score(REQUEST, [Candidate(STEPS), Candidate(STEPS[:1])]))
    assert [score.steps for score in scores] == [(0.14, 0.27, 0.42), (0.14,)]
    assert [path for path, _, _ in script.asked] == ["/pooling", "/score", "/score"]  # found out once
    body = script.asked[1][1]
    assert body["text_1"] == "What is 2+2?"
    assert body["text_2"] == [STEPS[0], STEPS[0] + STEPS[1], "".join(STEPS)]


def test_classify_comes_last() -> None:
    refusal = {"error": {"message": "The model does not support Pooling API", "type": "BadRequestError"}}
    answer = {"data": [{"index": 0, "label": "yes", "probs": [0.25, 0.75], "num_classes": 2}], "usage": USAGE}
    script = Script(pooling=lambda body: (400, refusal), classify=lambda body: answer)
    with serve(script) as url:
        assert ask(url, kind="outcome").steps == (0.75,)
    assert [path for path, _, _ in script.asked] == ["/pooling", "/score", "/classify"]


def test_nan_and_null_are_passed_on() -> None:
    text = json.dumps(pooled([[0.9, math.nan], [0.9, None], [0.1, 0.9]])).encode()
    assert b"NaN" in text
    with serve(Script(pooling=lambda body: text)) as url:
        first, second, third = ask(url).steps
    assert math.isnan(first)
    assert math.isnan(second)
    assert third == 0.9


def test_unknown_usage_stays_unknown() -> None:
    with serve(Script(pooling=lambda body: pooled([0.1, 0.2, 0.3], None))) as url:
        assert ask(url) == Score((0.1, 0.2, 0.3), None, 0, None)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (pooled([[0.5, 0.5]] * 5), r"gives 5 scores for 3 steps: \{"),
        (pooled([[0.5, 0.5]] * 2), "gives 2 scores for 3 steps"),
        (pooled("AAAAPw=="), "holds no list of numbers in 'data'"),
        (pooled([["a"], ["b"], ["c"]]), "holds no list of numbers"),
        (pooled([[0.1, 0.2, 0.3]] * 3), "holds no list of numbers"),
        ({"data": []}, r"holds no list of results: \{\"data\": \[\]\}"),
        ({"results": [1]}, "holds no list of results"),
        (b"<html>\nhello</html>", "answered no JSON object: <html> hello</html>"),
        ([1, 2], "answered no JSON object"),
        ((500, {"error": {"message": "engine\ndied"}}), "/pooling answered 500: engine died"),
        ((401, b"no"), "/pooling answered 401: no"),
    ],
)
def test_what_is_no_score_is_named(answer: Any, message: str) -> None:
    with serve(Script(pooling=lambda body: answer)) as url, pytest.raises(EngineError, match=message) as caught:
        ask(url)
    assert "\n" not in str(caught.value)
    assert caught.value.fatal is ("401" in message)


def test_a_server_without_any_of_the_apis() -> None:
    with serve(Script()) as url, pytest.raises(EngineError, match="/pooling answered 404: Not Found") as caught:
        ask(url)
    assert caught.value.fatal


def test_one_failure_among_many_fails_the_call_in_one_line() -> None:
    def answer(body: dict[str, Any]) -> Any:
        steps = body["messages"][-1]["content"].count("<extra_0>")
        return (503, b"busy") if steps == 2 else pooled([[0.5, 0.5]] * steps)

    candidates = [Candidate(STEPS), Candidate(STEPS[:2]), Candidate(STEPS[:1])]
    with serve(Script(pooling=answer)) as url, pytest.raises(EngineError, match="answered 503: busy"):
        asyncio.run(RemoteRewardModel(url).score(REQUEST, candidates))


def test_a_dead_server() -> None:
    with serve(Script()) as url:
        pass
    with pytest.raises(EngineError, match=r"reward model at 127\.0\.0\.1:\d+: no connection .*is the server running"):
        prepared(url)
    with pytest.raises(EngineError, match="no connection"):
        ask(url)


def test_another_model_than_before_judges_nothing() -> None:
    async def run(url: str) -> None:
        verifier = RemoteRewardModel(url)
        candidates = [Candidate(("It is 4.",))]
        assert len(await verifier.score(REQUEST, candidates)) == 1
        script.answers["pooling"] = lambda body: (500, {"detail": "out of memory"})
        with pytest.raises(EngineError, match="out of memory") as failed:
            await verifier.score(REQUEST, candidates)
        assert not isinstance(failed.value, VerifierAway), "nobody knows what it had read"
        script.answers["pooling"] = lambda body: pooled([[0.1, 0.9]])
        before, script.model = script.model, "another"
        for _ in range(2):
            with pytest.raises(VerifierAway, match=r"serves another, and Qwen.* before"):
                await verifier.score(REQUEST, candidates)
            assert not verifier.ready
        script.model = before
        assert len(await verifier.score(REQUEST, candidates)) == 1
        assert verifier.ready
        await verifier.aclose()

    script = Script(pooling=lambda body: pooled([[0.1, 0.9]]))
    with serve(script) as url:
        asyncio.run(run(url))
    assert len(script.asked) == 3, "the other model was asked for nothing"


def test_a_server_that_hangs() -> None:
    release = threading.Event()

    def hang(body: dict[str, Any]) -> Any:
        release.wait(5)
        return pooled([])

    with serve(Script(pooling=hang)) as url:
        try:
            with pytest.raises(EngineError, match=r"no reply within 0\.2 s"):
                ask(url, timeout=0.2)
        finally:
            release.set()


def test_bad_settings() -> None:
    with pytest.raises(BadInput, match="is no address of a server"):
        RemoteRewardModel("localhost:8000")
    with pytest.raises(BadInput, match="api: 'embed' is not known"):
        RemoteRewardModel("http://localhost", api="embed")  # type: ignore[arg-type]
    with serve(Script()) as url, pytest.raises(BadInput, match="without text"):
        ask(url, ("One.\n\n", " "))
