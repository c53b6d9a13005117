"""Everything an operator can set, and which word wins: flags, then the environment, then the file.

Knows the sections and their order. Starts nothing and looks at nothing but the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.serving.admission import AdmissionSettings
from outthink.serving.config.sections import Backend, Content, Listen, Logs, PolicyFile, Store, Telemetry
from outthink.serving.config.sources import FILE, PREFIX, Table, from_environment, from_file, from_flags
from outthink.serving.config.told import Told, build
from outthink.serving.limits import Limits
from outthink.serving.pool.settings import PoolSettings

SECTIONS: dict[str, type] = {
    "listen": Listen,
    "pool": PoolSettings,
    "ledger": Store,
    "policy": PolicyFile,
    "admission": AdmissionSettings,
    "limits": Limits,
    "telemetry": Telemetry,
    "logs": Logs,
    "content": Content,
}
ROWS: dict[str, type] = {"backends": Backend}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What to run.

    Args:
        backends: model servers, at least one.
        origins: who said what, by `section.key`; what is not there is a default.
    """

    backends: tuple[Backend, ...]
    listen: Listen = field(default_factory=Listen)
    pool: PoolSettings = field(default_factory=PoolSettings)
    ledger: Store = field(default_factory=Store)
    policy: PolicyFile = field(default_factory=PolicyFile)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    limits: Limits = field(default_factory=Limits)
    telemetry: Telemetry = field(default_factory=Telemetry)
    logs: Logs = field(default_factory=Logs)
    content: Content = field(default_factory=Content)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.backends:
            remedy = "give --model URL[,URL...] or --model embedded, or [[backends]] in the file"
            raise BadInput("model", "", "is missing", remedy)


def read_config(
    file: Path | None = None,
    *,
    models: str | None = None,
    key: str | None = None,
    price: str | None = None,
    energy: str | None = None,
    flags: Mapping[str, Told] | None = None,
    settings: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Config:
    """The configuration. Raises BadInput that names the place of what is wrong.

    Args:
        models: backends in one line, comma-separated; replaces those of the file. `key` is what they want,
            `price` and `energy` what their tokens cost.
        flags: values by `section.key`.
        settings: lines of `--set`, weaker than the flags.
        environ: variables, those of the process if left out.
    """
    environ = os.environ if environ is None else environ
    if file is None and environ.get(FILE):
        file = Path(environ[FILE])
    table: Table = {}
    rows: list[dict[str, Told]] = []
    if file is not None:
        table, rows = from_file(file, SECTIONS, ROWS)
    named: Table = {}
    for path, told in (flags or {}).items():
        name, _, key_name = path.partition(".")
        named.setdefault(name, {})[key_name] = told
    for source in (from_environment(environ, SECTIONS), from_flags(settings, SECTIONS), named):
        for name, keys in source.items():
            table[name] = _over(table.get(name, {}), keys)
    line = models or environ.get(PREFIX + "BACKENDS") or (None if rows else environ.get("OUTTHINK_MODEL"))
    if line:
        backends = tuple(_listed(line, key, price, energy))
    else:
        if (said := price or energy) is not None:
            flag = "--price" if price else "--energy"
            raise BadInput(flag, said, "goes with --model", "write it under [[backends]] in the file")
        backends = tuple(build(Backend, row, f"{file}: backends[{at}]") for at, row in enumerate(rows))
    parts: dict[str, Any] = {name: build(SECTIONS[name], keys, name) for name, keys in table.items()}
    origins = {f"{name}.{key}": told.where for name, keys in table.items() for key, told in keys.items()}
    return Config(backends=backends, origins=origins, **parts)


def read_store(file: Path | None, environ: Mapping[str, str] | None = None) -> Store:
    """The ledger that the proxy would open, for those who serve nothing. Raises BadInput."""
    environ = os.environ if environ is None else environ
    file = file or (Path(environ[FILE]) if environ.get(FILE) else None)
    told = {} if file is None else from_file(file, SECTIONS, ROWS)[0].get("ledger", {})
    said = from_environment(environ, SECTIONS).get("ledger", {})
    return build(Store, _over(told, said), "ledger")


def _over(below: dict[str, Told], above: dict[str, Told]) -> dict[str, Told]:
    """The keys of both; `above` wins, and a URL by reference wins over one that is written out."""
    kept = below
    if any(name.startswith("url") for name in above):
        kept = {name: told for name, told in below.items() if not name.startswith("url")}
    return {**kept, **above}


def _listed(line: str, key: str | None, price: str | None, energy: str | None) -> list[Backend]:
    urls = (part.strip() for part in line.split(","))
    found = [Backend(url=url, price=price, energy=energy) for url in urls if url]
    return [one if one.local else replace(one, key=key) for one in found]
