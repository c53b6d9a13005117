"""Long requests and replies take their memory once, and hold up nobody: what is long is done beside the event loop."""

from __future__ import annotations

import http.client
import json
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("aiohttp")

from outthink.serving.pool import BackendSettings
from outthink.serving.pool.rules import FieldSettings
from support.chat_server import ChatServer, chat
from support.proxy_process import serving
from support.proxy_server import CHAT, ProxyServer

MIB = 1 << 20
LONG: dict[str, dict[str, Any]] = {
    "documents": {"documents": [{"text": "word " * MIB}, {"text": "\u00fc" * MIB}]},
    "two fields": {"metadata": {"a": "b" * MIB}, "logit_bias": {str(at): -1 for at in range(50_000)}, "x": [1]},
    "tools": {
        "tools": [{"type": "function", "function": {"name": f"f{at}", "description": "x" * 500}} for at in range(999)]
    },
    "messages, too": {"documents": ["x" * MIB], "messages": [{"role": "user", "content": "y" * MIB}]},
}


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("length", ["max_tokens", "max_completion_tokens"])
def test_long_fields_are_sent_whole_with_every_sample(kind: str, length: str) -> None:
    asked = {"messages": [{"role": "user", "content": "Hello"}], **LONG[kind]}
    with ChatServer(chat(["The answer is 4."])) as backend:
        settings = BackendSettings(url=backend.url, fields=FieldSettings(length_name=length))
        with ProxyServer(settings) as proxy:
            body = {"model": "outthink/self-consistency@3", "max_tokens": 7, "temperature": 0.5, **asked}
            assert proxy.send("POST", CHAT, body).status == 200
        assert len(backend.calls) >= 2  # they may agree before the third is sent
        for seen in backend.calls:
            assert {name: seen.body[name] for name in asked} == asked
            assert (seen.body["model"], seen.body[length], seen.body["temperature"]) == ("toy", 7, 0.5)


def peak(process: int) -> int:
    """Bytes that a process has had at most."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) << 10


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process has had at most")
@pytest.mark.parametrize("field", ["messages", "metadata", "documents", "tools", "stop", "unknown"])
def test_a_body_of_64_samples_takes_20_times_its_size(field: str) -> None:
    text = "word " * (MIB // 5)
    parts = {
        "messages": [{"role": "user", "content": text}],
        "metadata": {"a": text},
        "documents": [text],
        "tools": [{"type": "function", "function": {"name": "f", "description": text}}],
        "stop": [text[:4000]] * 64,
        "unknown": {"a": [{"b": text}]},
    }
    with (
        ChatServer(chat(["4"])) as backend,
        serving("--model", backend.url) as (process, url),
        closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection,
    ):

        def ask(fields: dict[str, Any]) -> None:
            body = {"model": "outthink/self-consistency@64", "messages": [{"role": "user", "content": "Hi"}], **fields}
            connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
            reply = connection.getresponse()
            assert (reply.status, bool(reply.read())) == (200, True)

        ask({})  # what is imported and connected on first use is now
        before = peak(process.pid)
        ask({field: parts[field]})
        assert peak(process.pid) - before < 20 * MIB
