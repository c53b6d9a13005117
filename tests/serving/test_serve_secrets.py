"""The operator's keys: whatever a backend repeats, they stand in nothing that leaves the proxy or is kept by it."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp")
pytest.importorskip("prometheus_client")
pytest.importorskip("opentelemetry.sdk")

from outthink.http.secrets import MaskedResponse, SecretMask, mask_of
from outthink.serving import dashboard
from outthink.serving.chat.backends import Policies
from outthink.serving.ledger import open_durable
from outthink.serving.observe import logs, metrics, telemetry
from outthink.serving.pool import BackendSettings
from support.chat_server import (
    DONE,
    Answer,
    ChatServer,
    Drop,
    Reply,
    Seen,
    chat,
    chunk,
    event,
    models,
    raw,
    usage,
    whole,
)
from support.fake_transport import FakeReply
from support.ledgers import written
from support.proxy_server import CHAT, ProxyServer

KEY = "c0rrect/horse+battery=staple"
ASKED = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
}
STRATEGIES = ("single", "self-consistency@2", "best-of-n@2")
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": lambda key: json.dumps(key)[1:-1].replace("/", "\\/").replace("+", "\\u002B"),
    "url": lambda key: urllib.parse.quote(key, safe=""),
    "html": lambda key: html.escape(key).replace("=", "&#61;"),
    "basic": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "hex": lambda key: key.encode().hex().upper(),
    "named": lambda key: key.replace("&", "&amp;").replace("/", "&sol;").replace("+", "&plus;"),
    "html twice": lambda key: html.escape(html.escape(key)).replace("=", "&amp;#61;"),
    "url twice": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "mail": lambda key: key.replace("=", "=3D"),
    "x": lambda key: "".join(f"\\x{ord(letter):02x}" if ord(letter) < 256 else letter for letter in key),
}


def forms(key: str) -> list[bytes]:
    """What must not be seen: each form, and of base64 what no neighbour changes."""
    shown = [form(key) for name, form in FORMS.items() if name != "basic"]
    return [text.encode() for text in (*shown, base64.b64encode(key.encode()).decode()[:-4], FORMS["basic"](key)[8:-4])]


def refusal(said: str, status: int) -> Reply:
    return whole({"error": {"message": f"no: {said}", "type": said, "param": said, "code": said}}, status, x_echo=said)


def stream(*events: bytes, **headers: str) -> Reply:
    return Reply(events, headers=tuple((name.replace("_", "-"), value) for name, value in headers.items()))


def echoes(said: str) -> dict[str, Answer]:
    """Replies that hold a text wherever one can."""
    body = {"id": said, "model": said, "choices": [{"index": 0, "message": {"content": said}}], said: said}
    whole_event = chunk(said)
    middle = whole_event.index(b'"content": "') + 20
    replies: dict[str, Answer] = {
        f"status {status}": refusal(said, status) for status in (400, 404, 413, 422, 429, 500)
    }
    replies |= {f"key refused {status}": refusal(said, status) for status in (401, 403)}
    return {
        **replies,
        "body and headers": whole(body, x_echo=said, server_timing=said, content_location=f"/x?key={said}"),
        "redirect": whole({"error": {"message": said}}, 307, location=f"http://elsewhere/?key={said}"),
        "status line": raw(
            f"HTTP/1.1 200 {said}\r\nx-echo: {said}\r\ncontent-type: application/json\r\n"
            f"transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-trailer: {said}\r\n\r\n".encode()
        ),
        "no HTTP": raw(f"{said} is no HTTP\r\n\r\n".encode(), Drop()),
        "bad header": raw(f"HTTP/1.1 200 OK\r\n{said}\0: 1\r\n\r\n".encode(), Drop()),
        "page": whole(f"<html>{said}</html>", 500, kind="text/html"),
        "text": whole(f"wrong key {said}", 400, kind="text/plain"),
        "garbled": whole(f"{{{said}", kind="application/json"),
        "events": stream(chunk(said, x=said), chunk(finish="stop"), usage(3, 2, more=said), DONE, x_echo=said),
        "cut in two": Reply((whole_event[:middle], whole_event[middle:], chunk(finish="stop"), DONE), together=False),
        "error event": stream(event({"error": {"message": said, "code": said}})),
        "refused in an event": stream(event({"error": {"message": said, "code": 401}})),
        "late error": stream(chunk("one"), event({"error": {"message": said, "type": said}})),
        "comment": stream(f": {said}\n\n".encode(), f"event: {said}\nid: {said}\n".encode(), chunk("4"), DONE),
        "broken off": Reply((chunk("one"), f"data: {said}".encode(), Drop())),
    }


class Watched:
    """A proxy with everything that keeps or shows something, in front of a backend with a key."""

    def __init__(self, backend: ChatServer, folder: Path, settings: BackendSettings) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.backend, self.folder, self.spans = backend, folder, InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        ledger = open_durable(f"sqlite:///{folder}/ledger.db", spool=folder / "spool")
        # However many calls fail here, the breaker stays closed and the next one is made.
        self.proxy = ProxyServer(settings, ledger=ledger, pool={"failures": 10**6, "share": 1.0, "window": 1024})
        self.provider = provider

    def start(self) -> None:
        self.proxy.__enter__()
        app = self.proxy.app
        dashboard.attach(app)
        metrics.attach(app, Policies())
        app.watchers.add(telemetry.Telemetry(self.provider))
        self.log = app.watchers.add(logs.Logs("debug", self.folder / "log"))

    def stop(self) -> None:
        self.proxy.__exit__()
        self.log.close()

    def ask(self, path: str, body: dict[str, Any]) -> bytes:
        """Everything that comes back, head included."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(content)}\r\n"
        with socket.create_connection(("127.0.0.1", self.proxy.port), 20) as connection:
            connection.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + content)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))

    def kept(self) -> bytes:
        """Every page, span and file."""
        pages = ["/metrics", "/dashboard/api/live", "/dashboard/api/requests", "/v1/models", "/readyz", "/openapi.json"]
        rows = self.proxy.get("/dashboard/api/requests").json["rows"]
        pages += [f"{start}{row['id']}" for row in rows for start in ("/v1/receipts/", "/dashboard/api/requests/")]
        shown = [self.proxy.get(page).content for page in pages]
        spans = [span.to_json().encode() for span in self.spans.get_finished_spans()]
        return b"\n".join([*shown, *spans, written(self.folder)])


@contextmanager
def watched(folder: Path, replies: dict[str, Answer], key: str | None = KEY, login: str = "") -> Iterator[Watched]:
    """Each reply is that of a model of its name, on every path."""

    def answer(seen: Seen) -> Reply:
        reply = replies[seen.body["model"]]
        return reply(seen) if callable(reply) else reply

    routes: dict[str, Answer] = dict.fromkeys(ASKED, answer)
    with ChatServer(routes={**routes, "/v1/models": models(*replies)}) as backend:
        running = Watched(backend, folder, BackendSettings(url=backend.url.replace("//", f"//{login}"), key=key))
        running.start()
        try:
            yield running
        finally:
            running.stop()


def clean(content: bytes, key: str = KEY) -> bool:
    return not any(form in content for form in forms(key))


def requests(model: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every endpoint, passed through and by strategies, whole and streamed."""
    for stream in (False, True):
        for path, body in ASKED.items():
            yield path, {"model": model, "stream": stream, **body}
        for strategy in STRATEGIES:
            own = {"model": model, **({"verifier": "judge"} if "best" in strategy else {})}
            yield CHAT, {"model": f"outthink/{strategy}", "stream": stream, "outthink": own, **ASKED[CHAT]}


def test_a_key_that_is_repeated_everywhere_is_seen_nowhere(tmp_path: Path) -> None:
    replies = {f"{form} {name}": reply for form, write in FORMS.items() for name, reply in echoes(write(KEY)).items()}
    named = list(echoes(""))
    # Each reply with the key as it is, and with one of its other forms.
    chosen = [
        *(f"plain {name}" for name in named),
        *(f"{list(FORMS)[1 + at % (len(FORMS) - 1)]} {name}" for at, name in enumerate(named)),
    ]
    with watched(tmp_path, {name: replies[name] for name in chosen}) as running:
        asked = [(name, *request) for name in chosen for request in requests(name)]
        with ThreadPoolExecutor(16) as threads:
            for sent, got in zip(asked, threads.map(lambda request: running.ask(*request[1:]), asked), strict=True):
                assert clean(got), (sent, got)
                refused = "backend_auth" in got.decode()
                assert refused == ("refused" in sent[0]), (sent, got)
        assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in running.backend.seen)
        assert clean(kept := running.kept())
        assert b"answered 403" in kept
    assert clean(written(tmp_path))


@pytest.mark.parametrize("form", ["hunter2-and-more", "bWU6aHVudGVyMi1hbmQtbW9yZQ==", "me%3Ahunter2%2Dand%2Dmore"])
def test_a_password_of_the_address_is_a_key_too(form: str, tmp_path: Path) -> None:
    replies: dict[str, Answer] = {"tiny": refusal(form, 400)}
    with watched(tmp_path, replies, None, "me:hunter2-and-more@") as running:
        got = b"".join(running.ask(*request) for request in requests("tiny"))
        assert form.encode() not in got + running.kept()
        assert b"***" in got


def test_a_short_placeholder_is_masked_where_errors_are_told_and_not_in_answers(tmp_path: Path) -> None:
    replies: dict[str, Answer] = {"tiny": chat(["The list is EMPTY."]), "no": refusal("wrong key EMPTY", 400)}
    with watched(tmp_path, replies, "EMPTY") as running:
        assert b"The list is EMPTY." in running.ask(CHAT, {"model": "tiny", **ASKED[CHAT]})
        assert b"EMPTY" not in running.ask(CHAT, {"model": "no", **ASKED[CHAT]})


letters = st.characters(min_codepoint=33, max_codepoint=126) | st.sampled_from("äßñ€")
secrets = st.text(letters, min_size=8, max_size=40)


@settings(deadline=None)
@given(secrets, st.text(max_size=20), st.sampled_from(sorted(FORMS)), st.text(max_size=20))
@example("0000000ß000000<", "", "html", "")
@example("0000<%00", "", "html", "")
@example("00\\+0000", "", "json", "")
def test_every_form_of_every_key_is_masked(key: str, before: str, form: str, after: str) -> None:
    mask = mask_of("http://x/", {"authorization": f"Bearer {key}"})
    assert mask is not None
    said = f"{before}\n{FORMS[form](key)}\n{after}"
    masked = mask.text(said)
    assert clean(masked.encode(), key)
    # What is no part of the key stays.
    assert mask.text(masked) == masked
    assert masked.startswith(mask.text(before)[:1])


@given(st.lists(st.sampled_from([KEY, "data: ", "x" * 70_000, "\n", "\r\n", "\n\n", KEY[:9], KEY[9:], "é"])), st.data())
@settings(deadline=None)
def test_no_cut_lets_a_key_through_and_whole_lines_go_on_at_once(parts: list[str], data: st.DataObject) -> None:
    content = "".join(parts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    mask = SecretMask([KEY])
    came: list[bytes] = []

    async def read() -> None:
        async for piece in MaskedResponse(FakeReply([*pieces]), mask):
            came.append(piece)

    asyncio.run(read())
    assert b"".join(came) == mask.content(content)
    whole = [piece for piece in pieces if piece]
    if all(piece.endswith(b"\n") for piece in whole):
        assert len(came) == len(whole)


@pytest.mark.parametrize("size", [1, 3, 9, 20])
@pytest.mark.parametrize("name", ["content", "reasoning_content", "unheard_of", "arguments"])
def test_events_do_not_add_up_to_a_key(name: str, size: int, tmp_path: Path) -> None:
    pieces = [f"a {KEY[:size]}", *(KEY[at : at + size] for at in range(size, len(KEY), size)), " z"]
    calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "look"}}]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    deltas = [
        {"tool_calls": [{"index": 0, "function": {name: piece}}]} if name == "arguments" else {name: piece}
        for piece in pieces
    ]
    more = {"tool_calls": calls} if name == "arguments" else {"content": "4"} if name != "content" else {}
    reply = stream(*(chunk(delta=delta) for delta in (more, *deltas)), chunk(finish="stop"), usage(3, 2), DONE)
    with watched(tmp_path, {"tiny": reply}) as running:
        for model in ("tiny", "outthink/single", "outthink/self-consistency@2"):
            for streamed in (False, True):
                fields = {"tools": tools} if name == "arguments" else {}
                got = running.proxy.chat(model, stream=streamed, **fields)
                whole = [got.json] if got.content.startswith(b"{") else got.events[:-1]
                said = "".join(_texts(whole, name))
                assert "***" in said or (name == "unheard_of" and not streamed)
                assert not any(KEY[at : at + 9] in said for at in range(len(KEY) - 8))
        assert clean(running.kept())


def _texts(value: Any, name: str) -> Iterator[str]:
    """Every text of a name, however deep."""
    if isinstance(value, dict):
        yield from (text for key, text in value.items() if key == name and isinstance(text, str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, name)


def test_a_backend_does_not_tell_the_key_of_another(tmp_path: Path) -> None:
    said = f"{KEY} and hunter2-and-more"
    replies = {"tiny": chat([said]), "no": refusal(said, 400), "late": stream(chunk(said), event({"error": said}))}
    with (
        ChatServer(
            routes={**dict.fromkeys(ASKED, lambda seen: replies[seen.body["model"]]), "/v1/models": models(*replies)}
        ) as one,
        ChatServer(routes={"/v1/models": models("other")}) as other,
        ChatServer(routes={"/v1/models": models("third")}) as third,
        ProxyServer(
            one.url,
            BackendSettings(url=other.url, key=KEY),
            BackendSettings(url=third.url.replace("//", "//me:hunter2-and-more@")),
        ) as proxy,
    ):
        for model in replies:
            for path, body in requests(model):
                got = proxy.send("POST", path, body)
                assert clean(got.content + str(got.headers).encode())
                assert b"hunter2" not in got.content


@pytest.mark.parametrize("status", [200, 400])
def test_what_is_packed_so_that_nobody_can_look_is_not_passed_on(status: int, tmp_path: Path) -> None:
    packed = whole(b"\x8b\x05\x80" + KEY.encode()[::-1], status, content_encoding="br")
    with watched(tmp_path, {"tiny": packed}) as running:
        for path, body in requests("tiny"):
            got = running.ask(path, body)
            assert KEY.encode()[::-1] not in got
            assert b"content-encoding" not in got.lower()
            assert b'"error"' in got


@pytest.mark.parametrize("piece", ["\\", "\\u", "%25", "&#0", "&#" + "0" * 50, "caf\\u00e9 ", KEY[:-1] + "\\"])
def test_no_text_takes_long_to_be_masked(piece: str) -> None:
    content = piece.encode() * (200_000 // len(piece))
    began = time.thread_time()
    assert SecretMask([KEY]).content(content) is not None
    assert time.thread_time() - began < 2.0  # a quadratic pattern takes minutes


@settings(deadline=None)
@given(secrets, st.sampled_from(["plain", "json", "url", "html", "x"]), st.text("中文\U0001f600é", min_size=1))
def test_a_key_is_found_in_foreign_text(key: str, form: str, text: str) -> None:
    foreign = json.dumps(text)[1:-1]
    assert clean(SecretMask([key]).content(f"{foreign}{FORMS[form](key)}{foreign}".encode()), key)


def test_foreign_text_costs_a_fraction_of_what_looking_at_each_letter_does() -> None:
    content = b"\\u4e2d\\u6587" * 100_000
    took = []
    for key in (KEY, f"{KEY}ß"):
        mask = SecretMask([key])
        began = time.thread_time()
        assert mask.content(content) == content
        took.append(time.thread_time() - began)
    assert took[0] < took[1] / 3


RARE = {
    "base32": base64.b32encode(f"key {KEY}!".encode()),
    "header": base64.b64encode(f"Authorization: Bearer {KEY}\r\n".encode()),
    "bearer": base64.urlsafe_b64encode(f"Bearer {KEY}".encode()),
    "base64 twice": base64.b64encode(base64.b64encode(f"Bearer {KEY}".encode())),
    "numbers": str([*KEY.encode()]).encode(),
    "packed numbers": json.dumps([*KEY.encode()], separators=(",", ":")).encode(),
    "small base32": base64.b32encode(KEY.encode()).lower(),
    "hex with blanks": KEY.encode().hex(" ").upper().encode(),
    "hex as in a program": ", ".join(map(hex, KEY.encode())).encode(),
    "blanks": " ".join(KEY).encode(),
    "hex with colons": KEY.encode().hex(":").encode(),
    "capitals": KEY.upper().encode(),
}


@pytest.mark.parametrize("form", RARE)
def test_a_rare_form_of_a_key_is_masked_but_for_its_edges(form: str) -> None:
    masked = SecretMask([KEY]).content(b'{"said": "%s"}' % RARE[form])
    assert masked.startswith(b'{"said": "')
    assert b"***" in masked
    first, _, last = masked[10:-2].partition(b"***")
    assert len(last) <= 8  # of an encoding that goes on behind the key
    assert len(first) <= len(RARE[form]) - len(RARE["capitals"])


@pytest.mark.parametrize("prefix", ["sk-", "gsk_", "sk-proj-", "hf_"])
def test_what_is_behind_the_prefix_of_a_key_is_the_key(prefix: str) -> None:
    key = f"{prefix}Zq8vT3nB7kLm2Xw9Rd5Yf1Hc6Jg4Ps0A"
    assert SecretMask([key]).text(f"no key {key[len(prefix) :]} here, nor {key}") == "no key *** here, nor ***"


def test_a_mixture_of_escapes_is_read_like_any_other() -> None:
    mixed = "".join(f"\\u{ord(letter):04x}" if at % 3 else f"%{ord(letter):02X}" for at, letter in enumerate(KEY))
    assert SecretMask([KEY]).text(f"a {mixed} b") == "a *** b"


def test_the_operator_reads_which_backend_has_refused_the_key(tmp_path: Path) -> None:
    with watched(tmp_path, {"tiny": refusal(KEY, 401)}) as running:
        number = running.proxy.chat("tiny").headers.get("x-outthink-receipt")
        (row,) = running.proxy.get("/dashboard/api/requests").json["rows"]
        record = running.proxy.do(running.proxy.ledger.receipt(number or row["id"]))
        for line in (logs.text_line(record), logs.json_line(record)):
            assert f"backend {running.backend.url} answered 401" in line
            assert "502" in line
            assert KEY not in line


def test_what_a_client_is_let_in_by_goes_to_no_backend(tmp_path: Path) -> None:
    sent = dict.fromkeys(("authorization", "x-api-key", "api-key", "cookie"), "Bearer a-clients-own-secret")
    with watched(tmp_path, {"tiny": chat(["4"])}, key=None) as running:
        for path, body in requests("tiny"):
            running.proxy.send("POST", path, body, **sent)
        seen = [seen for seen in running.backend.seen if seen.path in ASKED]
        assert len(seen) >= len(list(requests("tiny")))
        assert not any("a-clients-own" in value for request in seen for value in request.headers.values())
