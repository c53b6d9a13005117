"""The table of strategies, generated from the functions themselves.

Knows: names, parameters with defaults, sources, and how `name:k=v,...` is read. Does not know
what any strategy does.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from functools import cache
from typing import Literal

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.prompts import STYLES, apply_style

Parameter = str | int | float | None
"""What a parameter may be; a truth value is an int."""
StrategyFunction = Callable[..., Coroutine[object, object, Verdict]]
_REGISTRY: dict[str, Strategy] = {}

Streams = Literal["tokens", "thinking", "progress"]
VotesBy = Literal["answers", "scores", "none"]
JudgesWhen = Literal["never", "always", "parameter"]


@cache
def _defaults(function: StrategyFunction) -> dict[str, Parameter]:
    parameters = list(inspect.signature(function).parameters.values())[2:]
    return {parameter.name: parameter.default for parameter in parameters}


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
    def traits(self) -> dict[str, str | int | bool]:
        """By name, in the order above."""
        return {field.name: getattr(self, field.name) for field in fields(Traits)}


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
    def defaults(self) -> dict[str, Parameter]:
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

    def json(self) -> dict[str, object]:
        """What `outthink strategies --json` tells of it."""
        about = {"name": self.name, "summary": self.summary, "needs": self.needs, "source": self.source}
        return about | {"parameters": self.defaults, "traits": self.traits}

    def __call__(
        self, session: Session, request: Request, **parameters: Parameter
    ) -> Coroutine[object, object, Verdict]:
        """Start the strategy."""
        return self.function(session, request, **parameters)


def strategy(
    name: str,
    *,
    source: str,
    needs: str = "any engine",
    streams: Streams = "progress",
    votes: VotesBy = "none",
    judges: JudgesWhen = "never",
    alternatives: int = 0,
    stops_early: bool = False,
    waits: bool | None = None,
    extends: bool = False,
    rewrites: bool = False,
    shares_call: bool = False,
    serial: bool = False,
    zero: tuple[str, ...] = (),
    verifier: bool = False,
) -> Callable[[StrategyFunction], StrategyFunction]:
    """Register a function `(session, request, *, parameters...) -> Verdict` under a name.

    The other arguments are those of `Strategy` and `Traits`; `waits` is `stops_early` unless given, and
    `verifier` is the old form of `judges="always"`.
    """
    if verifier:
        warnings.warn("verifier=True is now judges='always'", DeprecationWarning, stacklevel=2)

    def register(function: StrategyFunction) -> StrategyFunction:
        _REGISTRY[name] = Strategy(
            name=name,
            function=function,
            needs=needs,
            source=source,
            streams=streams,
            votes=votes,
            judges="always" if verifier else judges,
            alternatives=alternatives,
            stops_early=stops_early,
            waits=stops_early if waits is None else waits,
            extends=extends,
            rewrites=rewrites,
            shares_call=shares_call,
            serial=serial,
            zero=zero,
        )
        return function

    return register


def strategies() -> dict[str, Strategy]:
    """All registered strategies by name, in the order of the package."""
    return dict(_REGISTRY)


@dataclass(frozen=True, slots=True)
class Spec:
    """A strategy with chosen parameters, as in `self-consistency:n=16,ties=random`."""

    strategy: Strategy
    parameters: dict[str, Parameter]
    style: str | None = None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read `name:k=v,...`; BadInput names an unknown strategy or parameter and lists the known ones."""
        name, _, rest = text.partition(":")
        name = name.strip()
        found = _REGISTRY.get(name)
        if found is None:
            raise BadInput("strategy", name, "is not known", f"use one of {', '.join(_REGISTRY)}")
        defaults = found.defaults
        parameters: dict[str, Parameter] = {}
        style: str | None = None
        for part in filter(None, (piece.strip() for piece in rest.split(","))):
            key, sign, value = part.partition("=")
            key = key.strip()
            if sign and key == "style":
                style = _style(value.strip())
            elif not sign or key not in defaults:
                known = ", ".join([*defaults, "style"])
                raise BadInput(f"strategy {name}", part, "is no parameter of it", f"use k=v with {known}")
            else:
                zero = key in found.zero or (defaults[key] is not None and defaults[key] == 0)
                parameters[key] = _value(f"{name}:{key}", value.strip(), defaults[key], zero)
        return cls(found, parameters, style)

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
        return self.strategy.name + (":" + ",".join(shown) if shown else "")

    def __str__(self) -> str:
        size = f"n={self.n}" if self.strategy.sized else ""
        name, _, rest = self.canonical.partition(":")
        inside = ",".join(filter(None, (size, rest)))
        return f"{name}:{inside}" if inside else name

    async def __call__(self, session: Session, request: Request) -> Verdict:
        """Run the strategy on a request, in its prompt style."""
        if self.style:
            request = apply_style(self.style, request)
        return await self.strategy(session, request, **self.parameters)


def _shown(value: Parameter) -> str:
    """Short, and the same value again when read back."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _style(name: str) -> str:
    if name not in STYLES:
        raise BadInput("style", name, "is not known", f"use one of {', '.join(STYLES)}")
    return name


def _value(field: str, text: str, default: Parameter, zero: bool) -> Parameter:
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
