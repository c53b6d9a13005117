"""The configuration file: which one is read, what it may say, and whose secrets it may name.

Knows: the order in which a file is looked for, its top level, models by name, variables in a `.env` beside it, and that
a file which nobody has named cannot be trusted with the secrets of this user. Does not know what the proxy's sections
mean (`serving.config`), nor how a model is opened (`models`).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.economics.tariff import Energy
from outthink.http.errors import masked_url, shown_variable
from outthink.http.server import Address

if TYPE_CHECKING:
    from outthink.validation import Border

VARIABLE = "OUTTHINK_CONFIG"
HERE = Path("outthink.toml")
_OURS = "OUTTHINK_"
_SHARED = "OPENAI_API_KEY"
_SECRETS = re.compile(r"(?:api|access|auth|bearer)?[_-]?(?:key|token|secret|passw(?:or)?d|credential)\Z", re.IGNORECASE)
"""Names under which people write a secret itself."""
_REFERENCES = ("api_key_env", "key_env", "url_env")
_SECRET_FILES = ("key_file", "url_file")
_ALIAS = re.compile(r"[A-Za-z0-9][\w.+-]*\Z", re.ASCII)
_FORMER = ("backends", "listen", "pool", "ledger", "policy", "admission", "limits", "telemetry", "logs", "content")
"""Sections of the proxy's own file in version 0.1, which stand under [serve] now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A model by a name of the user's own.

    Args:
        url: of an OpenAI-compatible server, `embedded`, or a plugin's SCHEME:REST.
        path: of a GGUF file, from the folder of the configuration.
        name: which model of the server; left out, its first.
        price: dollars per million tokens, as `IN,OUT` or `IN,OUT,CACHED`; left out, those published.
        energy: joules a token, bounds from above, as `PROMPT,COMPLETION`; left out, unknown.
        parameters: weights read per token, for FLOPs; left out, what its file or server says.
        context: tokens of a call (prompt and completion) that a local model is ready for from the start.
        api_key_env: variable that holds the server's key.
    """

    url: str | None = None
    path: Path | None = None
    name: str | None = None
    price: str | None = None
    energy: str | None = None
    parameters: int | None = None
    context: int | None = None
    api_key_env: str | None = None
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if (self.url is None) == (self.path is None):
            given, problem = (self.url, "stands beside path") if self.url else (None, "is missing, and so is path")
            raise BadInput("url", given and masked_url(given), problem, "give one of the two")
        if self.url is not None and self.url.startswith(("http://", "https://")):
            Address.parse(self.url)
            if masked_url(self.url) != self.url:
                remedy = "take it out of the file, and name its variable with api_key_env"
                raise BadInput("url", masked_url(self.url), "holds a secret", remedy)
        for name, number in (("parameters", self.parameters), ("context", self.context)):
            if number is not None and number < 1:
                raise BadInput(name, number, "is below 1", "give at least 1, or leave it out")
        if self.price is not None:
            Price.parse(self.price)
        if self.energy is not None:
            Energy.parse(self.energy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The top level of the file.

    Args:
        model: what is asked where neither a flag nor a variable says: an alias, or what `--model` takes.
        env_file: variables that are not set otherwise, from the folder of the configuration.
        models: by name.
        serve: sections of the proxy, which it reads itself.
    """

    model: str | None = None
    env_file: Path | None = None
    models: dict[str, Alias] = field(default_factory=dict)
    serve: dict[str, Any] = field(default_factory=dict)
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Configuration:
    """What holds besides flags.

    Args:
        file: that was read, None without one.
        named: how it was found: `--config`, `$OUTTHINK_CONFIG`, `working directory` or `home`; empty without one.
        written: what it says.
        serve: sections of the proxy, as they were written.
        former: it is a proxy's file of version 0.1, whose sections stand at the top.
        env_file: instead of the one that the file names.
        environ: variables of the process.
    """

    file: Path | None = None
    named: str = ""
    written: Written = field(default_factory=Written)
    serve: Mapping[str, Any] = field(default_factory=dict)
    former: bool = False
    env_file: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def folder(self) -> Path:
        """What relative paths in the file start from."""
        return Path() if self.file is None else self.file.parent

    @property
    def trusted(self) -> bool:
        """Whether somebody has named the file, or it lies in this user's own folder."""
        return self.named != "working directory"

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """Those of the process, and what the `.env` file adds. Raises BadInput where that cannot be read."""
        file = self.env_file or (self.written.env_file and self.folder / self.written.env_file)
        if file is None:
            return self.environ
        added = dict(_read_variables(file))
        if self.env_file is None and not self.trusted:
            for name in added:
                _need_ours(f"{file}", name)
        return {**added, **self.environ}


def _home(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config"
    return Path(base) / "outthink" / "config.toml"


def find_file(named: Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[Path | None, str]:
    """The configuration file, and how it was found: `--config`, else $OUTTHINK_CONFIG, else the first that exists."""
    environ = os.environ if environ is None else environ
    if named is not None:
        return named, "--config"
    if variable := environ.get(VARIABLE):
        return Path(variable), f"${VARIABLE}"
    if HERE.is_file():
        return HERE, "working directory"
    home = _home(environ)
    return (home, "home") if home.is_file() else (None, "")


def read_configuration(
    named: Path | None = None, *, env_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """The configuration, from a file that is named or the one that is found. Raises BadInput that names the place.

    Args:
        named: by `--config`.
        env_file: of variables, by `--env-file`; those of the process win.
        environ: variables of the process.
    """
    environ = os.environ if environ is None else environ
    file, how = find_file(named, environ)
    if file is None:
        return Configuration(env_file=env_file, environ=environ)
    return read_file(file, how, env_file=env_file, environ=environ)


def read_file(
    file: Path, how: str, *, env_file: Path | None = None, environ: Mapping[str, str] | None = None
) -> Configuration:
    """The configuration in a file. Raises BadInput that names the place of what is wrong."""
    from outthink.validation import nearest, read_values

    table = _toml(file)
    own = [name for name in table if name in _FORMER]
    former = bool(own) and not {"serve", "models"} & set(table)
    if own and not former:
        raise BadInput(f"{file}: {own[0]}", table[own[0]], "is a section of the proxy", f"write [serve.{own[0]}]")
    _check_secrets(file, (), table, trusted=how != "working directory")
    if former:
        table = {"serve": table}
    for name in table:
        if name not in _TOP:
            remedy = nearest(name, [*_TOP, *_FORMER])
            raise BadInput(str(file), name, "is no section", _UNDER_SERVE.sub(r"did you mean [serve.\1]?", remedy))
    written = read_values(Written, table, toml_border(str(file)))
    for name in written.models:
        if not is_alias(name):
            remedy = "use letters, digits, dots, hyphens and underscores"
            raise BadInput(f"{file}: models", name, "cannot be told from an address or a file", remedy)
    return Configuration(
        file=file,
        named=how,
        written=written,
        serve=table.get("serve", {}),
        former=former,
        env_file=env_file,
        environ=os.environ if environ is None else environ,
    )


def is_alias(text: str) -> bool:
    """Whether a text may be a model's name of the user's own, and no address, no file and nothing built in."""
    return bool(_ALIAS.match(text)) and text != "embedded" and not text.endswith(".gguf")


def _toml(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as source:
            return tomllib.load(source)
    except OSError as error:
        raise BadInput("config", str(file), f"cannot be read ({error.strerror})", "give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("config", str(file), f"is no TOML ({error})", "mend that place") from None


def toml_border(source: str = "") -> Border:
    """How errors in a TOML file are told."""
    from outthink.validation import Border

    words = {
        "missing": ("is missing", "write it"),
        "string": ("is no text", "write one in quotes"),
        "path": ("is no text", "write one in quotes"),
        "int": ("is not a whole number", "write a whole number"),
        "float": ("is not a number", "write a number"),
        "bool": ("is neither true nor false", "write true or false"),
        "tuple": ("is no list of texts", 'write ["one", "two"]'),
        "dict": ("is no section", "write [NAME] above its keys"),
        "dataclass": ("is no section", "write [NAME] above its keys"),
    }
    return Border(source=source, words=words, unknown="is no key")


def _check_secrets(file: Path, place: tuple[str, ...], value: Any, *, trusted: bool) -> None:
    """Refuse secrets that are written out, and what a file that nobody has named may not point at. Raises BadInput."""
    if isinstance(value, list):
        for at, each in enumerate(value):
            _check_secrets(file, (*place[:-1], f"{place[-1]}[{at}]"), each, trusted=trusted)
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        where = f"{file}: {'.'.join((*place, name))}"
        if _SECRETS.match(name) and not isinstance(inner, dict):
            raise BadInput(where, "...", "is a secret", f"name its variable with {_reference(place)}")
        if name in _REFERENCES and isinstance(inner, str):
            if shown_variable(inner) == "***":
                remedy = "name the variable that holds the secret"
                raise BadInput(where, "***", "is no name of a variable", remedy)
            if not trusted:
                _need_ours(where, inner)
        if name in _SECRET_FILES and isinstance(inner, str) and not trusted and not _is_inside(file.parent, inner):
            raise BadInput(where, inner, f"lies outside the folder of {_UNNAMED}", _NAME_IT)
        _check_secrets(file, (*place, name), inner, trusted=trusted)


def _reference(place: tuple[str, ...]) -> str:
    """The key by which a secret of a section is named."""
    return "key_env, or its file with key_file" if place[:1] != ("models",) else "api_key_env"


_TOP = tuple(entry.name for entry in fields(Written))
_UNDER_SERVE = re.compile(rf"did you mean ({'|'.join(_FORMER)})\?")
_UNNAMED = "a file that was only found in the working directory"
_NAME_IT = f"give the file with --config or ${VARIABLE}"


def _need_ours(where: str, variable: str) -> None:
    """Refuse a variable that a file found by chance may not name. Raises BadInput."""
    if variable != _SHARED and not variable.startswith(_OURS):
        problem = f"may not be named by {_UNNAMED}"
        raise BadInput(where, variable, problem, f"use {_SHARED} or a name that begins with {_OURS}, or {_NAME_IT}")


def _is_inside(folder: Path, path: str) -> bool:
    try:
        return (folder / Path(path).expanduser()).resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # ~user of nobody
        return False


_LINE = re.compile(
    r"""\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:'([^']*)'|"((?:[^"\\]|\\.)*)"|([^#\n]*?))\s*(?:\#.*)?\Z""", re.ASCII
)
_ESCAPES = {"\\n": "\n", "\\t": "\t", '\\"': '"', "\\\\": "\\"}


def _read_variables(file: Path) -> Iterator[tuple[str, str]]:
    """NAME=VALUE a line, as shells and docker read them: comments, `export`, and either kind of quotes."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadInput("env_file", str(file), f"cannot be read ({why})", "correct the path, or leave it out") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if (match := _LINE.match(line)) is None:  # the line itself may hold a secret
            raise BadInput("env_file", str(file), f"has no NAME=VALUE in line {number}", "mend that line")
        name, single, double, bare = match.groups()
        if double is not None:
            double = re.sub(r"\\[nt\"\\]", lambda found: _ESCAPES[found[0]], double)
        yield name, next(value for value in (single, double, bare) if value is not None)
