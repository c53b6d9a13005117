"""One server: where it is, and requests to it whose failures are worded.

Knows how users write a URL, the key, and HTTP through the transport alone. Does not know chat parameters or what a
completion is, and never retries.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote, urlsplit

from outthink.core.errors import BadInput
from outthink.http.errors import ServerErrors
from outthink.http.events import Json, JsonObject
from outthink.http.secrets import MaskedResponse, mask_of
from outthink.http.transport import Body, Response, Timeouts, Transport, TransportFault, read_to_end
from outthink.http.unpack import unpacked

_PASTED = ("/chat/completions", "/completions", "/models")
_VERSION = re.compile(r"v\d+(?:alpha|beta)?\d*")
_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")  # noqa: S104 - a name to recognise, nothing listens on it


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address in the forms that are needed.

    Args:
        base: URL that `/chat/completions` is appended to, without user, password and query.
        root: the same without its version segment; llama.cpp and vLLM have `/tokenize` there.
        query: query string to send along, empty for none. May hold a secret, so it is never shown.
        userinfo: value of an Authorization header from `user:password@`, None without one.
    """

    base: str
    root: str
    query: str = field(default="", repr=False)
    userinfo: str | None = field(default=None, repr=False)

    @classmethod
    @lru_cache(64)
    def parse(cls, url: str) -> Address:
        """Read a URL with or without `/v1`, a trailing slash or a pasted `/chat/completions`."""
        remedy = "give something like http://127.0.0.1:8000/v1"
        # The value itself is left out of the messages where it could hold a password.
        shown = "..." if "@" in url or "?" in url else url
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise BadInput("model URL", shown, "is not a URL", remedy) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput("model URL", shown, "does not start with http:// or https:// and a host", remedy)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        origin = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
        path = parts.path.rstrip("/")
        for ending in _PASTED:
            path = path.removesuffix(ending)
        path = path.rstrip("/")
        if not any(_VERSION.fullmatch(part) for part in path.split("/")):
            path += "/v1"
        root = path.rsplit("/", 1)[0] if _VERSION.fullmatch(path.rsplit("/", 1)[-1]) else path
        userinfo = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            userinfo = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(origin + path, origin + root, parts.query, userinfo)

    @property
    def whole(self) -> str:
        """All that tells it from another, secrets included: to be hashed only."""
        return "\n".join((self.base, self.query, self.userinfo or ""))

    @property
    def local(self) -> bool:
        """Whether the host is this machine."""
        host = urlsplit(self.base).hostname or ""
        return host.startswith(_LOOPBACK)

    def url(self, path: str, *, root: bool = False) -> str:
        """The URL of an endpoint, query included: for sending only."""
        return (self.root if root else self.base) + path + (f"?{self.query}" if self.query else "")


_MOST = 1 << 20  # bytes of a reply that is read whole: a list of models or an error


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that was read whole."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Json:
        """The decoded body, None if it is not JSON."""
        try:
            value: Json = json.loads(self.content)
            return value
        except ValueError:
            return None

    def object(self) -> JsonObject | None:
        """The JSON object of a reply with status 200, None for anything else."""
        value = self.json() if self.status == 200 else None
        return value if isinstance(value, dict) else None


class Server:
    """An address, the key for it and the transport that reaches it; `repr` and errors hide the key."""

    def __init__(
        self,
        address: Address,
        key: str | None,
        transport: Transport,
        timeouts: Timeouts,
        errors: type[ServerErrors] = ServerErrors,
    ) -> None:
        key = (key or "").strip()
        if not key.isascii() or not key.isprintable():
            raise BadInput("API key", "***", "has characters that no header can carry", "copy it again")
        self.address, self.transport, self.timeouts = address, transport, timeouts
        secrets = (key, address.query, address.userinfo or "")
        self.errors = errors(address.base, secrets, timeouts)
        self.sent = 0
        """Requests sent so far."""
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        elif address.userinfo is not None:
            self._headers["authorization"] = address.userinfo

    def __repr__(self) -> str:
        return f"Server({self.address.base!r})"

    def encode(self, body: Mapping[str, Json]) -> Body:
        """A body as JSON."""
        return json.dumps(body).encode()

    async def open(
        self, path: str, body: Mapping[str, Json] | None = None, *, root: bool = False, stream: bool = False
    ) -> Response:
        """Send a request (GET without a body) and return its reply, whatever its status.

        Raises:
            EngineError: no reply came.
        """
        self.sent += 1
        method, content = ("GET", None) if body is None else ("POST", self.encode(body))
        headers = {**self._headers, "accept": "text/event-stream, application/json" if stream else "application/json"}
        url = self.address.url(path, root=root)
        mask = mask_of(url, headers)
        try:
            reply = unpacked(await self.transport.open(method, url, headers, content, self.timeouts))
        except TransportFault as fault:
            raise self.errors.fault(fault if mask is None else mask.fault(fault)) from fault
        return reply if mask is None else MaskedResponse(reply, mask)

    async def fetch(self, path: str, body: Mapping[str, Json] | None = None, *, root: bool = False) -> Answer:
        """Send a request and read its reply whole."""
        return await self.read(await self.open(path, body, root=root))

    async def read(self, reply: Response) -> Answer:
        """Read a reply whole (errors and lists, so a megabyte at most) and close it."""
        content, broken = await read_to_end(reply, _MOST)
        if broken is not None and reply.status == 200:  # a refusal's status says more than that its text was cut off
            raise self.errors.fault(broken) from broken
        return Answer(reply.status, reply.headers, content)
