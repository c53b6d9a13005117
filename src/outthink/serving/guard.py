"""Who may come in: whether a request needs a key, where a proxy may listen, and what remembers that keys were wanted.

Knows: the mode that the operator chose, loopback addresses, headers that tell of a web page or of another server, and
the marker files. Does not know keys, ledgers, or what a request does.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

from outthink.core.errors import BadInput
from outthink.core.paths import private_file, private_folder, state_dir
from outthink.serving.failure import Failure
from outthink.serving.protocols import ANYONE, PREFIX, Key

MODES = ("auto", "required", "open")
_log = logging.getLogger("outthink.serving")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone: by its number, or as localhost."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"
    return _plain(address).is_loopback


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


# A web page can send requests to loopback, directly or by a name that it makes point there; a server in front of the
# proxy, on the same machine, brings clients from anywhere. Headers that neither can leave out tell them apart from
# programs of this machine. Those of other servers have the names that the usual servers and content networks use.

_FORWARDED = re.compile(
    r"forwarded|(?:.*-)?via|cdn-loop|early-data|surrogate-capability|front-end-https|(?:.*-)?forward(?:ed|er)?-for.*"
    r"|x-forwarded.*|forwarded-.*"
    r"|(?:.*-)?(?:client|connecting|connection|cluster|real|remote|socket|source|src|peer|originating|proxyuser|user)"
    r"-?(?:ips?|ipv6|addr|address|ip-address)|(?:.*-)?ip|(?:x-)?remote-user|x-client-cert|x-(?:http-)?host-override"
    r"|x-(?:real|client|remote)-(?:port|host)|x-(?:original|rewrite)-(?:host|ur[il]|proto)|x-(?:request|queue)-start"
    r"|x-(?:host|scheme|url-scheme|varnish|nginx-proxy|proxy-id|proxy-host|proxied-by|served-by|ingress-path)"
    r"|(?:x-(?:envoy|arr|azure|amz-cf|vercel|akamai|appengine|railway|render|goog-authenticated|forward)|true-client)-.*"
    r"|x-(?:auth-request|consumer|goog-iap|haproxy|heroku|kong|nf|ssl-client|traefik)-.*"
    r"|(?:cf|cloudfront|fastly|akamai|fly|tailscale|ngrok|rndr|l5d|ssl-client)-.*"
)


@lru_cache(1024)
def _kind(name: str) -> str | None:
    """What a header tells of: `origin`, `host`, `forwarded`, or nothing that matters here."""
    name = name.lower().replace("_", "-")
    if name in ("origin", "host"):
        return name
    return "forwarded" if _FORWARDED.fullmatch(name) is not None else None


@lru_cache(64)  # the same programs send the same names; each entry may hold a whole head
def _told(names: tuple[str, ...]) -> tuple[str | None, bool]:
    """The first header that another server has added, and whether there is more to look at than one Host."""
    kinds = [_kind(name) for name in names]
    forwarded = names[kinds.index("forwarded")] if "forwarded" in kinds else None
    return forwarded, "origin" in kinds or kinds.count("host") > 1


def forwarded_by(headers: Iterable[str]) -> str | None:
    """The name of the header that shows that another server has passed a request on, None where nothing does."""
    return _told(tuple(headers))[0]


def check_origin(headers: Mapping[str, str], more: bool = True) -> None:
    """Refuse requests of web pages. Raises Failure.

    Args:
        more: whether there is anything to look at but one Host.
    """
    host = headers.get("Host")
    if more or host is None or not _local(f"//{host}"):
        for name, value in headers.items():  # one that stands twice may count either way elsewhere
            kind = _kind(name)
            if kind == "origin" and not _local(value):
                message = "Origin: web pages need an API key; add one (outthink keys add)"
                raise Failure(403, message, param="Origin", code="origin")
            if kind == "host" and not _local(f"//{value}"):
                raise Failure(403, "Host: other names than localhost need an API key", param="Host", code="host")


@lru_cache(256)
def _local(url: str) -> bool:
    """Whether a URL's host is this machine by its whole name; localhost.example.com is not."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


class Marker:
    """Empty files that remember that a key was made, whatever becomes of the ledger.

    Args:
        paths: where it is kept: any of them is enough to say so, and each is written that can be.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    @classmethod
    def of(cls, config: Path | None, ledger: str) -> Marker:
        """Beside the configuration's file, and in the state folder by the ledger's address.

        Args:
            ledger: its address, without secrets and the same however it is written.
        """
        beside = () if config is None else (config.with_name(f"{config.name}.keys"),)
        number = hashlib.sha256(ledger.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return cls(*beside, state_dir() / "keys" / number)

    @property
    def made(self) -> Path | None:
        """The file that says that a key was made, None where none does."""
        return next(filter(os.path.lexists, self.paths), None)

    def absent(self, named: bool, *, new: bool = False) -> str:
        """What to do where there is no ledger at the address, empty where one may be made.

        Args:
            named: the operator has said which ledger it is.
            new: the operator wants a new one.
        """
        if not named:
            return ""
        if (made := self.made) is not None:
            remedy = "correct it, or make one with a key in it: outthink keys add NAME"
            return f"{remedy} (--new-ledger makes none: {made} says that a key was made before)"
        return "" if new else "correct it, or make one with --new-ledger"

    def make(self) -> None:
        """Remember it. Raises OSError where no place can be written."""
        failed: list[OSError] = []
        for path in self.paths:
            try:
                private_folder(path.parent)
                private_file(path)
            except OSError as error:  # a configuration is often in a folder that only its owner may write to
                failed.append(error)
        if len(failed) == len(self.paths):
            raise failed[0]

    def remove(self) -> list[Path]:
        """Forget it; returns the files that were there. Raises OSError for one that stays."""
        removed = [path for path in self.paths if os.path.lexists(path)]
        for path in removed:
            path.unlink()
        return removed


class Guard:
    """Decides whether a request needs a key.

    Args:
        mode: `required`: always; `open`: never; `auto`: where a key was ever made, and for requests that another
            server has passed on.
        marker: says that a key was made, also where the ledger knows nothing of it.
    """

    def __init__(self, mode: str = "auto", marker: Marker | None = None) -> None:
        self.mode, self._marker = mode, marker
        self.wanted = mode == "required" or (mode == "auto" and marker is not None and marker.made is not None)

    def needs_key(self, guarded: bool) -> bool:
        """Whether every request needs one; `guarded`: the ledger has held keys."""
        return self.mode != "open" and (guarded or self.wanted)

    def admitted(self, key: Key | None, bearer: str | None, headers: Mapping[str, str], guarded: bool) -> Key | None:
        """Who a request comes from, None where it needs a key that it does not have. Raises Failure for web pages.

        Args:
            key: what the ledger makes of the bearer token.
        """
        self.note(guarded)
        if self.needs_key(guarded):
            return None if key is ANYONE else key
        # Only where keys exist and nobody needs one: what looks like one of ours was meant to be one.
        if key is None and not (bearer or "").startswith(PREFIX):
            key = ANYONE
        if key is ANYONE:
            forwarded, more = _told(tuple(headers))
            if self.mode == "auto" and forwarded is not None:
                return None
            check_origin(headers, more)
        return key

    def check_ledger(self, url: str) -> None:
        """Refuse to demand keys of a ledger that keeps none. Raises BadInput."""
        if self.wanted and url == "memory:":
            remedy = 'use a SQLite file or PostgreSQL, or keys = "open"'
            raise BadInput("ledger", url, "keeps no keys, and every request needs one", remedy)

    def check_host(self, host: str, guarded: bool) -> None:
        """Refuse to listen where others can come in without a key. Raises BadInput."""
        if is_loopback(host) or (guarded and self.mode != "open"):
            return
        if self.mode == "open":
            remedy = 'use keys = "auto", or listen on 127.0.0.1'
            raise BadInput("host", host, 'is reachable from elsewhere, and keys = "open" asks for none', remedy)
        remedy = "add a key first (outthink keys add), or listen on 127.0.0.1"
        raise BadInput("host", host, "is reachable from elsewhere, and there are no API keys", remedy)

    def note(self, guarded: bool) -> None:
        """Remember that the ledger holds keys: should it be lost, they are asked for all the same."""
        if not guarded or self._marker is None:
            return
        marker, self._marker = self._marker, None  # once
        try:
            marker.make()
        except OSError as error:
            _log.warning('that API keys were made cannot be remembered (%s); set keys = "required"', error)
