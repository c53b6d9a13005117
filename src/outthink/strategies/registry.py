"""The table of strategies, generated from the functions themselves.

Knows: names, parameters with defaults, sources, and how `name:k=v,...` is read. Does not know
what any strategy does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from typing import Any

from outthink.core.errors import BadInput
from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.session.session import Session
from outthink.strategies.prompts import STYLES, apply_style

StrategyFunction = Callable[..., Coroutine[Any, Any, Verdict]]
_REGISTRY: dict[str, Strategy] = {}


@cache
def _defaults(function: StrategyFunction) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())[2:]
    return {parameter.name: parameter.default for parameter in parameters}


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered strategy.

    Args:
        stops_early: it may leave samples unsampled, so `ahead` matters.
        needs: what it asks of the engine, in words.
        source: paper or origin of the algorithm.
        needs_verifier: it cannot run on a session without a verifier.
        extends: it continues prefixes, so that recorded samples cannot replay it.
        rewrites: it changes the question, which recorded samples did not answer.
        zero: parameters that may be 0, beside those whose default is 0.
    """

    name: str
    function: StrategyFunction
    stops_early: bool
    needs: str
    source: str
    needs_verifier: bool = False
    extends: bool = False
    rewrites: bool = False
    zero: tuple[str, ...] = ()

    @property
    def defaults(self) -> dict[str, Any]:
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

    def __call__(self, session: Session, request: Request, **parameters: Any) -> Coroutine[Any, Any, Verdict]:
        """Start the strategy."""
        return self.function(session, request, **parameters)


def strategy(
    name: str,
    *,
    source: str,
    needs: str = "any engine",
    stops_early: bool = False,
    verifier: bool = False,
    extends: bool = False,
    rewrites: bool = False,
    zero: tuple[str, ...] = (),
) -> Callable[[StrategyFunction], StrategyFunction]:
    """Register a function `(session, request, *, parameters...) -> Verdict` under a name.

    The other arguments are those of `Strategy`; `verifier` is its `needs_verifier`.
    """

    def register(function: StrategyFunction) -> StrategyFunction:
        _REGISTRY[name] = Strategy(name, function, stops_early, needs, source, verifier, extends, rewrites, zero)
        return function

    return register


def strategies() -> dict[str, Strategy]:
    """All registered strategies by name, in the order of the package."""
    return dict(_REGISTRY)


@dataclass(frozen=True, slots=True)
class Spec:
    """A strategy with chosen parameters, as in `self-consistency:n=16,ties=random`."""

    strategy: Strategy
    parameters: dict[str, Any]
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
        parameters: dict[str, Any] = {}
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
        return int(self.parameters.get("n", self.strategy.defaults.get("n", 1)))

    @property
    def waits(self) -> bool:
        """Whether it may stop early, so that the calls in flight matter."""
        return self.strategy.stops_early and self.strategy.name != "short-m-of-k"

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


def _shown(value: Any) -> str:
    """Short, and the same value again when read back."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _style(name: str) -> str:
    if name not in STYLES:
        raise BadInput("style", name, "is not known", f"use one of {', '.join(STYLES)}")
    return name


def _value(field: str, text: str, default: Any, zero: bool) -> Any:
    kind = type(default) if default is not None else int
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        value = kind(text)
    except (ValueError, KeyError):
        raise BadInput(field, text, f"is not a {kind.__name__}", f"the default is {default}") from None
    if kind in (int, float) and not (value > 0 or (zero and value == 0)):
        raise BadInput(field, text, "is negative" if zero else "is not positive", f"the default is {default}")
    return value
