"""What a question may be asked with, and how it becomes a request.

Knows: the options, their defaults and which of them goes with which model. Does not start anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, TypedDict

from outthink.configuration.models import ModelChoice, choose_model
from outthink.controller.allocation import GainTable
from outthink.controller.decide import StrategyFunction
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan
from outthink.controller.router.chooser import RoutedChoice
from outthink.controller.router.predictor import Predictor
from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind, AnswerReader, Budget, Message, Request, Sampling
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy, Source
from outthink.engines.protocol import Engine
from outthink.session.runner import Observer
from outthink.session.session import Session
from outthink.strategies import Spec
from outthink.verifiers.protocol import Verifier

Prompt = str | Sequence[Message | Mapping[str, Any]]
"""A question, or messages in OpenAI's form."""
Model = str | Path | ModelChoice | Engine | Callable[[], Engine]
"""What `--model` takes, an engine, or a function that opens one."""


class CommonOptions(TypedDict, total=False):
    """Options of `ask` and `ask_batch` alike.

    Args:
        model: an alias of the configuration, `embedded`, a server's URL, a GGUF file, an engine, or a function that
            opens one; several of them make a pool, of which a strategy draws from the first unless it says
            `session.on(name)`.
        budget: ceilings for the whole request or batch: a Budget, `tokens=4000,seconds=20`, or the same as a mapping.
        answer: kind of answer, or a function from completion text to canonical answer (`ask` text, `ask_batch` number).
        system: system prompt.
        max_tokens: cap of one completion (512).
        temperature: 0.8 unless given.
        reasoning_effort: low, medium, high or what the server calls it, where it has that.
        thinking_tokens: cap of the thinking alone, 0 for none, where the server has that.
        seed: sample i is drawn with seed + i.
        price: dollars per million tokens; wins over published prices. A list for a pool.
        energy: joules per token, bounds from above. A list for a pool.
        parameters: weights read per token, for FLOPs; wins over what the model's name or file says. A list for a pool.
        verifier: judges candidates for strategies that need one: a verifier, or what `--verifier` takes
            (docs/verifiers.md).
        observer: sees every event of every call.
        router: predictor of `outthink router train`, or its file or folder: it chooses the model of each request among
            those given (docs/router.md).
        router_map: what the router's models are called here, where that differs from their names.
        operating_point: `WAY=X`, in place of the router's own.
        routed: receives each choice of the router, before the first call.
        opened: receives the session before it starts, to stop it from outside.
    """

    model: Model | Sequence[Model]
    budget: Budget | str | Mapping[str, float] | None
    answer: AnswerKind | AnswerReader
    system: str | None
    max_tokens: int
    temperature: float
    reasoning_effort: str | None
    thinking_tokens: int | None
    seed: int | None
    price: Pricing | Sequence[Pricing | None] | None
    energy: Energy | Sequence[Energy | None] | None
    parameters: int | Sequence[int | None] | None
    verifier: Verifier | str | None
    observer: Observer | None
    opened: Callable[[Session], None] | None
    router: Predictor | Path | str | None
    router_map: Mapping[str, str] | None
    operating_point: str | None
    routed: Callable[[RoutedChoice], None] | None


class Options(CommonOptions, total=False):
    """Options of `ask`.

    Args:
        strategy: `name:k=v,...`, your own async function (session, request) -> Verdict, `auto` to let `policy`
            decide, or None for the default of the answer kind.
        ahead: calls in flight for strategies that may stop early (4).
        cache: reuse samples of earlier runs with the same prompt, parameters and seed.
        policy: what `outthink calibrate` made, or its file; for the strategy `auto` (docs/policy.md).
        planned: receives what `auto` decided, with its reasons, before the first call.
        learn: log of earlier outcomes that draws among the policy's arms (docs/online.md).
    """

    strategy: str | Spec | StrategyFunction | None
    ahead: int
    cache: bool
    policy: Policy | Path | str | None
    planned: Callable[[Plan], None] | None
    learn: Path | str | None


class BatchOptions(CommonOptions, total=False):
    """Options of `ask_batch`; its budget is for the whole batch, and an exact check takes the place of votes.

    Args:
        gains: what samples gain, measured on recorded ones (`evaluation.gains.measure_gains`); without it the
            answer that the model prefers is taken to be right.
        prior: pseudo-counts (passed, failed) of the Beta prior over each request's success, with a verifier (1, 1).
        at_most: samples a request (32).
        worth: the most that one more right answer may cost, in the budget's currency; requests that promise less
            are closed. None: the budget is spent as long as anything can gain.
        ids: a name for each request; samples are saved and replayed under it. Default: its number.
        journal: file that keeps finished samples: the same call goes on from there after a kill, and what was
            spent before counts against the budget.
    """

    gains: GainTable | None
    prior: tuple[float, float]
    at_most: int
    worth: float | None
    ids: Sequence[str] | None
    journal: Path | str | None


Chosen = ModelChoice | Engine | Callable[[], Engine]
"""A model whose name was read."""


class Costs(NamedTuple):
    """What the user says a call costs."""

    price: Pricing | None
    energy: Energy | None
    parameters: int | None
    source: Source = "given"


_CALLED = ("observer", "opened", "planned", "routed")
_KINDS: dict[str, tuple[type | UnionType, str]] = {
    **dict.fromkeys(("max_tokens", "ahead", "at_most"), (int, "a whole number (int)")),
    **dict.fromkeys(("seed", "thinking_tokens"), (int | None, "a whole number (int)")),
    **dict.fromkeys(("system", "reasoning_effort"), (str | None, "text")),
    **dict.fromkeys(_CALLED, (type(None), "a function")),
    "temperature": (int | float, "a number"),
    "worth": (int | float | None, "a number"),
    "cache": (bool, "True or False"),
    "strategy": (str | Spec | None, "a name or an async function"),
    "policy": (Policy | Path | str | None, "a policy or its file"),
    "learn": (Path | str | None, "a file"),
    "router": (Predictor | Path | str | None, "a predictor or its file"),
    "router_map": (Mapping | None, "a mapping of names"),
    "operating_point": (str | None, "text like strong-share=0.5"),
    "journal": (Path | str | None, "a file"),
    "gains": (GainTable | None, "a table of `measure_gains`"),
    "ids": (Sequence | None, "a list of names"),
}
"""What an option may be, where a value of another type would fail only later."""


def check_options(options: Mapping[str, object], allowed: type) -> None:
    """Refuse an option that does not exist, and a value of the wrong type. Raises BadInput."""
    known = allowed.__annotations__  # those of the bases included
    for name, value in options.items():
        if name not in known:
            raise BadInput("option", name, "is not known", f"use any of {', '.join(sorted(known))}")
        kind, words = _KINDS.get(name, (None, ""))
        if kind is None or (callable(value) and name in (*_CALLED, "strategy")):
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and name != "cache"):
            raise BadInput(name, value, f"is not {words}", "see docs/api.md")


def request_of(prompt: Prompt, options: Options) -> Request:
    """The request that a question with these options makes. Raises BadInput."""
    return Request.of(
        prompt,
        system=options.get("system"),
        answer=options.get("answer", "text"),
        budget=Budget.of(options.get("budget")),
        sampling=sampling_of(options),
        seed=options.get("seed"),
    )


def sampling_of(options: CommonOptions) -> Sampling:
    """How samples are drawn with these options. Raises BadInput."""
    return Sampling(
        temperature=options.get("temperature", 0.8),
        max_tokens=options.get("max_tokens", 512),
        reasoning_effort=options.get("reasoning_effort"),
        thinking_tokens=options.get("thinking_tokens"),
    )


def models_of(
    options: CommonOptions, choose: Callable[[str], ModelChoice] = choose_model
) -> list[tuple[Chosen, Costs]]:
    """The models to draw from with what each costs.

    Args:
        choose: what a name stands for.

    Raises BadInput for a name that nobody knows, a number of prices that is not theirs, and parameters that are no
    count.
    """
    given = options.get("model", "embedded")
    models: list[Model] = [given] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    if not models:
        raise BadInput("model", [], "is empty", "give at least one")
    prices = _each(options.get("price"), "price", len(models))
    energies = _each(options.get("energy"), "energy", len(models))
    sizes = _each(options.get("parameters"), "parameters", len(models))
    for field, given_costs, remedy in (("price", prices, "ot.Price"), ("energy", energies, "ot.Energy")):
        for cost in given_costs:
            if cost is not None and not hasattr(cost, "cost"):
                raise BadInput(field, cost, "is no object with costs", f"give {remedy}(...)")
    for size in sizes:
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise BadInput("parameters", size, "is no number of weights", "give a whole number above 0")
    known: list[Chosen] = [choose(str(model)) if isinstance(model, str | Path) else model for model in models]
    return [_priced(model, Costs(*costs)) for model, *costs in zip(known, prices, energies, sizes, strict=True)]


def _priced(model: Chosen, given: Costs) -> tuple[Chosen, Costs]:
    """A model, and its costs as they are given here, else as its alias says."""
    if not isinstance(model, ModelChoice):
        return model, given
    counted = (given.parameters, given.source)
    if given.parameters is None and model.parameters is not None:
        counted = (model.parameters, model.source or given.source)
    return model, Costs(given.price or model.price, given.energy or model.energy, *counted)


def _each(given: Any, field: str, count: int) -> list[Any]:
    values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if given is None:
        values *= count
    if len(values) != count:
        problem = f"is given for {len(values)} of {count} models"
        raise BadInput(field, given, problem, "give one for each, in their order")
    return values
