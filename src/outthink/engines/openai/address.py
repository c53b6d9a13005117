"""Where a server is. Knows how users write its URL; does not know what is served there."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from outthink.core.errors import BadInput

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
    def local(self) -> bool:
        """Whether the host is this machine."""
        host = urlsplit(self.base).hostname or ""
        return host.startswith(_LOOPBACK)

    def url(self, path: str, *, root: bool = False) -> str:
        """The URL of an endpoint, query included: for sending only."""
        return (self.root if root else self.base) + path + (f"?{self.query}" if self.query else "")
