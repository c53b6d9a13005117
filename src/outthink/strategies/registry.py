"""The table of strategies, generated from the functions themselves.

Knows: names, parameters with defaults, sources, and how `name:k=v,...` is read. Does not know
what any strategy does.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from outthink.core.errors import BadInput, OutthinkError, need_known
from outthink.core.plugins import load, owner, resolve_beside, taken
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import MEASURES
from outthink.session.session import Session
from outthink.strategies.parameters import Parameter, Value, parameters
from outthink.strategies.prompts import STYLES, apply_style
from outthink.verifiers.protocol import AGGREGATIONS

T = TypeVar("T")
Run = Coroutine[Any, Any, T]
"""What a strategy, or a part of it, is once it has been called: awaits nothing but the session."""
StrategyFunction = Callable[..., Run[Verdict]]
PYTHON = "python:"
"""How a function to import is named; whoever speaks over the wire cannot."""
_REGISTRY: dict[str, Strategy] = {}

Streams = Literal["tokens", "thinking", "progress"]
VotesBy = Literal["answers", "scores", "none"]
JudgesWhen = Literal["never", "always", "parameter"]


@cache
def _defaults(function: StrategyFunction) -> dict[str, Value]:
    return {parameter.name: parameter.default for parameter in parameters(function)}


@cache
def _words(function: StrategyFunction) -> frozenset[Value]:
    """Texts that mean something to a strategy; any other may be a part of a prompt."""
    choices = [word for parameter in parameters(function) for word in parameter.choices]
    return frozenset([*MEASURES, *AGGREGATIONS, "verifier", *choices, *_defaults(function).values()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a strategy needs and how it streams. Nobody outside asks for its name.

    Args:
        streams: what a client may be shown while it runs: the `tokens` of its only sample as they come, the
            `thinking` before an answer, or no more than that it makes `progress`.
        votes: its answer is elected by equal votes of `answers`, by `scores`, or `none` are counted.
        judges: a verifier scores candidates `never`, `always` (it cannot run without one), or as a `parameter`
            says: `score` or `judge`; without such a parameter, wherever the session has a verifier.
        alternatives: alternatives a token that the engine must return, with the default parameters.
        stops_early: it may leave samples unsampled.
        waits: it waits for samples before it asks for more, so that `ahead` matters.
        extends: it continues prefixes, so that recorded samples cannot replay it.
        rewrites: it changes the question, which recorded samples did not answer.
        shares_call: its samples may be several choices of one call.
        serial: it never has two calls in flight.
    """

    streams: Streams = "progress"
    votes: VotesBy = "none"
    judges: JudgesWhen = "never"
    alternatives: int = 0
    stops_early: bool = False
    waits: bool = False
    extends: bool = False
    rewrites: bool = False
    shares_call: bool = False
    serial: bool = False

    @property
    def traits(self) -> dict[str, Value]:
        """By name, in the order above."""
        known = asdict(self)
        return {field.name: known[field.name] for field in fields(Traits)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy(Traits):
    """A registered strategy.

    Args:
        needs: what it asks of the engine, in words.
        source: paper or origin of the algorithm.
        zero: parameters that may be 0, beside those whose default is 0.
    """

    name: str
    function: StrategyFunction
    needs: str
    source: str
    zero: tuple[str, ...] = ()

    @property
    def needs_verifier(self) -> bool:
        """Whether it cannot run on a session without a verifier."""
        return self.judges == "always"

    @property
    def parameters(self) -> list[Parameter]:
        """Parameters with types, defaults and what they mean."""
        return parameters(self.function)

    @property
    def plugin(self) -> str | None:
        """The distribution, else the module, that it comes from; None for what is built in."""
        module = self.function.__module__
        return None if module.partition(".")[0] == __name__.partition(".")[0] else owner(module)

    @property
    def defaults(self) -> dict[str, Value]:
        """Parameters and their default values."""
        return dict(_defaults(self.function))

    @property
    def sized(self) -> bool:
        """Whether it has a size n."""
        return "n" in self.defaults

    @property
    def summary(self) -> str:
        """First line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def json(self) -> dict[str, Any]:
        """What `outthink strategies --json` tells of it."""
        return {
            "name": self.name,
            "summary": self.summary,
            "needs": self.needs,
            "source": self.source,
            "parameters": [parameter._asdict() for parameter in self.parameters],
            "traits": self.traits | {"needs_verifier": self.needs_verifier},
            "plugin": self.plugin,
        }

    def __call__(self, session: Session, request: Request, **parameters: Value) -> Run[Verdict]:
        """Start the strategy."""
        return self.function(session, request, **parameters)


class TraitFields(TypedDict, total=False):
    """The fields of `Traits`, as `strategy` takes them."""

    streams: Streams
    votes: VotesBy
    judges: JudgesWhen
    alternatives: int
    stops_early: bool
    waits: bool
    extends: bool
    rewrites: bool
    shares_call: bool
    serial: bool


def strategy(
    name: str,
    *,
    source: str,
    needs: str = "any engine",
    zero: tuple[str, ...] = (),
    verifier: bool = False,
    **traits: Unpack[TraitFields],
) -> Callable[[StrategyFunction], StrategyFunction]:
    """Register a function `(session, request, *, parameters...) -> Verdict` under a name.

    The other arguments are those of `Strategy` and `Traits`; `waits` is `stops_early` unless given, and
    `verifier` is the old form of `judges="always"`.
    """
    traits.setdefault("waits", traits.get("stops_early", False))
    if verifier:
        warnings.warn("verifier=True is now judges='always'", DeprecationWarning, stacklevel=2)
        traits["judges"] = "always"

    def register(function: StrategyFunction) -> StrategyFunction:
        if (other := _REGISTRY.get(name)) is not None and _place(other.function) != _place(function):
            raise taken("strategy", name, owner(other.function.__module__), owner(function.__module__))
        _REGISTRY[name] = Strategy(name=name, function=function, needs=needs, source=source, zero=zero, **traits)
        return function

    return register


def strategies() -> dict[str, Strategy]:
    """All registered strategies by name, in the order of the package."""
    return dict(_REGISTRY)


@dataclass(frozen=True, slots=True)
class Spec:
    """A strategy with chosen parameters, as in `self-consistency:n=16,ties=random`."""

    strategy: Strategy
    parameters: dict[str, Value]
    style: str | None = None

    @classmethod
    def parse(cls, text: str, *, importing: bool = False) -> Spec:
        """Read `name:k=v,...`; BadInput names an unknown strategy or parameter and lists the known ones.

        Args:
            importing: the text comes from whoever runs this process, never over the wire. Then plugins are
                looked for, and `python:package.module:function[,k=v,...]` imports a function.
        """
        # The name of a function to import holds colons of its own.
        name, _, rest = text.partition("," if importing and text.startswith(PYTHON) else ":")
        chosen = _find(name.strip(), importing)
        defaults = chosen.defaults
        parameters: dict[str, Value] = {}
        style: str | None = None
        for part in filter(None, (piece.strip() for piece in rest.split(","))):
            key, sign, value = part.partition("=")
            key = key.strip()
            if sign and key == "style":
                style = value.strip()
                need_known("style", style, STYLES)
            elif not sign or key not in defaults:
                known = ", ".join([*defaults, "style"])
                raise BadInput(f"strategy {name}", part, "is no parameter of it", f"use k=v with {known}")
            else:
                zero = key in chosen.zero or (defaults[key] is not None and defaults[key] == 0)
                parameters[key] = _value(f"{name}:{key}", value.strip(), defaults[key], zero)
        return cls(chosen, parameters, style)

    def sized(self, n: int) -> Spec:
        """The same with size n."""
        return Spec(self.strategy, {**self.parameters, "n": n}, self.style)

    @property
    def n(self) -> int:
        """Samples it may draw; 1 for a strategy without size."""
        return int(self.parameters.get("n", self.strategy.defaults.get("n", 1)) or 1)

    @property
    def waits(self) -> bool:
        """Whether the number of calls in flight matters to it."""
        return self.strategy.waits

    @property
    def judges(self) -> bool:
        """Whether it scores candidates where the session has a verifier."""
        if self.strategy.judges != "parameter":
            return self.strategy.judges == "always"
        values = self.strategy.defaults | self.parameters
        chosen = [values[name] for name in ("score", "judge") if name in values]
        return all(value in ("auto", "verifier") for value in chosen)

    @property
    def canonical(self) -> str:
        """Name with non-default parameters, size left out."""
        defaults = self.strategy.defaults
        shown = [
            f"{key}={_shown(value)}"
            for key, value in sorted(self.parameters.items())
            if key != "n" and value != defaults[key]
        ]
        if self.style:
            shown.append(f"style={self.style}")
        return self._written(shown)

    def __str__(self) -> str:
        name, canonical = self.strategy.name, self.canonical
        size = [f"n={self.n}"] if self.strategy.sized else []
        return self._written([*size, *filter(None, [canonical[len(name) + 1 :]])])

    @property
    def public(self) -> Spec:
        """The same as it may be kept: three stars stand for each text that is no word of ours."""
        words = _words(self.strategy.function)
        texts: dict[str, Value] = {
            key: "***" for key, value in self.parameters.items() if isinstance(value, str) and value not in words
        }
        return Spec(self.strategy, self.parameters | texts, self.style) if texts else self

    def _written(self, settings: Sequence[str]) -> str:
        name = self.strategy.name
        sign = "," if name.startswith(PYTHON) else ":"
        return name + sign + ",".join(settings) if settings else name

    async def __call__(self, session: Session, request: Request) -> Verdict:
        """Run the strategy on a request, in its prompt style."""
        if self.style:
            request = apply_style(self.style, request)
        return await self.strategy(session, request, **self.parameters)


def _find(name: str, importing: bool) -> Strategy:
    """A registered strategy, a plugin's, or a function to import; the last two only where that is allowed."""
    if name in _REGISTRY:
        return _REGISTRY[name]
    if importing and name.startswith(PYTHON):
        target = name[len(PYTHON) :]
        try:
            function = resolve_beside(target)
        except OutthinkError:
            raise
        # An import runs whatever the module holds, and may fail in any way.
        except Exception as error:
            problem = f"cannot be imported ({type(error).__name__}: {error})"
            raise BadInput("strategy", name, problem, f"write {PYTHON}package.module:function") from error
        return _declared(name, function, target.partition(":")[0])
    if importing and (function := load("strategies", name)) is not None:
        if name not in _REGISTRY:  # else its import has registered it
            _REGISTRY[name] = _declared(name, function, owner(function.__module__))
        if _REGISTRY[name].function is not function:
            raise BadInput("strategy", name, "is offered under another name than its own", "mend its entry point")
        return _REGISTRY[name]
    raise BadInput("strategy", name, "is not known", f"use one of {', '.join(_REGISTRY)}")


def _declared(name: str, function: StrategyFunction, source: str) -> Strategy:
    """A function with the traits that it declares, if it does; BadInput for what is no strategy."""
    for known in _REGISTRY.values():
        if known.function is function:
            return replace(known, name=name)
    if not inspect.iscoroutinefunction(function):
        raise BadInput("strategy", name, "is no async function", "see docs/write-a-strategy.md")
    parameters = list(inspect.signature(function).parameters.values())
    plain = all(isinstance(each.default, str | int | float | None) for each in parameters[2:])
    if len(parameters) < 2 or not plain:
        problem = "does not take (session, request) and parameters with plain defaults"
        raise BadInput("strategy", name, problem, "see docs/write-a-strategy.md")
    return Strategy(name=name, function=function, needs="any engine", source=source)


def _place(function: StrategyFunction) -> tuple[str, str]:
    """Where it is written: a module that is read twice registers the same strategies again."""
    return inspect.getfile(function), function.__qualname__


def _shown(value: Value) -> str:
    """Short, and the same value again when read back."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _value(field: str, text: str, default: Value, zero: bool) -> Value:
    # What is worked out later where nobody gives it is a whole number everywhere: windows, caps, chains.
    kind: type[str | int | float] = type(default) if default is not None else int
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        value = kind(text)
    except (ValueError, KeyError):
        raise BadInput(field, text, f"is not a {kind.__name__}", f"the default is {default}") from None
    if not isinstance(value, str) and not (value > 0 or (zero and value == 0)):
        raise BadInput(field, text, "is negative" if zero else "is not positive", f"the default is {default}")
    return value
