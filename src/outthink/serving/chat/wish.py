"""What a request wishes of the proxy: strategy, budget, verifier, kind of answer, and how progress is shown.

Knows: model names, the body's `outthink` object, the headers, and which of them wins: the body over the
model's name over the header over the key's own. Of budgets the stricter one wins in each currency.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from outthink.core.errors import BadInput
from outthink.core.request import ANSWER_KINDS, CURRENCIES, Budget
from outthink.core.sample import MEASURES
from outthink.serving.failure import Failure, bad_field
from outthink.serving.protocols import Key
from outthink.strategies import Spec

PREFIX = "outthink/"
AUTO = "auto"
STRATEGY_HEADER, BUDGET_HEADER = "x-outthink-strategy", "x-outthink-budget"
Progress = Literal["comments", "reasoning"]
VERIFIERS = (*MEASURES, "judge")
"""What a client may name; anything else (folders, addresses) only its operator can open."""
_FIELDS = ("strategy", "budget", "verifier", "answer", "progress", "model")
_SIZED = re.compile(r"([^@:]+)@([^@:]*)(?::(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One request's.

    Args:
        model: backend model to draw from, None for the pool's first.
        strategy: None for `auto`.
        where: the field that it was named in.
        answer: kind of answer that votes are taken on, None to choose by the request.
    """

    model: str | None = None
    strategy: Spec | None = None
    where: str = "model"
    budget: Budget = field(default_factory=Budget)
    verifier: str | None = None
    answer: str | None = None
    progress: Progress = "comments"


def wanted(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """The field by which a request asks for more than to be passed through, if it does."""
    model = body.get("model")
    if isinstance(model, str) and model.startswith(PREFIX):
        return "model"
    if "outthink" in body:
        return "outthink"
    return next((name for name in (STRATEGY_HEADER, BUDGET_HEADER) if name in headers), None)


def read_wish(body: Mapping[str, Any], headers: Mapping[str, str], key: Key) -> Wish:
    """Everything that a request wishes. Raises BadInput or Failure that names the field."""
    own = body.get("outthink", {})
    if not isinstance(own, dict):
        raise bad_field("outthink", own, "is no object", f"use any of {', '.join(_FIELDS)}")
    for name in own:
        if name not in _FIELDS:
            raise bad_field(f"outthink.{name[:60]}", own[name], "is not known", f"use any of {', '.join(_FIELDS)}")
    named = str(body["model"])
    inside = named[len(PREFIX) :] if named.startswith(PREFIX) else None
    model = _text(own, "model") if inside is not None else named
    wishes = (
        ("outthink.strategy", _text(own, "strategy")),
        ("model", None if inside == AUTO else inside),
        (STRATEGY_HEADER, headers.get(STRATEGY_HEADER)),
        ("strategy of the key", key.strategy),
        ("model", None if inside is not None else "single"),
    )
    field, told = next(((field, told) for field, told in wishes if told is not None), ("model", AUTO))
    strategy = None if told == AUTO else read_strategy(field, told)
    named_so = (named,) if field == "model" else ()
    check_allowed(key, PREFIX + (AUTO if strategy is None else strategy.strategy.name), *named_so)
    if model is not None:
        check_allowed(key, model)
    budget = key.budget
    for where, value in (("outthink.budget", own.get("budget")), (BUDGET_HEADER, headers.get(BUDGET_HEADER))):
        if value is not None:
            budget = stricter(budget, read_budget(where, value))
    return Wish(
        model=model,
        strategy=strategy,
        where=field,
        budget=budget,
        verifier=_chosen(own, "verifier", VERIFIERS),
        answer=_chosen(own, "answer", ANSWER_KINDS),
        progress=_chosen(own, "progress", get_args(Progress)) or "comments",  # type: ignore[arg-type]
    )


def check_allowed(key: Key, *names: str) -> None:
    """Refuse a model or strategy that a key may not use under any of its names. Raises Failure."""
    if key.models and not set(names) & set(key.models):
        told = f"model: this key may not use {names[0][:120]!r}; it may use {', '.join(key.models)}"
        raise Failure(403, told, param="model", code="model_not_allowed")


def read_strategy(field: str, text: str) -> Spec:
    """`NAME[@n][:k=v,...]`."""
    name, rest = text, ""
    if (match := _SIZED.match(text)) is not None:
        name, size, rest = match[1], match[2], match[3] or ""
        rest = f"n={size}" + ("," + rest if rest else "")
    try:
        return Spec.parse(f"{name}:{rest}" if rest else name)
    except BadInput as error:
        raise Failure(400, f"{field}: {error}", param=field, code="invalid_strategy") from None


def read_budget(field: str, value: object) -> Budget:
    """`tokens=4000,seconds=20`, or an object of the same."""
    try:
        if isinstance(value, str):
            return Budget.parse(value)
        if not isinstance(value, dict) or not value:
            raise BadInput(field, value, "is no budget", "write tokens=4000,seconds=20 or {'tokens': 4000}")
        for name in value:
            if name not in CURRENCIES:
                raise BadInput(field, name, "names no known currency", f"use any of {', '.join(CURRENCIES)}")
        return Budget(**value)
    except BadInput as error:
        told = str(error) if error.field == field else f"{field}: {error}"
        raise Failure(400, told, param=field, code="invalid_budget") from None


def stricter(one: Budget, other: Budget) -> Budget:
    """The lower ceiling of two in every currency."""
    told: dict[str, Any] = {}
    for name in CURRENCIES:
        ceilings = [ceiling for budget in (one, other) if (ceiling := budget.get(name)) is not None]
        told[name] = min(ceilings, default=None)
    return Budget(**told)


def _text(own: Mapping[str, Any], name: str) -> str | None:
    value = own.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise bad_field(f"outthink.{name}", value, "is no text", "leave it out or name one")
    return value


def _chosen(own: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str | None:
    value = _text(own, name)
    if value is not None and value not in known:
        raise bad_field(f"outthink.{name}", value, "is not known", f"use one of {', '.join(known)}")
    return value
