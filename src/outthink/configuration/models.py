"""Models by name: an alias of the configuration, or what `--model` takes, and what is known of it besides.

Knows: what wins (a flag, the environment, the configuration, the default), how a name that nobody knows is refused, and
what an alias says of price, energy, parameters and key. Starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outthink.configuration.file import Alias, Configuration, is_alias, read_configuration
from outthink.core.errors import BadInput
from outthink.economics.price import Price, Pricing
from outthink.economics.tariff import Energy, Source, Tariff
from outthink.engines.locate import locate, named_key, usual_key
from outthink.engines.protocol import Engine

EMBEDDED = "embedded"
_VARIABLES = ("OUTTHINK_MODEL", "OPENAI_BASE_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model that somebody has named.

    Args:
        where: `embedded`, a server's URL, the path of a GGUF file, or a plugin's SCHEME:REST.
        alias: its name in the configuration, None where it was named directly.
        name: which model of the server, None for its first.
        api_key: what the server wants; None where nothing belongs to it.
        price, energy, parameters: None for what is published, unknown, or told by file and server.
        source: who says the parameters.
        context: tokens of a call that a local model is ready for from the start.
        idle_timeout: seconds without any byte after which a server counts as hanging.
    """

    where: str
    alias: str | None = None
    name: str | None = None
    api_key: str | None = field(default=None, repr=False)
    price: Pricing | None = None
    energy: Energy | None = None
    parameters: int | None = None
    source: Source | None = None
    context: int = 0
    idle_timeout: float = 60.0

    def open(self) -> Engine:
        """Its engine, which starts nothing before its first use. Raises BadInput."""
        return locate(
            self.where, name=self.name, api_key=self.api_key, idle_timeout=self.idle_timeout, context=self.context
        )

    def tariff(self, engine: Engine) -> Tariff:
        """What its calls cost, once the engine can tell its model's name."""
        return Tariff.of_engine(
            engine, price=self.price, energy=self.energy, parameters=self.parameters, source=self.source or "given"
        )

    def named(self, model: str) -> bool:
        """Whether it is known by this name: its alias, its name on the server, or that of its file."""
        return model in (self.alias, self.name, Path(self.where).name.removesuffix(".gguf"))


def choose_model(
    named: str | None = None,
    *,
    configuration: Configuration | Callable[[], Configuration] = read_configuration,
    name: str | None = None,
    api_key_env: str | None = None,
    idle_timeout: float = 60.0,
) -> ModelChoice:
    """The model of this name. Raises BadInput for one that nobody knows, and for an alias whose file is gone.

    Args:
        named: an alias, or what `--model` takes; None for what the environment says, else the configuration, else the
            embedded model.
        configuration: what aliases are read from, looked for only where one may be meant.
        name: which model of the server; wins over the alias's.
        api_key_env: variable that holds the server's key; wins over the alias's.
    """
    read = configuration
    held: Configuration | None = read if isinstance(read, Configuration) else None
    if not named:
        held = held or _read(read)
        variables = held.variables
        named = next((variables[each] for each in _VARIABLES if variables.get(each)), held.written.model or EMBEDDED)
    if is_alias(named):
        held = held or _read(read)
        if (alias := held.written.models.get(named)) is not None:
            return _of_alias(named, alias, held, name, api_key_env, idle_timeout)
        if not Path(named).is_file():
            raise _unknown(named, held)
    key = _key(named, api_key_env, held)
    return ModelChoice(where=named, name=name, api_key=key, idle_timeout=idle_timeout)


def _key(where: str, variable: str | None, configuration: Configuration | None) -> str | None:
    """What a server wants: the key that was named, else the usual one where that belongs to it."""
    variables = None if configuration is None else configuration.variables
    if variable is not None:
        return named_key(variable, variables)
    return usual_key(where, variables) if where.startswith(("http://", "https://")) else None


def _read(configuration: Configuration | Callable[[], Configuration]) -> Configuration:
    return configuration() if callable(configuration) else configuration


def _unknown(named: str, configuration: Configuration) -> BadInput:
    from outthink.validation import nearest

    known = [*configuration.written.models]
    where = configuration.file or "outthink.toml"
    remedy = nearest(named, [*known, EMBEDDED]) if known else f"give one of these, or write [models.{named}] in {where}"
    return BadInput("model", named, "is no alias, no URL, no file and not `embedded`", remedy)


def _of_alias(
    named: str,
    alias: Alias,
    configuration: Configuration,
    name: str | None,
    api_key_env: str | None,
    idle_timeout: float,
) -> ModelChoice:
    """What an alias stands for."""
    place = f"{configuration.file}: models.{named}"
    variables = configuration.variables
    where = alias.url or ""
    if alias.path is not None:
        path = configuration.folder / alias.path.expanduser()
        if not path.exists():
            raise BadInput(f"{place}.path", str(path), "does not exist", "correct it, or fetch the file again")
        where = str(path)
    if api_key_env is None and alias.api_key_env is not None and not variables.get(alias.api_key_env, "").strip():
        raise BadInput(f"{place}.api_key_env", alias.api_key_env, "is not set", "set that variable, or name another")
    return ModelChoice(
        where=where,
        alias=named,
        name=name or alias.name,
        api_key=_key(where, api_key_env or alias.api_key_env, configuration),
        price=None if alias.price is None else Price.parse(alias.price),
        energy=None if alias.energy is None else Energy.parse(alias.energy),
        parameters=alias.parameters,
        source=None if alias.parameters is None else "alias",
        context=alias.context or 0,
        idle_timeout=idle_timeout,
    )


def parameters_of(models: Iterable[str], given: Sequence[str], configuration: Configuration) -> dict[str, int]:
    """Weights read per token of models that samples were drawn from, as a flag or an alias says, by their names.

    Args:
        models: names in files of samples.
        given: lines of `--parameters`: N for every model, or MODEL=N.

    Raises BadInput for a line that holds no number, or names none of the models.
    """
    models = list(models)
    counts = {
        model: alias.parameters
        for name, alias in configuration.written.models.items()
        if alias.parameters is not None
        for model in models
        if ModelChoice(where=str(alias.path or alias.url), alias=name, name=alias.name).named(model)
    }
    for line in given:
        name, mark, text = line.rpartition("=")
        if not text.isdecimal() or int(text) < 1:
            raise BadInput("--parameters", line, "is no number of weights", "give a whole number, or MODEL=NUMBER")
        if mark and name not in models:
            raise BadInput("--parameters", name, "is none of the models", f"use one of {', '.join(models)}")
        counts |= dict.fromkeys([name] if mark else models, int(text))
    return counts
