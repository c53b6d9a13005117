"""The sections of the configuration that no part of the proxy defines itself.

Knows their keys and which values make sense. Does not know files, the environment or flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.economics.tariff import Energy
from outthink.http.server import Address
from outthink.serving.config.secret import read_key
from outthink.serving.ledger import Rules, usual_url
from outthink.serving.pool.settings import BackendSettings

_DAY = 86_400.0
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where clients come in.

    Args:
        host: address to listen on; beyond loopback only with API keys (outthink keys add).
        port: 0 for any that is free.
    """

    host: str = "127.0.0.1"
    port: int = 8000

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise BadInput("port", self.port, "is no port", "give 0 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One model server. Repeat the section for each.

    Args:
        url: of the server, `embedded` for the small model that comes with us, or the path of a GGUF file.
        key_env: variable of the environment that holds the key it wants.
        key_file: file that holds the key it wants.
        weight: its share of the requests, relative to the other backends of the same model.
        limit: calls in flight at once; left out, as many as come.
        models: names that it is asked for; left out, all that it lists.
        price: dollars per million tokens, as `IN,OUT` or `IN,OUT,CACHED`; left out, those published.
        energy: joules a token, bounds from above, as `PROMPT,COMPLETION`; left out, unknown.
    """

    url: str
    key_env: str | None = None
    key_file: Path | None = None
    weight: float = 1.0
    limit: int | None = None
    models: tuple[str, ...] = ()
    price: str | None = None
    energy: str | None = None
    key: str | None = field(default=None, repr=False, metadata={"hidden": True})

    def __post_init__(self) -> None:
        if not self.local:
            Address.parse(self.url)
        elif self.key_env or self.key_file:
            raise BadInput("key_env", self.key_env or str(self.key_file), "is of no use here", "leave it out")
        if self.key_env and self.key_file:
            raise BadInput("key_file", str(self.key_file), "stands beside key_env", "give one of the two")
        self.settings()

    @property
    def local(self) -> bool:
        """Whether it runs in a child process of ours."""
        return self.url == "embedded" or self.url.endswith(".gguf")

    def settings(self, key: str | None = None) -> BackendSettings:
        """What the pool is told."""
        return BackendSettings(
            url=self.url,
            key=key,
            weight=self.weight,
            limit=self.limit,
            models=self.models,
            price=None if self.price is None else Price.parse(self.price),
            energy=None if self.energy is None else Energy.parse(self.energy),
        )

    def secret(self) -> str | None:
        """The key. Raises BadInput where it cannot be read."""
        return self.key or read_key(self.key_env, self.key_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Where keys, budgets and receipts are kept.

    Args:
        url: `sqlite:///PATH`, `postgresql://USER@HOST/NAME`, `memory:` to forget; left out, a file of ours.
        url_env: variable of the environment that holds the URL, if it has a password.
        url_file: file that holds the URL, if it has a password.
        keep_days: after which requests are deleted, their sums by day stay; left out, never.
    """

    url: str | None = None
    url_env: str | None = None
    url_file: Path | None = None
    keep_days: float | None = None

    def __post_init__(self) -> None:
        if self.keep_days is not None and not 0 < self.keep_days <= 36_500:
            raise BadInput("keep_days", self.keep_days, "is no time", "give days above 0, or leave it out")
        given = [name for name in ("url", "url_env", "url_file") if getattr(self, name)]
        if len(given) > 1:
            raise BadInput(given[1], str(getattr(self, given[1])), f"stands beside {given[0]}", "give one of the two")
        if self.url is not None and urlsplit(self.url).scheme not in ("sqlite", "postgresql", "postgres", "memory"):
            raise BadInput("url", masked(self.url), "is no ledger", "give sqlite:///PATH, postgresql://... or memory:")

    def resolved(self) -> str:
        """The URL, secrets included: never to be shown. Raises BadInput where it cannot be read."""
        told = self.url or read_key(self.url_env, self.url_file, env="url_env", path="url_file")
        return told or usual_url()

    def rules(self, content: Content) -> Rules:
        """What the ledger is told of how long things stay."""
        keep = None if self.keep_days is None else self.keep_days * _DAY
        return Rules(logs_content=content.log, keep=keep, keep_content=content.days * _DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """What `outthink/auto` does.

    Args:
        file: of `outthink calibrate`; left out, rules that need no calibration. Read again when it changes.
        shadow: another one, whose choices are recorded beside and not carried out.
        share: part of the requests that the shadow policy decides for real, 0 to 1.
    """

    file: Path | None = None
    shadow: Path | None = None
    share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise BadInput("share", self.share, "is no share", "give a number from 0 to 1")
        if self.share and self.shadow is None:
            raise BadInput("share", self.share, "has no policy to go to", "give shadow as well")


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Traces and metrics.

    Args:
        endpoint: of an OpenTelemetry collector (OTLP over HTTP); left out, none is told.
        service: name that we have there.
    """

    endpoint: str | None = None
    service: str = "outthink"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """One line of JSON for every request.

    Args:
        level: debug, info, warning or error.
        file: to write to; left out, standard error.
    """

    level: str = "info"
    file: Path | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise BadInput("level", self.level, "is no level", f"use one of {', '.join(LEVELS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What clients and models say to each other. Never kept unless this says so.

    Args:
        log: keep prompts and answers beside their receipts.
        days: after which they are deleted.
    """

    log: bool = False
    days: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.days <= 36_500:
            raise BadInput("days", self.days, "is no time", "give days above 0")


def masked(url: str) -> str:
    """A URL as it may be shown: without its password and its query."""
    bare, _, query = url.partition("?")
    start, mark, rest = bare.partition("://")
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = f"{start}{mark}{user}{':***' if colon else ''}{at}{host}" if at else bare
    return shown + ("?***" if query else "")
