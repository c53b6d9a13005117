"""Failures become one line that says what was wrong and what to do, fatal or not, without secrets."""

from __future__ import annotations

import asyncio
import socket
import time
from email.utils import formatdate
from typing import Any

import pytest
from openai_runs import ask, collect, fake, finish, run, text

from outthink.core.errors import EngineError
from outthink.engines.openai import OpenAIEngine
from outthink.http.errors import retry_after
from outthink.http.transport import TransportFault
from support.chat_server import DONE, ChatServer, Drop, Hang, Reply, chat, chunk, event, refusal, stream, usage, whole
from support.fake_transport import FakeReply
from support.waiting import PATIENCE

pytestmark = pytest.mark.faults
PAGE = "<!DOCTYPE html><html><body>Welcome</body></html>"


def fails(answer: Any, **options: Any) -> EngineError:
    """The error of one call; checks what every message must keep to."""
    with pytest.raises(EngineError) as caught:
        run(answer, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "http://127.0.0.1:" in message
    return caught.value


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_variable_to_set(status: int) -> None:
    key = "topsecret123"
    error = fails(refusal(f"Incorrect API key provided: {key} and sk-proj-12345678", status), api_key=key)
    assert error.fatal
    assert "OPENAI_API_KEY" in str(error)
    assert key not in str(error)
    assert "12345678" not in str(error)


def test_a_login_page_is_a_refused_key() -> None:
    error = fails(whole(PAGE, 403, kind="text/html"))
    assert "OPENAI_API_KEY" in str(error)
    assert "<html" not in str(error)


def test_an_unknown_model_or_path() -> None:
    error = fails(refusal("The model `toy` does not exist", 404))
    assert error.fatal
    assert "'toy'" in str(error)
    assert "outthink doctor" in str(error)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_not_fatal(status: int) -> None:
    error = fails(whole({"error": {"message": "busy"}}, status, retry_after="7"))
    assert not error.fatal
    assert error.retry_after == 7
    assert str(status) in str(error)


def test_a_gateway_page_with_a_server_error_is_transient() -> None:
    error = fails(whole(PAGE, 502, kind="text/html"))
    assert not error.fatal
    assert "html" not in str(error).lower()


def test_no_quota_is_fatal() -> None:
    assert fails(refusal("You exceeded your current quota", 429, code="insufficient_quota")).fatal


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": formatdate(0, usegmt=True)}, 0),
    ],
)
def test_the_wait_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_the_wait_as_a_date() -> None:
    seconds = retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert seconds == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            refusal(
                "This model's maximum context length is 4096 tokens. However, you requested 5200 tokens "
                "(4700 in the messages, 500 in the completion).",
                code="context_length_exceeded",
            ),
            "5200 tokens asked, 4096 available",
        ),
        (
            whole(
                {
                    "error": {
                        "code": 400,
                        "message": "the request exceeds the available context size, try increasing it",
                        "type": "exceed_context_size_error",
                        "n_prompt_tokens": 1234,
                        "n_ctx": 1024,
                    }
                },
                400,
            ),
            "1234 tokens asked, 1024 available",
        ),
        (
            whole(
                {
                    "object": "error",
                    "message": "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum "
                    "context length is 4096 tokens and your request has 100 input tokens",
                    "type": "BadRequestError",
                    "code": 400,
                },
                400,
            ),
            "4096 available",
        ),
        (refusal("prompt is too long", 500), "prompt is too long"),
        (whole(b"", 413), "shorten the prompt"),
    ],
)
def test_a_request_beyond_the_context(answer: Reply, said: str) -> None:
    error = fails(answer)
    assert error.fatal
    assert said in str(error)
    assert "max_tokens" in str(error)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusal("temperature must be at most 2"), "temperature must be at most 2"),
        (
            whole({"detail": [{"loc": ["body", "messages", 0], "msg": "field required", "type": "missing"}]}, 422),
            "messages.0",
        ),
        (whole({"detail": "no"}, 400), "no"),
        (whole({"message": "bad"}, 400), "bad"),
        (whole({"error": "bad"}, 400), "bad"),
        (whole([{"error": {"message": "bad", "code": 400}}], 400), "bad"),
        (whole("plain\nwords", 400, kind="text/plain"), "plain words"),
        (whole(b"", 400), "400"),
        (whole("[]", 400), "400"),
        (whole("null", 418), "418"),
    ],
)
def test_other_refusals_are_fatal_and_quoted(answer: Reply, said: str) -> None:
    error = fails(answer)
    assert error.fatal
    assert said in str(error)


@pytest.mark.parametrize("status", [200, 400, 404])
def test_a_web_page_is_named(status: int) -> None:
    error = fails(whole(PAGE, status, kind="text/html"))
    assert error.fatal
    assert "answered HTML, is this the API URL?" in str(error)


def test_a_web_page_elsewhere_gets_the_usual_path_as_advice() -> None:
    with ChatServer(routes={"/ui/v1/chat/completions": whole(PAGE)}) as server:
        engine = OpenAIEngine(f"http://127.0.0.1:{server.port}/ui", "toy", memory=None)
        with pytest.raises(EngineError, match=f"try http://127.0.0.1:{server.port}/v1$"):
            asyncio.run(collect(engine, ask()))


def test_a_redirect_is_named() -> None:
    error = fails(whole(b"", 307, location="https://elsewhere.test/v1"))
    assert error.fatal
    assert "https://elsewhere.test/v1" in str(error)


def test_words_instead_of_json() -> None:
    error = fails(whole("data: {oops\n\n", kind="text/event-stream"))
    assert error.fatal
    assert "{oops" in str(error)


def test_words_in_the_middle_of_a_stream() -> None:
    assert not fails(stream(chunk("A"), b"data: {oops\n\n")).fatal


@pytest.mark.parametrize("value", [{"hello": 1}, {"choices": []}, {"choices": [{"message": {"content": ""}}]}])
def test_json_without_a_completion(value: Any) -> None:
    assert "holds no completion" in str(fails(whole(value)))


def test_an_error_in_a_good_reply() -> None:
    assert "overloaded" in str(fails(whole({"error": {"message": "overloaded"}})))


def test_nothing_at_all() -> None:
    error = fails(stream())
    assert not error.fatal
    assert "answered nothing" in str(error)


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        ({"message": "engine died", "code": 500}, False),
        ({"message": "engine died"}, False),
        ("engine died", False),
        ({"message": "engine died: rate limit", "code": 429}, False),
        ({"message": "engine died: bad request", "code": 400}, True),
        ({"message": "engine died: maximum context length is 4096 tokens", "code": "context_length_exceeded"}, True),
    ],
)
def test_an_error_within_a_stream(error: Any, fatal: bool) -> None:
    raised = fails(stream(chunk("A"), event({"error": error}), DONE))
    assert raised.fatal is fatal
    assert "engine died" in str(raised) or "context" in str(raised)


def test_a_stream_that_ends_in_an_error_reason() -> None:
    assert not fails(stream(chunk("A"), chunk(finish="error"), DONE)).fatal


@pytest.mark.parametrize("end", [Drop(), b""])
def test_a_stream_that_breaks_off(end: Drop | bytes) -> None:
    seen: list[str] = []

    async def main(url: str) -> None:
        engine = OpenAIEngine(url, "toy", memory=None)
        try:
            async for piece in engine.generate(ask()):
                seen.append(getattr(piece, "text", ""))
        finally:
            await engine.aclose()

    with ChatServer(stream(chunk("A"), chunk("B"), end)) as server:
        with pytest.raises(EngineError) as caught:
            asyncio.run(main(server.url))
        assert not caught.value.fatal
        assert seen == ["A", "B"]


@pytest.mark.parametrize("end", [Drop(), b"", DONE[:-2]])
def test_a_completion_that_lacks_only_its_done(end: Drop | bytes) -> None:
    events, _, _ = run(stream(chunk("A"), chunk(finish="stop"), usage(3, 1), end))
    assert text(events) == "A"
    assert (finish(events).finish_reason, finish(events).completion_tokens) == ("stop", 1)


def test_done_without_the_end_of_the_body_does_not_hold_the_answer_up() -> None:
    events, calls, _ = run(stream(chunk("A"), chunk(finish="stop"), DONE, Hang()), idle_timeout=10 * PATIENCE)
    assert text(events) == "A"
    assert calls[0].gone.wait(PATIENCE)


def test_a_connection_dropped_before_any_reply() -> None:
    error = fails(Reply((), before=(Drop(),)))
    assert not error.fatal
    assert "dropped the connection" in str(error)


@pytest.mark.parametrize("reply", [Reply((), before=(Hang(),)), stream(chunk("A"), Hang())])
def test_a_server_that_hangs(reply: Reply) -> None:
    error = fails(reply, idle_timeout=0.15)
    assert not error.fatal
    assert "sent nothing for 0.15 s" in str(error)


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for model in ("toy", None):
        engine = OpenAIEngine(f"http://127.0.0.1:{port}", model, memory=None)
        with pytest.raises(
            EngineError, match=f"no server answers at http://127.0.0.1:{port}/v1; is it running"
        ) as caught:
            asyncio.run(collect(engine, ask()))
        assert not caught.value.fatal


def test_an_untrusted_certificate_is_fatal() -> None:
    def answer(*_: Any) -> FakeReply:
        raise TransportFault("tls", "CERTIFICATE_VERIFY_FAILED")

    engine, _ = fake(answer)
    with pytest.raises(EngineError, match="not trusted") as caught:
        asyncio.run(collect(engine, ask()))
    assert caught.value.fatal


def test_secrets_appear_nowhere() -> None:
    key = "k3y-Value-99"

    def answer(*_: Any) -> FakeReply:
        raise TransportFault("connect", f"could not reach https://me:pass.word@h?token=t0ken with {key} via t0ken")

    engine, transport = fake(answer, api_key=key)
    with pytest.raises(EngineError) as caught:
        asyncio.run(collect(engine, ask()))
    assert transport.sent[0][2]["authorization"] == f"Bearer {key}"
    assert key not in str(caught.value) + repr(caught.value) + repr(engine) + repr(engine.server)


def test_an_engine_survives_its_failures() -> None:
    replies = [refusal("busy", 503), chat(["fine"])]
    with ChatServer(lambda seen: replies[min(seen.number, 1)]) as server:
        engine = OpenAIEngine(server.url, "toy", memory=None)

        async def main() -> str:
            with pytest.raises(EngineError):
                await collect(engine, ask())
            events = await collect(engine, ask())
            await engine.aclose()
            return text(events)

        assert asyncio.run(main()) == "fine"
        assert server.connections == 1
