"""The configuration as TOML: what holds now, with who said it, or an example with every key explained.

Knows layout, and that no secret may be shown. What the keys mean is read from the sections' own docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from outthink.serving.config.config import ROWS, SECTIONS, Config
from outthink.serving.config.sections import masked
from outthink.serving.config.told import keys_of

_ENTRY = re.compile(r"^(\w+): (.*)$")


def effective(config: Config) -> str:
    """What holds now. Secrets are three stars, and only their references are told."""
    lines: list[str] = []
    for backend in config.backends:
        lines.append("[[backends]]")
        for name in keys_of(type(backend)):
            value = getattr(backend, name)
            if value is not None and value != ():
                lines.append(f"{name} = {toml(masked(value) if name == 'url' else value)}")
        if backend.key is not None:
            lines.append("# key = ***")
        lines.append("")
    for section in SECTIONS:
        part = getattr(config, section)
        lines.append(f"[{section}]")
        for name in keys_of(type(part)):
            value = getattr(part, name)
            told = config.origins.get(f"{section}.{name}", "default")
            if value is None:
                lines.append(f"# {name} is not set")
            else:
                shown = masked(value) if name in ("url", "endpoint") else value
                lines.append(f"{name} = {toml(shown)}  # {told}")
        lines.append("")
    return "\n".join(lines)


def example() -> str:
    """A file with every key at its default, explained and commented out."""
    lines = ["# outthink serve --config FILE; flags win over the environment, the environment over this file.", ""]
    for section, kind in {**ROWS, **SECTIONS}.items():
        summary, keys = described(kind)
        row = section in ROWS
        lines += [f"# {summary}", f"[[{section}]]" if row else f"[{section}]"]
        for one in fields(kind):
            if one.name not in keys_of(kind):
                continue
            lines.append(f"# {one.name}: {keys[one.name]}")
            lines.append('url = "http://127.0.0.1:8001/v1"' if row and one.name == "url" else f"#{_default(one)}")
        lines.append("")
    return "\n".join(lines)


def described(kind: type) -> tuple[str, dict[str, str]]:
    """A section's summary and what its keys mean, from its docstring."""
    text = inspect.getdoc(kind) or ""
    head, _, rest = text.partition("\n\nArgs:\n")
    found: dict[str, str] = {}
    for line in rest.splitlines():
        if (entry := _ENTRY.match(line.strip())) is not None:
            found[entry[1]] = entry[2]
    return head.splitlines()[0], found


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, str | Path) else f"{value!r}"


def _default(one: Field[Any]) -> str:
    if one.default is None or one.default is MISSING:
        return f"{one.name} ="
    return f"{one.name} = {toml(one.default)}"
