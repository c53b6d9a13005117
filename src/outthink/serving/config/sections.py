"""Sections of the configuration that no part of the proxy defines itself, and how a value becomes what its key wants.

Knows: keys, which values make sense, and secrets by reference (a variable or a file; none is ever shown). Does not know
where the configuration comes from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from outthink.configuration.file import toml_border
from outthink.controller.router.chooser import pairs_of
from outthink.core.errors import BadInput
from outthink.core.plugins import installed
from outthink.economics.price import Price
from outthink.economics.tariff import Energy
from outthink.engines.locate import SCHEMES
from outthink.http.errors import masked_url, shown_variable
from outthink.http.server import Address
from outthink.serving.guard import MODES
from outthink.serving.ledger import Rules, usual_url
from outthink.serving.pool.backend import BackendSettings
from outthink.serving.pool.rules import FieldSettings

_LONGEST = 1 << 16
_DAY = 86_400.0
_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_NAME = re.compile(r"[\w.-]+\Z")
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where clients come in.

    Args:
        host: address to listen on; beyond loopback only with API keys (outthink keys add).
        port: 0 for any that is free.
        keys: `required`: all need one; `open`: nobody; `auto`: all once one was made, and what another server sends on.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: str = "auto"

    def __post_init__(self) -> None:
        if not _is_host(self.host):
            remedy = "give it alone, without brackets, scheme and port, for example 127.0.0.1 or ::1"
            raise BadInput("host", self.host, "is neither a name nor a number", remedy)
        if self.keys not in MODES:
            raise BadInput("keys", self.keys, "is no mode", f"use one of {', '.join(MODES)}")
        if not 0 <= self.port <= 65535:
            raise BadInput("port", self.port, "is no port", "give 0 to 65535")


def _is_host(text: str) -> bool:
    if _NAME.match(text):
        return True
    try:
        return ip_address(text).version == 6  # with colons
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """One model server. Repeat the section for each.

    Args:
        url: of the server, an alias, `embedded` for the small model of ours, a GGUF file, or a plugin's SCHEME:REST.
        key_env: variable of the environment that holds the key it wants.
        key_file: file that holds the key it wants.
        weight: its share of the requests, relative to the other backends of the same model.
        limit: calls in flight at once; left out, as many as come.
        models: names that it is asked for; left out, all that it lists.
        price: dollars per million tokens, as `IN,OUT` or `IN,OUT,CACHED`; left out, those published.
        energy: joules a token, bounds from above, as `PROMPT,COMPLETION`; left out, unknown.
        parameters: weights read per token, for FLOPs; left out, what it tells, or its name.
        length_name: field that caps a chat there, `max_tokens` or `max_completion_tokens`; left out, the client's.
        allow_fields: fields, parts and tools that keys with a budget may send though nobody knows what they cost.
        image_tokens: of one picture at most; left out, keys with a budget may send none.
        audio_tokens_per_second: of sound at most; left out, keys with a budget may send none.
    """

    url: str
    key_env: str | None = None
    key_file: Path | None = None
    weight: float = 1.0
    limit: int | None = None
    models: tuple[str, ...] = ()
    price: str | None = None
    energy: str | None = None
    parameters: int | None = None
    length_name: str | None = None
    allow_fields: tuple[str, ...] = ()
    image_tokens: int | None = None
    audio_tokens_per_second: float | None = None
    key: str | None = field(default=None, repr=False, metadata={"hidden": True})
    name: str | None = field(default=None, metadata={"hidden": True})
    heading: str = field(default="serve.backends", compare=False, metadata={"hidden": True})
    alias: str | None = field(default=None, metadata={"hidden": True})
    context: int = field(default=0, metadata={"hidden": True})

    def __post_init__(self) -> None:
        if not self.local:
            Address.parse(self.url)
        elif self.key_env or self.key_file:
            raise BadInput("key_env", self.key_env or str(self.key_file), "is of no use here", "leave it out")
        if self.key_env and self.key_file:
            raise BadInput("key_file", str(self.key_file), "stands beside key_env", "give one of the two")
        if self.parameters is not None and self.parameters < 1:
            raise BadInput("parameters", self.parameters, "is below 1", "give at least 1, or leave it out")
        self.settings()

    @property
    def local(self) -> bool:
        """Whether it runs here: in a child process of ours, or as a plugin makes it."""
        return self.url == "embedded" or self.url.endswith(".gguf") or self.plugin is not None

    @property
    def plugin(self) -> str | None:
        """The scheme of a plugin's engine, None for any other model. Imports nothing."""
        scheme, colon, _ = self.url.partition(":")
        known = colon and scheme not in SCHEMES and any(plugin.name == scheme for plugin in installed("engines"))
        return scheme if known else None

    @property
    def setting(self) -> str:
        """The heading of its section in the file."""
        heading, name = self.heading, self.name
        return f"[[{heading}]]" if name is None else f"[{heading}.{name if _BARE.match(name) else json.dumps(name)}]"

    def settings(self, key: str | None = None) -> BackendSettings:
        """As the pool takes it."""
        fields = FieldSettings(
            setting=self.setting,
            length_name=self.length_name or ("max_tokens" if self.local else None),  # ours knows that name
            allow_fields=self.allow_fields,
            image_tokens=self.image_tokens,
            audio_tokens_per_second=self.audio_tokens_per_second,
        )
        return BackendSettings(
            url=self.url,
            key=key,
            weight=self.weight,
            limit=self.limit,
            models=self.models,
            price=None if self.price is None else Price.parse(self.price),
            energy=None if self.energy is None else Energy.parse(self.energy),
            parameters=self.parameters,
            alias=self.alias,
            fields=fields,
        )

    def secret(self, environ: Mapping[str, str] | None = None) -> str | None:
        """The key. Raises BadInput where it cannot be read."""
        return self.key or read_key(self.key_env, self.key_file, environ=environ)


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
        sources = {"url": self.url, "url_env": self.url_env, "url_file": self.url_file}
        given = [name for name, value in sources.items() if value]
        if len(given) > 1:
            raise BadInput(given[1], str(sources[given[1]]), f"stands beside {given[0]}", "give one of the two")
        if self.url is not None and self.url.partition(":")[0] not in ("sqlite", "postgresql", "postgres", "memory"):
            remedy = "give sqlite:///PATH, postgresql://... or memory:"
            raise BadInput("url", masked_url(self.url), "is no ledger", remedy)

    def resolved(self, environ: Mapping[str, str] | None = None) -> str:
        """The URL, secrets included: never to be shown. Raises BadInput where it cannot be read."""
        referred = read_key(self.url_env, self.url_file, env="url_env", path="url_file", environ=environ)
        return self.url or referred or usual_url()

    @property
    def named(self) -> bool:
        """Whether the operator has said which ledger it is."""
        return any((self.url, self.url_env, self.url_file))

    def rules(self, content: Content) -> Rules:
        """How long the ledger keeps things."""
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
class RouterFile:
    """Which model answers where a request names none.

    Args:
        file: of `outthink router train`, or its folder; left out, the first model that is served.
        map: NAME=ALIAS, what models of the router are called here.
        operating_point: WAY=X in place of the router's own, for example strong-share=0.3.
    """

    file: Path | None = None
    map: tuple[str, ...] = ()
    operating_point: str | None = None

    def __post_init__(self) -> None:
        pairs_of("map", self.map)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierConfig:
    """What judges samples for strategies and policies; `verifier = "..."` under [serve] says the same.

    Args:
        source: a reward model's folder or hub name, its server's URL, or a plugin's NAME:REST; left out, none.
    """

    source: str | None = None

    def __post_init__(self) -> None:
        if self.source is not None and masked_url(self.source) != self.source:
            raise BadInput("source", masked_url(self.source), "holds a secret", "name a server that wants none")


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """Traces and metrics.

    Args:
        endpoint: of an OpenTelemetry collector (OTLP over HTTP); left out, nothing is sent.
        service: name that we have there.
    """

    endpoint: str | None = None
    service: str = "outthink"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsConfig:
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


def read_key(
    variable: str | None,
    file: Path | None,
    *,
    env: str = "key_env",
    path: str = "key_file",
    environ: Mapping[str, str] | None = None,
) -> str | None:
    """The secret behind a reference, None without one. Raises BadInput that names the reference alone."""
    if variable is not None:
        secret = (os.environ if environ is None else environ).get(variable, "").strip()
        if not secret:
            raise BadInput(env, shown_variable(variable), "is not set", "set that variable, or name another")
    elif file is not None:
        try:
            with file.open("rb") as source:
                secret = source.read(_LONGEST).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise BadInput(path, str(file), f"cannot be read ({why})", "give a file with the secret") from None
        if not secret:
            raise BadInput(path, str(file), "is empty", "write the secret into it")
    else:
        return None
    if not secret.isprintable():
        raise BadInput(
            env if variable else path, variable or str(file), "holds more than one line", "keep the secret alone"
        )
    return secret


# Every message about a value names its place: the file and its key, the variable or the flag.

T = TypeVar("T")
_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it comes from.

    Args:
        value: as TOML has read it, or a text.
        where: for messages, for example `outthink.toml: pool.interval`.
        origin: `file`, `environment` or `flag`.
        folder: that relative paths belong to.
    """

    value: Any
    where: str
    origin: str
    folder: Path = Path()

    @property
    def text(self) -> bool:
        """Whether it is a text that stands for the value."""
        return self.origin != "file"


def keys_of(section: type) -> dict[str, Any]:
    """The keys that an operator may set, and their types."""
    hints = get_type_hints(section)
    return {entry.name: hints[entry.name] for entry in fields(section) if not entry.metadata.get("hidden")}


def unknown(where: str, name: str, known: list[str], what: str = "is not known") -> BadInput:
    """The error for a name that nobody knows, with the nearest that somebody does."""
    from outthink.validation import nearest

    return BadInput(where, name, what, nearest(name, known))


def build(section: type[T], settings: dict[str, Setting], place: str) -> T:
    """A section from what was said about it. Raises BadInput that names the place.

    Args:
        place: for keys that nobody has set, for example `backends[0]`.
    """
    from outthink.validation import joined, read_values

    def where(location: Sequence[str | int]) -> str:
        key, *inside = location
        # What is wrong with an address is told of the address, whatever its part is called.
        setting = settings.get(str(key)) or (settings.get("url") if key not in keys_of(section) else None)
        return (f"{place}.{key}" if setting is None else setting.where) + joined(inside)

    types = keys_of(section)
    values = {name: _plain(setting, types[name]) for name, setting in settings.items()}
    return read_values(section, values, replace(toml_border(), place=where))


def _plain(setting: Setting, kind: Any) -> Any:
    """A value as TOML would have it; of a text that stands for one. Raises BadInput."""
    value = setting.value
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
        if setting.text and value.strip().lower() == "none":
            return None
    listed = get_origin(kind) is tuple
    if setting.text:
        value = [part.strip() for part in value.split(",")] if listed else _read_text(value, kind)
    texts = value if listed and isinstance(value, list) else [value] if kind in (str, Path) else []
    for each in texts:
        if isinstance(each, str) and (not each.strip() or "\0" in each):  # which no path and no address may hold
            problem, remedy = ("is no list of texts", 'write ["one", "two"]') if listed else ("is no text", _QUOTED)
            raise BadInput(setting.where, value, problem, remedy)
    if kind is Path and isinstance(value, str):
        try:
            return str(setting.folder / Path(value).expanduser())
        except RuntimeError:
            raise BadInput(setting.where, value, "names no user's folder", "write the whole path") from None
    return value


_QUOTED = "write one in quotes"


def _read_text(value: str, kind: Any) -> Any:
    """What a text stands for; itself where it stands for nothing of the kind."""
    if kind is bool:
        return _BOOLS.get(value.strip().lower(), value)
    if kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value
