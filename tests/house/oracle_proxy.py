"""What the proxy says of itself, asked over loopback: a part of the oracle.

Knows: how `outthink serve` is started and stopped, a scripted model server to put behind it, and the text
format of Prometheus. Does not know any module of the package.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MODEL = "qwen2.5-coder-0.5b-instruct"
"""A name whose parameters are known, so that FLOPs are counted."""
_SERVE = ("serve", "--port", "0", "--ledger", "memory:", "--price", "1,2", "--energy", "0.1,0.2")
_UNCOUNTED = "without counts"
"""A question that is answered without usage."""
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? \S+$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ADDED = re.compile(r"_(?:bucket|sum|count)$")


class _Model(BaseHTTPRequestHandler):
    """Lists one model, and answers each chat with `Final answer: 4`, as events where it is asked to."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        """The list of models, whatever the path."""
        self._send({"object": "list", "data": [{"id": _MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        """A chat."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        counts = None if _UNCOUNTED in json.dumps(asked["messages"]) else {"prompt_tokens": 5, "completion_tokens": 2}
        usage = {} if counts is None else {"usage": {**counts, "total_tokens": 7}}
        about = {"id": "c", "created": 1, "model": _MODEL}
        text = "Final answer: 4"
        if not asked.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            self._send({**about, "object": "chat.completion", "choices": [choice], **usage})
            return
        about["object"] = "chat.completion.chunk"
        deltas = [({"role": "assistant", "content": text}, None), ({}, "stop")]
        events = [{**about, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
        events += [{**about, "choices": [], **usage}] if usage else []
        body = "".join(f"data: {line}\n\n" for line in [*map(json.dumps, events), "[DONE]"])
        self._reply(body.encode(), "text/event-stream")

    def _send(self, value: Any) -> None:
        self._reply(json.dumps(value).encode(), "application/json")

    def _reply(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def _model() -> Iterator[str]:
    """The URL of the scripted model server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join(5)


@contextmanager
def _proxy(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """The root URL of `outthink serve` in front of that model."""
    with _model() as url:
        process = subprocess.Popen(
            [*command, *_SERVE, "--model", url], env=dict(environment), stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            result = re.search(r"(http://\S+)/v1", line)
            if result is None:
                raise RuntimeError(f"outthink serve did not start: {line}")
            yield result[1]
        finally:
            process.kill()
            process.communicate(timeout=10)


def _ask(url: str, body: Any = None) -> bytes:
    """The body of the reply, whatever its status."""
    content = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, content, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=20) as reply:
            return bytes(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


def openapi(command: Sequence[str], environment: Mapping[str, str]) -> Any:
    """The document at /openapi.json."""
    with _proxy(command, environment) as root:
        return json.loads(_ask(f"{root}/openapi.json"))


def metrics(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Type, help, labels and buckets of every metric, after requests of each kind: only then are there labels."""
    with _proxy(command, environment) as root:
        for fields in (
            {},
            {"stream": True},
            {"model": "outthink/self-consistency@2"},
            {"messages": [{"role": "user", "content": _UNCOUNTED}]},
            {"model": "nobody"},
        ):
            chat = {"model": _MODEL, "messages": [{"role": "user", "content": "What is 2 + 2?"}], **fields}
            _ask(f"{root}/v1/chat/completions", chat)
        before, text = "", _ask(f"{root}/metrics").decode()
        for _ in range(20):  # what is told after a reply has been sent
            if text == before:
                break
            time.sleep(0.25)
            before, text = text, _ask(f"{root}/metrics").decode()
    return families(text)


def families(text: str) -> dict[str, dict[str, Any]]:
    """What Prometheus' text format tells of each metric, values left out."""
    result: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            key, name, received = [*line[2:].split(" ", 2), ""][:3]
            result.setdefault(name, {"labels": [], "bounds": []})[key.lower()] = received
        elif (sample := _SAMPLE.match(line)) is not None:
            name = sample[1] if sample[1] in result else _ADDED.sub("", sample[1])
            one = result.setdefault(name, {"labels": [], "bounds": []})
            for label, value in _LABEL.findall(sample[2] or ""):
                kept = one["bounds"] if label == "le" else one["labels"]
                received = value if label == "le" else label
                kept += [received] if received not in kept else []
    return result
