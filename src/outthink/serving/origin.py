"""Who may talk to a proxy that asks for no key: programs of this machine, and no web page.

A page in a browser can send requests to loopback, directly or by a name that it makes point there. The
headers that it cannot forge tell it apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from outthink.serving.failure import Failure


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    return host.startswith("127.") or host in ("localhost", "::1")


def check_origin(headers: Mapping[str, str]) -> None:
    """Refuse requests of web pages. Raises Failure."""
    origin = headers.get("Origin")
    if origin is not None and not _local(origin):
        raise Failure(
            403, "Origin: web pages need an API key; add one (outthink keys add)", param="Origin", code="origin"
        )
    host = headers.get("Host")
    if host is not None and not _local(f"//{host}"):
        raise Failure(403, "Host: other names than localhost need an API key", param="Host", code="host")


@lru_cache(256)
def _local(url: str) -> bool:
    """Whether a URL's host is this machine by its whole name; localhost.example.com is not."""
    try:
        name = urlsplit(url).hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
