"""Where the configuration comes from: a TOML file, variables of the environment, and flags.

Knows how each of them names a key. Does not know which keys make sense together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.serving.config.sections import masked
from outthink.serving.config.told import Told, keys_of, unknown

PREFIX = "OUTTHINK_SERVE_"
FILE = PREFIX + "CONFIG"
_NOT_OURS = ("SERVICE_", "PORT")
"""Kubernetes sets such variables for every service; one called outthink-serve would look like ours."""
_SHORT = {"LEDGER": "LEDGER_URL", "POLICY": "POLICY_FILE"}
Table = dict[str, dict[str, Told]]


def from_file(
    path: Path, sections: Mapping[str, type], rows: Mapping[str, type]
) -> tuple[Table, list[dict[str, Told]]]:
    """What a file says: its sections, and its backends. Raises BadInput."""
    try:
        with path.open("rb") as source:
            tables = tomllib.load(source)
    except OSError as error:
        raise BadInput("config", str(path), f"cannot be read ({error.strerror})", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("config", str(path), f"is no TOML ({error})", "mend that place") from None
    found: Table = {}
    listed: list[dict[str, Told]] = []
    for name, table in tables.items():
        if name in rows:
            if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
                raise BadInput(f"{path}: {name}", table, "is no list of sections", f"write [[{name}]] above each")
            listed = [_table(path, f"{name}[{at}]", row, rows[name]) for at, row in enumerate(table)]
        elif name not in sections:
            raise unknown(str(path), name, [*sections, *rows], "is no section")
        elif not isinstance(table, dict):
            raise BadInput(f"{path}: {name}", table, "is no section", f"write [{name}] above its keys")
        else:
            found[name] = _table(path, name, table, sections[name])
    return found, listed


def from_environment(environ: Mapping[str, str], sections: Mapping[str, type]) -> Table:
    """What variables say: OUTTHINK_SERVE_SECTION_KEY. Raises BadInput."""
    found: Table = {}
    names = {f"{name}_{key}".upper(): (name, key) for name, section in sections.items() for key in keys_of(section)}
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
        found.setdefault(name, {})[key] = Told(value, variable, "environment")
    return found


def from_flags(settings: Sequence[str], sections: Mapping[str, type]) -> Table:
    """What `--set SECTION.KEY=VALUE` says. Raises BadInput."""
    found: Table = {}
    for setting in settings:
        path, mark, value = setting.partition("=")
        name, _, key = path.strip().partition(".")
        if not mark or not key:
            raise BadInput("--set", masked(setting), "names no key and value", "write SECTION.KEY=VALUE")
        if name not in sections:
            raise unknown("--set", name, list(sections), "is no section")
        if key not in keys_of(sections[name]):
            raise unknown(f"--set {name}", key, list(keys_of(sections[name])), "is no key")
        found.setdefault(name, {})[key] = Told(value.strip(), f"--set {name}.{key}", "flag")
    return found


def _table(path: Path, place: str, table: Mapping[str, Any], section: type) -> dict[str, Told]:
    known = keys_of(section)
    found: dict[str, Told] = {}
    for key, value in table.items():
        where = f"{path}: {place}.{key}"
        if key in ("key", "api_key", "password", "token") and key not in known:
            raise BadInput(where, "...", "is a secret", "name its variable with key_env, or its file with key_file")
        if key not in known:
            raise unknown(f"{path}: {place}", key, list(known), "is no key")
        if key == "url" and isinstance(value, str) and masked(value) != value:
            what = "url_env or url_file" if "url_env" in known else "key_env or key_file"
            raise BadInput(where, masked(value), "holds a secret", f"take it out of the file, and use {what}")
        found[key] = Told(value, where, "file", path.parent)
    return found
