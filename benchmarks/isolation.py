"""What one tenant's hostile requests cost another: 64 clients send in turn what once held the proxy up.

(a) a tool of 2,000 properties, (b) 100 tools of 10 parameters, (c) a schema with uniqueItems whose answer has 6,000
objects, (d) 31 MiB of small lists for an unknown model, (e) 15 MiB with 64 samples. Beside them another key asks 20
times a second and `/healthz` is looked at; the same again beside 64 clients of small plain bodies. Measures the
worker's peak memory and both waits in the event loop that it has by itself, and then, in runs of their own, the longest
callback by processor time: in asyncio's loop, for uvloop's callbacks cannot be timed. Needs a machine that does nothing
else. Takes four minutes.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from common import judged, load_average, parser, save_evidence, show
from outthink.serving.ledger import open_ledger
from outthink.serving.protocols import Terms

CLIENTS = 64
CHAT = "/v1/chat/completions"
MIB = 1 << 20
_PATIENCE = 1.0  # seconds for a client's last request: what it still waits for ends with the proxy
COMMAND = [sys.executable, "-c", "from outthink.cli.main import entry; entry()"]
TIMED = [sys.executable, str(Path(__file__).parents[1] / "tests" / "support" / "callbacks.py")]
OBJECTS = json.dumps([{"number": at, "name": f"object {at}"} for at in range(6000)])


def body(model: str, text: str = "Hello", **fields: Any) -> bytes:
    """A chat."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **fields}).encode()


def tool(name: str, properties: int) -> dict[str, Any]:
    """A tool of so many parameters."""
    parameters = {"type": "object", "properties": {f"property_{at}": {"type": "integer"} for at in range(properties)}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def hostile() -> dict[str, bytes]:
    """The bodies, by name."""
    unique = {"type": "array", "uniqueItems": True, "items": {"type": "object"}}
    form = {"type": "json_schema", "json_schema": {"name": "unique", "schema": unique}}
    return {
        "a tool of 2,000 properties": body("outthink/self-consistency@2", tools=[tool("large", 2000)]),
        "100 tools of 10": body("outthink/self-consistency@2", tools=[tool(f"tool_{at}", 10) for at in range(100)]),
        "uniqueItems": body("outthink/self-consistency@2", "6000 objects", response_format=form),
        "small lists": b'{"model":"unknown","x":[' + b"[[[]]]," * (31 * MIB // 7) + b"0]}",
        "64 samples": body("outthink/self-consistency@64", "words and more " * MIB),
    }


def answer(text: str) -> bytes:
    """A reply in one event."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    return b"data: " + json.dumps({"choices": [choice], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"


EVENTS = {False: answer("The answer is 4."), True: answer(OBJECTS)}
MODELS = json.dumps({"data": [{"id": "toy"}]}).encode()


class Backend(asyncio.BufferedProtocol):
    """A server that reads everything, keeps next to nothing, and answers at once."""

    buffer = memoryview(bytearray(1 << 18))  # one for all: nothing is left in it when it is used again
    _start: bytes
    _come: int
    _size: int | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The proxy has opened a connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come. The proxy sends nothing more until it has its reply."""
        self._come += nbytes
        if len(self._start) < 1 << 13:
            self._start += bytes(self.buffer[: min(nbytes, 1 << 13)])
        if self._size is None and (end := self._start.find(b"\r\n\r\n")) >= 0:
            told = re.search(rb"content-length: *(\d+)", self._start[:end], re.IGNORECASE)
            self._size = end + 4 + (int(told[1]) if told else 0)
        if self._come == self._size:
            self._reply()

    def _reply(self) -> None:
        listed = self._start.startswith(b"GET")
        content = MODELS if listed else EVENTS[b"6000 objects" in self._start]
        kind = b"application/json" if listed else b"text/event-stream"
        size = b"%d" % len(content)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ncontent-length: " + size + b"\r\n\r\n"
        self._transport.write(head + content)
        self._begin()

    def _begin(self) -> None:
        self._start, self._come, self._size = b"", 0, None


async def backend() -> None:
    """Serve, and print the port."""
    # As long a line of new connections as real servers have: the kernel lets what overflows it wait for seconds.
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def keys(url: str) -> tuple[str, str]:
    """Secrets of two keys without budgets."""
    ledger = open_ledger(url)
    await ledger.open()
    made = [(await ledger.add_key(name, Terms()))[1] for name in ("hostile", "honest")]
    await ledger.close()
    return made[0], made[1]


class Clients:
    """Clients of one proxy, each in a thread of this process."""

    def __init__(self, port: int) -> None:
        self._port, self._enough = port, threading.Event()
        self._threads: list[threading.Thread] = []
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.waits: list[float] = []
        self.health: list[float] = []

    def start(self, *jobs: Callable[[], None]) -> None:
        """Begin to send."""
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait a little until everybody has been answered."""
        self._enough.set()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def repeat(self, bodies: dict[str, bytes], numbers: Iterator[int], secret: str) -> None:
        """One body after the other, with a key."""
        names = list(bodies)
        while not self._enough.is_set():
            name = names[next(numbers) % len(names)]
            self.statuses[name, self._ask("POST", CHAT, bodies[name], secret)] += 1

    def honest(self, secret: str) -> None:
        """A small body 20 times a second."""
        plain, due = body("toy"), time.perf_counter()
        while not self._enough.is_set():
            began = time.perf_counter()
            self.statuses["honest", self._ask("POST", CHAT, plain, secret)] += 1
            self.waits.append(time.perf_counter() - began)
            due = max(due + 0.05, time.perf_counter() - 1)
            time.sleep(max(0.0, due - time.perf_counter()))

    def probe(self) -> None:
        """Look at `/healthz`."""
        while not self._enough.is_set():
            began = time.perf_counter()
            self._ask("GET", "/healthz", None, "")
            self.health.append(time.perf_counter() - began)
            time.sleep(0.02)

    def _ask(self, method: str, path: str, content: bytes | None, secret: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            head = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
            try:
                connection.request(method, path, content, head)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it was refused before all of it was sent
            reply = connection.getresponse()
            reply.read()
            return reply.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


def tenant(port: int, secret: str) -> None:
    """The other tenant and the one who looks at `/healthz`, until the input ends.

    They are a process of their own: beside 64 threads that send megabytes they would wait for their own interpreter.
    """
    clients = Clients(port)
    clients.start(lambda: clients.honest(secret), clients.probe)
    sys.stdin.read()
    clients.stop()
    statuses = {str(status): number for (_, status), number in clients.statuses.items()}
    print(json.dumps({"waits": clients.waits, "health": clients.health, "statuses": statuses}))


def load(port: int, secrets: tuple[str, str], bodies: dict[str, bytes], seconds: float) -> dict[str, Any]:
    """Send for so many seconds; what the other tenant saw, and how many replies of each status came."""
    command = [sys.executable, __file__, "--tenant", str(port), secrets[1]]
    beside = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    clients, numbers = Clients(port), count()
    clients.start(*[lambda: clients.repeat(bodies, numbers, secrets[0])] * CLIENTS)
    time.sleep(seconds)
    seen: dict[str, Any] = json.loads(beside.communicate()[0])
    clients.stop()
    statuses = {f"{name}: {status}": number for (name, status), number in clients.statuses.items()}
    seen["statuses"] = {f"honest: {status}": number for status, number in seen["statuses"].items()} | statuses
    return seen


def measure(name: str, bodies: dict[str, bytes], seconds: float, *, timed: bool = False) -> dict[str, Any]:
    """One run in front of a fresh proxy, whose callbacks are timed or not."""
    with tempfile.TemporaryDirectory(prefix="outthink-isolation-") as folder:
        url, found = f"sqlite:///{folder}/ledger.sqlite", Path(folder) / "callbacks.json"
        environ = {**os.environ, "OUTTHINK_STATE": folder}
        secrets = asyncio.run(keys(url))
        server = subprocess.Popen([sys.executable, __file__, "--backend"], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        model = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        begin = [*TIMED, str(found)] if timed else COMMAND
        command = [*begin, "serve", "--port", "0", "--model", model, "--ledger", url, "--set", "logs.level=error"]
        proxy = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
        assert proxy.stderr is not None
        port = re.search(r"http://[^:]+:(\d+)", proxy.stderr.readline())
        assert port is not None
        seen = load(int(port[1]), secrets, bodies, seconds)
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{proxy.pid}/status").read_text())
        for _ in range(2):  # the second one waits for nobody
            proxy.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        proxy.wait(60)
        server.kill()
        callbacks = json.loads(found.read_text()) if timed else []
    waits, health = sorted(seen["waits"]), sorted(seen["health"])
    return {
        "run": name,
        "event loop": "asyncio" if timed or importlib.util.find_spec("uvloop") is None else "uvloop",
        "peak_mb": int(peak[1]) / 1024 if peak else None,
        "longest_callback_ms": 1000 * max((row["seconds"] for row in callbacks), default=0.0) if timed else None,
        "callback": callbacks[0]["callback"][:120] if callbacks else "",
        "healthz_ms": 1000 * health[-1],
        "tenant_p50_ms": 1000 * waits[len(waits) // 2],
        "tenant_p99_ms": 1000 * waits[int(len(waits) * 0.99)],
        "tenant_requests": len(waits),
        "statuses": dict(sorted(seen["statuses"].items())),
    }


def main() -> int:
    """Measure both runs, say what was found."""
    given = parser(__doc__)
    given.add_argument("--backend", action="store_true", help="be the scripted server")
    given.add_argument("--tenant", nargs=2, metavar=("PORT", "KEY"), help="be the other tenant until the input ends")
    given.add_argument("--seconds", type=float, default=45.0, help="of each run")
    wanted = given.parse_args()
    if wanted.backend:
        asyncio.run(backend())
    if wanted.tenant:
        tenant(int(wanted.tenant[0]), wanted.tenant[1])
        return 0
    before = load_average()
    loads = {"small plain bodies": {"small": body("toy")}, "hostile": hostile()}
    plain, against = (measure(name, bodies, wanted.seconds) for name, bodies in loads.items())
    timed = [measure(name, bodies, wanted.seconds, timed=True) for name, bodies in loads.items()]
    rows = [plain, against, *timed]
    failed = [name for name in against["statuses"] if name.startswith("honest") and not name.endswith(" 200")]
    ratio = against["tenant_p99_ms"] / plain["tenant_p99_ms"]
    targets = [
        judged("worker's peak, MB", max(row["peak_mb"] for row in rows), 400),
        judged("longest callback, ms of processor time", max(row["longest_callback_ms"] for row in timed), 20),
        judged("longest wait for /healthz, ms", against["healthz_ms"], 100),
        judged("the other tenant's p99 over that beside plain bodies", ratio, 2),
        judged("requests of the other tenant that failed", len(failed), 0),
    ]
    show("Beside 64 clients", rows)
    save_evidence("isolation", rows=rows, targets=targets, load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
