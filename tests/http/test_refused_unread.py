"""Which refusals say that a request was not begun."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest

from outthink.http.errors import refused_unread, retry_after

LOADING = [
    {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
    {"error": "llm server loading model"},
    {"error": "Model acme/model-7b is currently loading", "estimated_time": 20.0},
    {"error": {"message": "please wait", "code": "model_loading"}},
    {"error": {"message": "please wait", "type": "MODEL_LOADING_ERROR"}},
    {"detail": "Model is still loading"},
    {"detail": [{"loc": ["body"], "msg": "the model is being loaded", "type": "unavailable"}]},
    {"status": "loading model"},
    {"object": "error", "message": "The model is warming up, try again", "code": 503},
    {"message": "server is still starting"},
    {"error": {"message": "Model not ready"}},
    {"error": {"message": "the engine is initializing"}},
    [{"error": {"message": "reloading weights"}}],
    "Loading model",
    {"error": {"message": "please wait", "code": "MODEL_NOT_READY"}},
    {"error": {"message": "please wait", "type": "ModelLoadingError"}},
    {"error": {"message": "please wait", "code": "ModelNotReady"}},
    {"error": "The model isn't ready yet"},
    {"detail": {"error": {"message": "weights are not yet loaded"}}},
    {"error": "warmup in progress"},
    {"message": "the server is currently starting"},
    {"error": "initialization has not finished"},
    {"trace": "x" * 9000, "error": {"message": "Loading model"}},
]
OTHER = [
    {"error": {"message": "The engine is currently overloaded, please try again later"}},
    {"error": {"message": "out of memory"}},
    {"error": "uploading the reply failed"},
    {"error": "offloading failed after 12 tokens"},
    {"error": "server busy, please try again. maximum pending requests exceeded"},
    {"error": {"message": "restarting after a crash", "code": "UNLOADING"}},
    {"error": "the model was ready, and ran out of memory"},
    {"detail": "Service Unavailable"},
    {"error": {}},
    {},
    [],
    None,
    7,
    "<html><h1>Loading...</h1></html>",
    "upstream connect error or disconnect/reset before headers",
    "",
]


def content(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@pytest.mark.parametrize("value", LOADING)
def test_a_model_that_loads_has_begun_nothing(value: object) -> None:
    assert refused_unread(503, {}, content(value))
    for status in (200, 400, 408, 409, 425, 500, 502, 504, 529):
        assert not refused_unread(status, {"retry-after": "1"}, content(value))


@pytest.mark.parametrize("value", OTHER)
def test_any_other_503_may_have_begun_it_unless_it_names_a_pause(value: object) -> None:
    assert not refused_unread(503, {}, content(value))
    for pause in ("0", "2", "0.5", "-1", formatdate(0, usegmt=True)):
        assert refused_unread(503, {"retry-after": pause}, content(value))
    assert refused_unread(503, {"retry-after-ms": "20"}, content(value))
    for none in ("soon", "", "nan", "inf"):
        assert not refused_unread(503, {"retry-after": none}, content(value))
    assert refused_unread(429, {}, content(value))


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"[" * 100_000, b'{"error": "' + b"x" * 100_000, b"{" * 9])
def test_bytes_that_say_nothing_say_nothing(raw: bytes) -> None:
    assert not refused_unread(503, {}, raw)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5, 10", 5.0),  # two headers, as some clients join them
        ("0.25,9", 0.25),
        ("-5", 0.0),
        ("1e308", 86_400.0),
        ("9" * 400, 86_400.0),
        (formatdate(0, usegmt=True), 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("Mon, 01 Jan 0001 00:00:00 -0000", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999999999999", None),
        ("Wed, 99999999999999999999 Oct 2015 00:00:00 GMT", None),
        ("soon, 5", None),
        ("5 s", None),
        ("-inf", None),
    ],
)
def test_whatever_a_server_asks_to_wait_is_seconds_or_nothing(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds
    assert refused_unread(503, {"retry-after": value}, b"") == (seconds is not None)
