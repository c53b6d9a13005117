"""Everything an operator can set, and what wins: flags, then the environment, then the file.

Knows: the sections, how each source names a key, and the configuration as TOML (what holds now, or an example with
every key explained from its docstring). Starts nothing and looks at nothing but the file.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import get_type_hints

from outthink.configuration.file import VARIABLE, Alias, Configuration, Written, read_configuration, read_file
from outthink.configuration.models import choose_model
from outthink.core.errors import BadInput
from outthink.economics.capacity.server import CapacityServer, CapacitySettings
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
    RouterFile,
    Setting,
    Store,
    TelemetryConfig,
    VerifierConfig,
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
_SHORT = {"LEDGER": "LEDGER_URL", "POLICY": "POLICY_FILE", "KEYS": "LISTEN_KEYS", "VERIFIER": "VERIFIER_SOURCE"}
Table = dict[str, dict[str, Setting]]


def from_file(configuration: Configuration) -> tuple[Table, Table]:
    """What a file says: its sections, and its backends by their place in it. Raises BadInput."""
    tables_read: Table = {}
    backends: Table = {}
    file, prefix = str(configuration.file), "" if configuration.former else "serve."
    for name, table in configuration.serve.items():
        place = prefix + name
        if name == "backends":
            rows = _backend_rows(file, place, table)
            backends = {at: _table(configuration, at, row, BackendConfig) for at, row in rows}
        elif name not in SECTIONS:
            where = file if configuration.former else f"{file}: serve"
            raise unknown(where, name, [*SECTIONS, "backends"], "is no section")
        elif name == "verifier" and isinstance(table, str):
            tables_read[name] = {"source": Setting(table, f"{file}: {place}", "file")}
        elif not isinstance(table, dict):
            raise BadInput(f"{file}: {place}", table, "is no section", f"write [{place}] above its keys")
        else:
            tables_read[name] = _table(configuration, place, table, SECTIONS[name])
    # They may be a name or a path; a path is the file's neighbour, like every other one in it.
    for name, key in (("verifier", "source"), ("capacity", "gpu")):
        named = tables_read.get(name, {}).get(key)
        path = configuration.folder / str("" if named is None else named.value)
        if named is not None and (path.is_file() if name == "capacity" else path.is_dir()):
            tables_read[name][key] = replace(named, value=str(path))
    return tables_read, backends


def _backend_rows(file: str, place: str, table: Json) -> list[tuple[str, JsonDict]]:
    """Each backend's place and keys: [[serve.backends]] for each, or [serve.backends.NAME]. Raises BadInput."""
    if isinstance(table, dict):
        rows = [(f"{place}.{name}", row) for name, row in table.items()]
    else:
        rows = [(f"{place}[{at}]", row) for at, row in enumerate(table)] if isinstance(table, list) else [("", table)]
    sections = [(at, row) for at, row in rows if isinstance(row, dict)]
    if len(sections) < len(rows):
        remedy = f"write [[{place}]] or [{place}.NAME] above each"
        raise BadInput(f"{file}: {place}", table, "is no list of sections", remedy)
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
        name, _, key = path.strip().removeprefix("serve.").partition(".")
        if not mark or not key:
            raise BadInput("--set", masked_url(setting), "names no key and value", "write SECTION.KEY=VALUE")
        if name not in SECTIONS:
            raise unknown("--set", name, list(SECTIONS), "is no section")
        if key not in keys_of(SECTIONS[name]):
            raise unknown(f"--set {name}", key, list(keys_of(SECTIONS[name])), "is no key")
        table.setdefault(name, {})[key] = Setting(value.strip(), f"--set {name}.{key}", "flag")
    return table


def _table(configuration: Configuration, place: str, table: JsonDict, section: type) -> dict[str, Setting]:
    path, known = configuration.file, keys_of(section)
    settings: dict[str, Setting] = {}
    for key, value in table.items():
        where = f"{path}: {place}.{key}"
        if key not in known:
            raise unknown(f"{path}: {place}", key, list(known), "is no key")
        if key == "url" and isinstance(value, str) and masked_url(value) != value:
            what = "url_env or url_file" if "url_env" in known else "key_env or key_file"
            raise BadInput(where, masked_url(value), "holds a secret", f"take it out of the file, and use {what}")
        settings[key] = Setting(value, where, "file", configuration.folder)
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to run.

    Args:
        backends: model servers, at least one.
        origins: where each value comes from, by `section.key`; what is not there is a default.
        file: that it was read from, None without one.
        found: how that file was found, for `--check`.
        former: the file is one of version 0.1, whose sections stand at the top.
        variables: of the environment, and of a `.env` file.
        new_ledger: a ledger that is named and is not there is made.
    """

    backends: tuple[BackendConfig, ...]
    listen: Listen = field(default_factory=Listen)
    pool: PoolSettings = field(default_factory=PoolSettings)
    ledger: Store = field(default_factory=Store)
    policy: PolicyFile = field(default_factory=PolicyFile)
    router: RouterFile = field(default_factory=RouterFile)
    verifier: VerifierConfig = field(default_factory=VerifierConfig)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    limits: Limits = field(default_factory=Limits)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    logs: LogsConfig = field(default_factory=LogsConfig)
    content: Content = field(default_factory=Content)
    capacity: CapacitySettings = field(default_factory=CapacitySettings)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    file: Path | None = field(default=None, compare=False)
    found: str = field(default="", compare=False)
    former: bool = field(default=False, compare=False)
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ, compare=False, repr=False)
    new_ledger: bool = False

    def __post_init__(self) -> None:
        if not self.backends:
            remedy = "give --model URL[,URL...] or --model embedded, or [[serve.backends]] in the file"
            raise BadInput("model", "", "is missing", remedy)

    def marker(self) -> Marker:
        """What remembers that a key was made. Raises BadInput where the ledger's address cannot be read."""
        return Marker.of(self.file, LedgerAddress.parse(self.ledger_url).identity)

    @property
    def ledger_url(self) -> str:
        """Of the ledger, secrets included: never to be shown. Raises BadInput where it cannot be read."""
        return self.ledger.resolved(self.variables)

    def capacity_server(self) -> CapacityServer | None:
        """The GPUs behind the proxy, None where nothing is said of them. Raises BadInput that names the place."""
        if self.capacity == CapacitySettings():
            return None
        from outthink.engines.shapes import read_shape

        try:
            return self.capacity.read(read_shape)
        except BadInput as error:
            place = f"capacity.{error.field}"
            field = self.origins.get(place, place) if error.field in keys_of(CapacitySettings) else error.field
            raise BadInput(field, error.value, error.problem, error.remedy) from None


_TYPES = get_type_hints(Config)
_NO_SECTIONS = ("backends", "origins", "file", "found", "former", "variables", "new_ledger")
SECTIONS: dict[str, type] = {name: _TYPES[name] for name in _TYPES if name not in _NO_SECTIONS}


def read_config(
    file: Path | None = None,
    *,
    env_file: Path | None = None,
    models: str | None = None,
    api_key_env: str | None = None,
    price: str | None = None,
    energy: str | None = None,
    flags: Mapping[str, Setting] | None = None,
    settings: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration. Raises BadInput that names the place of what is wrong.

    Args:
        file: by `--config`; None for the one that is found.
        models: backends in one line, comma-separated; replaces those of the file. `api_key_env` names the key that they
            want (where left out, OPENAI_API_KEY for the server that it belongs to), `price` and `energy` are what
            their tokens cost.
        flags: values by `section.key`.
        settings: lines of `--set`, weaker than the flags.
        environ: variables, those of the process if left out.
    """
    configuration = proxy_configuration(file, env_file=env_file, environ=environ)
    variables = configuration.variables
    table, rows = from_file(configuration)
    named: Table = {}
    for path, setting in (flags or {}).items():
        name, _, key_name = path.partition(".")
        named.setdefault(name, {})[key_name] = setting
    for source in (from_environment(variables), from_flags(settings), named):
        for name, keys in source.items():
            table[name] = _over(table.get(name, {}), keys)
    usual = variables.get("OUTTHINK_MODEL") or configuration.written.model
    line = models or variables.get(PREFIX + "BACKENDS") or (None if rows else usual)
    if line:
        backends = tuple(_listed(line, configuration, api_key_env, price, energy))
    else:
        if (cost := price or energy) is not None:
            flag = "--price" if price else "--energy"
            raise BadInput(flag, cost, "goes with --model", "write it under the backend in the file")
        backends = tuple(_built(configuration, place, row) for place, row in rows.items())
    parts: JsonDict = {name: build(SECTIONS[name], keys, name) for name, keys in table.items()}
    return Config(
        backends=backends,
        origins={f"{name}.{key}": setting.where for name, keys in table.items() for key, setting in keys.items()},
        file=configuration.file,
        found=configuration.named,
        former=configuration.former,
        variables=variables,
        **parts,
    )


def proxy_configuration(
    named: Path | None, *, env_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """The file for the proxy: as for everybody, or the one that its own variable of version 0.1 names."""
    environ = os.environ if environ is None else environ
    if named is None and not environ.get(VARIABLE) and environ.get(FILE):
        return read_file(Path(environ[FILE]), f"${FILE}", env_file=env_file, environ=environ)
    return read_configuration(named, env_file=env_file, environ=environ)


def read_store(file: Path | None, environ: Mapping[str, str] | None = None) -> tuple[Store, Configuration]:
    """The ledger that the proxy would open, and the file that says so; for those who serve nothing. Raises BadInput."""
    configuration = proxy_configuration(file, environ=environ)
    return build(Store, _said("ledger", configuration), "ledger"), configuration


def read_capacity(
    file: Path | None, environ: Mapping[str, str] | None = None
) -> tuple[CapacitySettings, dict[str, str]]:
    """The GPUs behind the proxy, and where each key was said; likewise. Raises BadInput."""
    said = _said("capacity", proxy_configuration(file, environ=environ))
    return build(CapacitySettings, said, "capacity"), {key: each.where for key, each in said.items()}


def _said(section: str, configuration: Configuration) -> dict[str, Setting]:
    """One section, by the file and the environment."""
    in_file, in_environment = from_file(configuration)[0], from_environment(configuration.variables)
    return _over(in_file.get(section, {}), in_environment.get(section, {}))


def _over(below: dict[str, Setting], above: dict[str, Setting]) -> dict[str, Setting]:
    """The keys of both; `above` wins, and a URL by reference wins over one that is written out."""
    kept = below
    if any(name.startswith("url") for name in above):
        kept = {name: setting for name, setting in below.items() if not name.startswith("url")}
    return {**kept, **above}


def _listed(
    line: str, configuration: Configuration, api_key_env: str | None, price: str | None, energy: str | None
) -> Iterator[BackendConfig]:
    """Backends in one line."""
    for named in filter(None, map(str.strip, line.split(","))):
        alias = configuration.written.models.get(named)
        # The key belongs to servers: what runs here gets one of its own.
        away = named.startswith(("http://", "https://")) or (alias is not None and bool(alias.url))
        chosen = choose_model(named, configuration=configuration, api_key_env=api_key_env if away else None)
        yield BackendConfig(
            url=chosen.where,
            key=chosen.api_key,
            models=() if chosen.name is None else (chosen.name,),
            price=price or (None if alias is None else alias.price),
            energy=energy or (None if alias is None else alias.energy),
            parameters=chosen.parameters,
            alias=chosen.alias,
            context=chosen.context,
        )


def _built(configuration: Configuration, place: str, row: dict[str, Setting]) -> BackendConfig:
    """A backend of the file; what it does not say of itself its alias does."""
    name, url = place.partition("backends.")[2], row.get("url")
    named = None if url is None else configuration.written.models.get(str(url.value))
    chosen = None
    if url is not None and named is not None:
        chosen = choose_model(str(url.value), configuration=configuration)
        said: JsonDict = {"price": named.price, "energy": named.energy, "parameters": named.parameters}
        said |= {"key_env": named.api_key_env, "models": named.name and [named.name]}
        told = {key: Setting(value, url.where, "file") for key, value in said.items() if value is not None}
        row = {**told, **row, "url": Setting(chosen.where, url.where, "file")}
    backend = build(BackendConfig, row, f"{configuration.file}: {place}")
    heading = "backends" if configuration.former else "serve.backends"
    backend = replace(backend, name=name or None, heading=heading)
    return backend if chosen is None else replace(backend, alias=chosen.alias, context=chosen.context)


_ENTRY = re.compile(r"^(\w+): (.*)$")


def effective(config: Config) -> str:
    """What holds now. Secrets are three stars, and only their references are shown."""
    lines = [f"# {config.file} ({config.found})", ""] if config.file is not None else []
    for backend in config.backends:
        lines.append(replace(backend, heading="serve.backends").setting)
        if backend.alias is not None:
            lines.append(f"# the alias {backend.alias}")
        for name in keys_of(type(backend)):
            value = getattr(backend, name)
            if value is not None and value != ():
                lines.append(f"{name} = {toml(masked_url(value) if name == 'url' else value)}")
        if backend.key is not None:
            lines.append("# key = ***")
        lines.append("")
    for section in SECTIONS:
        part = getattr(config, section)
        lines.append(f"[serve.{section}]")
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
    lines = ["# Flags win over the environment, the environment over this file.", *_models()]
    for section, kind in {"backends": BackendConfig, **SECTIONS}.items():
        summary, keys = described(kind)
        row = kind is BackendConfig
        if row:
            lines.append("# [[serve.backends]] above each, or [serve.backends.NAME], so that messages name it.")
        lines += [f"# {summary}", f"[[serve.{section}]]" if row else f"[serve.{section}]"]
        for entry in fields(kind):
            if entry.name not in keys_of(kind):
                continue
            lines.append(f"# {entry.name}: {keys[entry.name]}")
            lines.append('url = "http://127.0.0.1:8001/v1"' if row and entry.name == "url" else f"#{_default(entry)}")
        lines.append("")
    return "\n".join(lines)


def _models() -> list[str]:
    """The part of the example that is for every verb, commented out: it has no defaults."""
    top, keys = described(Written)[1], described(Alias)
    lines = [f"# model: {top['model']}", "#model =", f"# env_file: {top['env_file']}", "#env_file =", ""]
    lines += [f"# {keys[0]} Repeat it for each.", "#[models.NAME]"]
    for name, meaning in keys[1].items():
        lines += [f"# {name}: {meaning}", f"#{name} ="]
    return [*lines, ""]


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
