"""Everything an operator can set, and what wins: flags, then the environment, then the file.

Knows: the sections, how each source names a key, and the configuration as TOML (what holds now, or an example with
every key explained from its docstring). Starts nothing and looks at nothing but the file.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import get_type_hints

from outthink.core.errors import BadInput
from outthink.engines.locate import usual_key
from outthink.http.errors import masked_url
from outthink.http.events import Json
from outthink.http.fields import JsonDict
from outthink.serving.admission import AdmissionSettings, Limits
from outthink.serving.config.sections import (
    BackendConfig,
    Content,
    Listen,
    LogsConfig,
    PolicyFile,
    Setting,
    Store,
    TelemetryConfig,
    build,
    keys_of,
    unknown,
)
from outthink.serving.guard import Marker
from outthink.serving.ledger import LedgerAddress
from outthink.serving.pool.backend import PoolSettings

PREFIX = "OUTTHINK_SERVE_"
FILE = PREFIX + "CONFIG"
_NOT_OURS = ("SERVICE_", "PORT")
"""Kubernetes sets such variables for every service; one called outthink-serve would look like ours."""
_SHORT = {"LEDGER": "LEDGER_URL", "POLICY": "POLICY_FILE", "KEYS": "LISTEN_KEYS"}
Table = dict[str, dict[str, Setting]]


def from_file(path: Path | None) -> tuple[Table, Table]:
    """What a file says: its sections, and its backends by their place in it. Raises BadInput."""
    tables_read: Table = {}
    backends: Table = {}
    if path is None:
        return tables_read, backends
    try:
        with path.open("rb") as source:
            tables = tomllib.load(source)
    except OSError as error:
        raise BadInput("config", str(path), f"cannot be read ({error.strerror})", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("config", str(path), f"is no TOML ({error})", "mend that place") from None
    for name, table in tables.items():
        if name == "backends":
            backends = {place: _table(path, place, row, BackendConfig) for place, row in _backend_rows(path, table)}
        elif name not in SECTIONS:
            raise unknown(str(path), name, [*SECTIONS, "backends"], "is no section")
        elif not isinstance(table, dict):
            raise BadInput(f"{path}: {name}", table, "is no section", f"write [{name}] above its keys")
        else:
            tables_read[name] = _table(path, name, table, SECTIONS[name])
    return tables_read, backends


def _backend_rows(path: Path, table: Json) -> list[tuple[str, JsonDict]]:
    """Each backend's place and keys: [[backends]] for each, or [backends.NAME]. Raises BadInput."""
    if isinstance(table, dict):
        rows = [(f"backends.{name}", row) for name, row in table.items()]
    else:
        rows = [(f"backends[{at}]", row) for at, row in enumerate(table)] if isinstance(table, list) else [("", table)]
    sections = [(place, row) for place, row in rows if isinstance(row, dict)]
    if len(sections) < len(rows):
        remedy = "write [[backends]] or [backends.NAME] above each"
        raise BadInput(f"{path}: backends", table, "is no list of sections", remedy)
    return sections


def from_environment(environ: Mapping[str, str]) -> Table:
    """What variables say: OUTTHINK_SERVE_SECTION_KEY. Raises BadInput."""
    table: Table = {}
    names = {f"{name}_{key}".upper(): (name, key) for name, section in SECTIONS.items() for key in keys_of(section)}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in (FILE, PREFIX + "BACKENDS"):
            continue
        rest = variable[len(PREFIX) :]
        if rest.startswith(_NOT_OURS):
            continue
        rest = _SHORT.get(rest, rest)
        if rest not in names:
            raise unknown("environment", variable, [PREFIX + name for name in names], "is no key of ours")
        name, key = names[rest]
        table.setdefault(name, {})[key] = Setting(value, variable, "environment")
    return table


def from_flags(settings: Sequence[str]) -> Table:
    """What `--set SECTION.KEY=VALUE` says. Raises BadInput."""
    table: Table = {}
    for setting in settings:
        path, mark, value = setting.partition("=")
        name, _, key = path.strip().partition(".")
        if not mark or not key:
            raise BadInput("--set", masked_url(setting), "names no key and value", "write SECTION.KEY=VALUE")
        if name not in SECTIONS:
            raise unknown("--set", name, list(SECTIONS), "is no section")
        if key not in keys_of(SECTIONS[name]):
            raise unknown(f"--set {name}", key, list(keys_of(SECTIONS[name])), "is no key")
        table.setdefault(name, {})[key] = Setting(value.strip(), f"--set {name}.{key}", "flag")
    return table


def _table(path: Path, place: str, table: JsonDict, section: type) -> dict[str, Setting]:
    known = keys_of(section)
    settings: dict[str, Setting] = {}
    for key, value in table.items():
        where = f"{path}: {place}.{key}"
        if key in ("key", "api_key", "password", "token") and key not in known:
            raise BadInput(where, "...", "is a secret", "name its variable with key_env, or its file with key_file")
        if key not in known:
            raise unknown(f"{path}: {place}", key, list(known), "is no key")
        if key == "url" and isinstance(value, str) and masked_url(value) != value:
            what = "url_env or url_file" if "url_env" in known else "key_env or key_file"
            raise BadInput(where, masked_url(value), "holds a secret", f"take it out of the file, and use {what}")
        settings[key] = Setting(value, where, "file", path.parent)
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to run.

    Args:
        backends: model servers, at least one.
        origins: where each value comes from, by `section.key`; what is not there is a default.
        file: that it was read from, None without one.
        new_ledger: a ledger that is named and is not there is made.
    """

    backends: tuple[BackendConfig, ...]
    listen: Listen = field(default_factory=Listen)
    pool: PoolSettings = field(default_factory=PoolSettings)
    ledger: Store = field(default_factory=Store)
    policy: PolicyFile = field(default_factory=PolicyFile)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    limits: Limits = field(default_factory=Limits)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    content: Content = field(default_factory=Content)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    file: Path | None = field(default=None, compare=False)
    new_ledger: bool = False

    def __post_init__(self) -> None:
        if not self.backends:
            remedy = "give --model URL[,URL...] or --model embedded, or [[backends]] in the file"
            raise BadInput("model", "", "is missing", remedy)

    def marker(self) -> Marker:
        """What remembers that a key was made. Raises BadInput where the ledger's address cannot be read."""
        return Marker.of(self.file, LedgerAddress.parse(self.ledger.resolved()).identity)


_TYPES = get_type_hints(Config)
_NO_SECTIONS = ("backends", "origins", "file", "new_ledger")
SECTIONS: dict[str, type] = {name: _TYPES[name] for name in _TYPES if name not in _NO_SECTIONS}


def read_config(
    file: Path | None = None,
    *,
    models: str | None = None,
    key: str | None = None,
    price: str | None = None,
    energy: str | None = None,
    flags: Mapping[str, Setting] | None = None,
    settings: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration. Raises BadInput that names the place of what is wrong.

    Args:
        models: backends in one line, comma-separated; replaces those of the file. `key` is what they want (where left
            out, OPENAI_API_KEY for the server that it belongs to), `price` and `energy` what their tokens cost.
        flags: values by `section.key`.
        settings: lines of `--set`, weaker than the flags.
        environ: variables, those of the process if left out.
    """
    environ = os.environ if environ is None else environ
    file = config_file(file, environ)
    table, rows = from_file(file)
    named: Table = {}
    for path, setting in (flags or {}).items():
        name, _, key_name = path.partition(".")
        named.setdefault(name, {})[key_name] = setting
    for source in (from_environment(environ), from_flags(settings), named):
        for name, keys in source.items():
            table[name] = _over(table.get(name, {}), keys)
    line = models or environ.get(PREFIX + "BACKENDS") or (None if rows else environ.get("OUTTHINK_MODEL"))
    if line:
        backends = tuple(_listed(line, key, price, energy, environ))
    else:
        if (cost := price or energy) is not None:
            flag = "--price" if price else "--energy"
            raise BadInput(flag, cost, "goes with --model", "write it under the backend in the file")
        built = [(place, build(BackendConfig, row, f"{file}: {place}")) for place, row in rows.items()]
        backends = tuple(replace(backend, name=place.partition(".")[2] or None) for place, backend in built)
    parts: JsonDict = {name: build(SECTIONS[name], keys, name) for name, keys in table.items()}
    origins = {f"{name}.{key}": setting.where for name, keys in table.items() for key, setting in keys.items()}
    return Config(backends=backends, origins=origins, file=file, **parts)


def read_store(file: Path | None, environ: Mapping[str, str] | None = None) -> Store:
    """The ledger that the proxy would open, for those who serve nothing. Raises BadInput."""
    environ = os.environ if environ is None else environ
    in_file, in_environment = from_file(config_file(file, environ))[0], from_environment(environ)
    return build(Store, _over(in_file.get("ledger", {}), in_environment.get("ledger", {})), "ledger")


def config_file(named: Path | None, environ: Mapping[str, str] | None = None) -> Path | None:
    """The file that is read: the one that is named, else that of the environment, None without one."""
    environ = os.environ if environ is None else environ
    return Path(environ[FILE]) if named is None and environ.get(FILE) else named


def _over(below: dict[str, Setting], above: dict[str, Setting]) -> dict[str, Setting]:
    """The keys of both; `above` wins, and a URL by reference wins over one that is written out."""
    kept = below
    if any(name.startswith("url") for name in above):
        kept = {name: setting for name, setting in below.items() if not name.startswith("url")}
    return {**kept, **above}


def _listed(
    line: str, key: str | None, price: str | None, energy: str | None, environ: Mapping[str, str]
) -> list[BackendConfig]:
    urls = (part.strip() for part in line.split(","))
    backends = [BackendConfig(url=url, price=price, energy=energy) for url in urls if url]
    # The key belongs to the servers: what runs here gets one of its own.
    return [
        backend if backend.local else replace(backend, key=key or usual_key(backend.url, environ))
        for backend in backends
    ]


_ENTRY = re.compile(r"^(\w+): (.*)$")


def effective(config: Config) -> str:
    """What holds now. Secrets are three stars, and only their references are shown."""
    lines: list[str] = []
    for backend in config.backends:
        lines.append(backend.setting)
        for name in keys_of(type(backend)):
            value = getattr(backend, name)
            if value is not None and value != ():
                lines.append(f"{name} = {toml(masked_url(value) if name == 'url' else value)}")
        if backend.key is not None:
            lines.append("# key = ***")
        lines.append("")
    for section in SECTIONS:
        part = getattr(config, section)
        lines.append(f"[{section}]")
        for name in keys_of(type(part)):
            value = getattr(part, name)
            origin = config.origins.get(f"{section}.{name}", "default")
            if value is None:
                lines.append(f"# {name} is not set")
            else:
                text = masked_url(value) if name in ("url", "endpoint") else value
                lines.append(f"{name} = {toml(text)}  # {origin}")
        lines.append("")
    return "\n".join(lines)


def example() -> str:
    """A file with every key at its default, explained and commented out."""
    lines = ["# outthink serve --config FILE; flags win over the environment, the environment over this file.", ""]
    for section, kind in {"backends": BackendConfig, **SECTIONS}.items():
        summary, keys = described(kind)
        row = kind is BackendConfig
        if row:
            lines.append("# [[backends]] above each, or [backends.NAME], so that messages name it.")
        lines += [f"# {summary}", f"[[{section}]]" if row else f"[{section}]"]
        for entry in fields(kind):
            if entry.name not in keys_of(kind):
                continue
            lines.append(f"# {entry.name}: {keys[entry.name]}")
            lines.append('url = "http://127.0.0.1:8001/v1"' if row and entry.name == "url" else f"#{_default(entry)}")
        lines.append("")
    return "\n".join(lines)


def described(kind: type) -> tuple[str, dict[str, str]]:
    """A section's summary and what its keys mean, from its docstring."""
    text = inspect.getdoc(kind) or ""
    head, _, rest = text.partition("\n\nArgs:\n")
    meanings: dict[str, str] = {}
    for line in rest.splitlines():
        if (entry := _ENTRY.match(line.strip())) is not None:
            meanings[entry[1]] = entry[2]
    return head.splitlines()[0], meanings


def toml(value: bool | float | str | Path | tuple[str, ...]) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, str | Path) else f"{value!r}"


def _default(entry: Field[str]) -> str:
    if entry.default is None or entry.default is MISSING:
        return f"{entry.name} ="
    return f"{entry.name} = {toml(entry.default)}"
