"""From a chat request's body and headers to what a session works on, and what is sent along untouched.

Knows: OpenAI's parameters, their types and ranges, which of them the engine sets itself, and what a request may ask of
the proxy besides. Unknown fields are nobody's business but the backend's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Literal, NamedTuple, get_args

from annotated_types import Ge, Le

from outthink.core.errors import BadInput
from outthink.core.plugins import loaded
from outthink.core.request import ANSWER_KINDS, CURRENCIES, Budget, Message, Request, Sampling, chat_bound
from outthink.core.sample import MEASURES
from outthink.http.events import Json
from outthink.http.fields import JsonDict
from outthink.serving.admission import Limits
from outthink.serving.bounds.checked import CheckedBody, passed_fields, read_count
from outthink.serving.chat.votes import answer_reader
from outthink.serving.failure import Failure, bad_field
from outthink.serving.protocols import Key
from outthink.strategies import Spec
from outthink.strategies.defaults import BASELINE, PASSED
from outthink.validation import Border, read_fields

# The body's `outthink` object wins over the model's name, that over the header, and that over the key's own strategy.
# Of budgets the stricter one wins in each currency.

PREFIX = "outthink/"
AUTO = "auto"
STRATEGY_HEADER, BUDGET_HEADER = "x-outthink-strategy", "x-outthink-budget"
Progress = Literal["comments", "reasoning"]
_OF_KEY = "strategy of the key"
VERIFIERS = (*MEASURES, "judge")
"""What a client may name, besides plugins; anything else (folders, addresses) only its operator can open."""
_FIELDS = ("strategy", "budget", "verifier", "answer", "progress", "model")
_SIZED = re.compile(r"([^@:]+)@([^@:]*)(?::(.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """What a request asks of the proxy: strategy, budget, verifier, kind of answer, and how progress is shown.

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

    def stored_model(self, named: str) -> str:
        """The model that a request names, for ledger, log and traces: without what is written for a model to read."""
        inside = named.removeprefix(PREFIX)
        if inside in (named, AUTO):
            return named
        spec = self.strategy if self.where == "model" else None
        if spec is None:  # another strategy runs, and nobody has read this one's name
            with suppress(Failure):
                spec = read_strategy("model", inside)
        if spec is None:
            return PREFIX + AUTO
        return named if spec.public is spec else PREFIX + str(spec.public)


def beyond_forwarding(body: JsonDict, headers: Mapping[str, str]) -> str | None:
    """The field by which a request asks for more than to be passed through, if it does."""
    model = body.get("model")
    if isinstance(model, str) and model.startswith(PREFIX):
        return "model"
    if "outthink" in body:
        return "outthink"
    if STRATEGY_HEADER in headers:
        return STRATEGY_HEADER
    return BUDGET_HEADER if BUDGET_HEADER in headers else None


def read_options(body: JsonDict, headers: Mapping[str, str], key: Key) -> RequestOptions:
    """Everything that a request asks of the proxy. Raises BadInput or Failure that names the field."""
    own = body.get("outthink", {})
    if not isinstance(own, dict):
        raise bad_field("outthink", own, "is no object", f"use any of {', '.join(_FIELDS)}")
    for name in own:
        if name not in _FIELDS:
            raise bad_field(f"outthink.{name[:60]}", own[name], "is not known", f"use any of {', '.join(_FIELDS)}")
    named = str(body["model"])
    inside = named[len(PREFIX) :] if named.startswith(PREFIX) else None
    model = _text(own, "model") if inside is not None else named
    candidates = (
        ("outthink.strategy", _text(own, "strategy")),
        ("model", None if inside == AUTO else inside),
        (STRATEGY_HEADER, headers.get(STRATEGY_HEADER)),
        (_OF_KEY, key.strategy),
        ("model", None if inside is not None else PASSED),
    )
    field, name = next(((field, name) for field, name in candidates if name is not None), ("model", AUTO))
    strategy = None if name == AUTO else read_strategy(field, name)
    if not _is_own(key, field, strategy):
        named_so = (named,) if field == "model" else ()
        check_allowed(key, PREFIX + (AUTO if strategy is None else strategy.strategy.name), *named_so)
    if model is not None:
        check_allowed(key, model)
    budget = key.budget
    for where, value in (("outthink.budget", own.get("budget")), (BUDGET_HEADER, headers.get(BUDGET_HEADER))):
        if value is not None:
            budget = stricter(budget, read_budget(where, value))
    return RequestOptions(
        model=model,
        strategy=strategy,
        where=field,
        budget=budget,
        verifier=_chosen(own, "verifier", (*VERIFIERS, *loaded("verifiers"))),
        answer=_chosen(own, "answer", (*ANSWER_KINDS, *loaded("answers"))),
        progress=_chosen(own, "progress", get_args(Progress)) or "comments",  # type: ignore[arg-type]
    )


def _is_own(key: Key, field: str, strategy: Spec | None) -> bool:
    """Whether a strategy is the one that its operator gave to the key, which its list of models does not refuse."""
    if field == _OF_KEY:
        return True
    with suppress(Failure):  # it may be a plugin's that is gone, and another one is asked for
        return bool(key.models and key.strategy) and strategy == read_strategy(_OF_KEY, str(key.strategy))
    return False


def check_allowed(key: Key, *names: str) -> None:
    """Refuse a model or strategy that a key may not use under any of its names. Raises Failure."""
    if key.models and not set(names) & set(key.models):
        message = f"model: this key may not use {names[0][:120]!r}; it may use {', '.join(key.models)}"
        raise Failure(403, message, param="model", code="model_not_allowed")


def read_strategy(field: str, text: str) -> Spec:
    """`NAME[@n][:k=v,...]`."""
    if len(text) > _LONGEST:
        raise bad_field(field, text, f"has more than {_LONGEST} letters", "shorten it", code="invalid_strategy")
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
            if len(value) > _LONGEST:
                raise BadInput(field, value, f"has more than {_LONGEST} letters", "write tokens=4000,seconds=20")
            return Budget.parse(value)
        if not isinstance(value, dict) or not value:
            raise BadInput(field, value, "is no budget", "write tokens=4000,seconds=20 or {'tokens': 4000}")
        for name in value:
            if name not in CURRENCIES:
                raise BadInput(field, name, "names no known currency", f"use any of {', '.join(CURRENCIES)}")
        return Budget(**value)
    except BadInput as error:
        message = str(error) if error.field == field else f"{field}: {error}"
        raise Failure(400, message, param=field, code="invalid_budget") from None


def stricter(first: Budget, second: Budget) -> Budget:
    """The lower ceiling of two in every currency."""
    lowest: JsonDict = {}
    for name in CURRENCIES:
        ceilings = [ceiling for budget in (first, second) if (ceiling := budget.get(name)) is not None]
        lowest[name] = min(ceilings, default=None)
    return Budget(**lowest)


def _text(own: JsonDict, name: str) -> str | None:
    value = own.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise bad_field(f"outthink.{name}", value, "is no text", "leave it out or name one")
    return value


def _chosen(own: JsonDict, name: str, known: tuple[str, ...]) -> str | None:
    value = _text(own, name)
    if value is not None and value not in known:
        raise bad_field(f"outthink.{name}", value, "is not known", f"use one of {', '.join(known)}")
    return value


_DEFAULT = Sampling()
_MOST_CHOICES = 128  # as OpenAI has it
_LONGEST = 4096
"""Letters of a strategy, of a budget and of a stop sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFields:
    """What the engine itself reads of a chat's body, beside messages, lengths, stops and `n`."""

    temperature: Annotated[float, Ge(0), Le(100)] = _DEFAULT.temperature
    top_p: Annotated[float, Ge(0), Le(1)] = _DEFAULT.top_p
    top_k: Annotated[int, Ge(-1), Le(10**9)] = 0  # some servers write -1 for none
    min_p: Annotated[float, Ge(0), Le(1)] = 0.0
    reasoning_effort: str | None = None
    seed: Annotated[int, Ge(-(2**63)), Le(2**63 - 1)] | None = None
    stream: bool = False
    stream_options: JsonDict = field(default_factory=dict)
    logprobs: bool = False
    top_logprobs: Annotated[int, Ge(0), Le(20)] | None = None

    @property
    def usage(self) -> bool:
        """A chunk with the usage is wanted at the end of a stream."""
        return bool(self.stream_options.get("include_usage"))


_BORDER = Border(
    words={
        "bool": ("is neither true nor false", "send one of them or leave it out"),
        "dict": ("is no object", "send {'include_usage': true} or leave it out"),
        "string": ("is no text", "use low, medium or high"),
    }
)
OWN = frozenset({"model", "messages", "stop", "outthink", *(entry.name for entry in fields(ChatFields))})
"""Fields that the engine writes, lengths and multiplicities besides; all others are passed on."""


class CallBounds(NamedTuple):
    """What one call of a limited key's request may use beside its completion.

    Args:
        prompt: tokens of the client's own prompt at most, tools and pictures included; None where nothing is limited.
        beside: those of them that the messages' own bytes do not bound: tools, pictures, other fields.
        thinking: tokens of thinking that a server may grant beside the length; the call's `max_tokens` holds them.
        thinking_fields: what asks for them.
    """

    prompt: int | None = None
    beside: int = 0
    thinking: int = 0
    thinking_fields: frozenset[str] = frozenset()


_UNBOUNDED = CallBounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One chat request.

    Args:
        request: for the session.
        raw: its messages as they came.
        extra: fields for the backend.
        own: what the engine reads itself.
        choices: answers that the client wants (`n`).
        notes: what was changed, for the receipt.
        bounds: of its calls, where the key is limited.
    """

    request: Request
    raw: list[JsonDict]
    extra: JsonDict
    own: ChatFields
    choices: int = 1
    notes: tuple[str, ...] = ()
    bounds: CallBounds = _UNBOUNDED


def read_question(
    body: JsonDict, options: RequestOptions, limits: Limits, checked: CheckedBody | None = None, size: int = 0
) -> Question:
    """Raises Failure or BadInput that names the field.

    Args:
        checked: the body as a limited key may send it.
        size: bytes of the request.
    """
    raw = body.get("messages")
    if not isinstance(raw, list) or not raw:
        raise bad_field("messages", raw, "is no list of messages", "send at least one")
    if len(raw) > limits.messages:
        raise bad_field("messages", len(raw), "messages are too many", f"send at most {limits.messages}")
    messages = tuple(Message.of(value, f"messages[{at}]") for at, value in enumerate(raw))
    own = read_fields(ChatFields, body if body.get("logprobs") else {**body, "top_logprobs": None}, _BORDER)
    given = passed_fields(body, limited=False)
    passed = given if checked is None else passed_fields(checked.body)
    extra = {name: value for name, value in passed.fields.items() if name not in OWN}
    lengths = [read_count(name, value, 1, 10**9) for name, value in given.lengths if value is not None]
    sampling = Sampling(
        temperature=own.temperature,
        top_p=own.top_p,
        top_k=max(0, own.top_k),
        min_p=own.min_p,
        max_tokens=min(lengths, default=limits.max_tokens),
        stop=_stops(body.get("stop")),
        reasoning_effort=own.reasoning_effort,
    )
    bounds = CallBounds()
    if checked is not None:
        prompt, thinking = size - checked.shown + checked.unseen, checked.thinking
        bounds = CallBounds(prompt, prompt - chat_bound(messages), thinking, frozenset(checked.thinking_fields))
        sampling = replace(sampling, max_tokens=sampling.max_tokens + checked.thinking)
    others = [name for name in passed.others if name != "n"]
    notes = [f"{name[:100]}: a strategy decides that itself, so it was left out" for name in others]
    request = Request(
        messages=messages,
        answer=answer_reader(body, options.answer),
        budget=options.budget,
        sampling=sampling,
        seed=own.seed,
    )
    return Question(
        request=request,
        raw=raw,
        extra=extra,
        own=own,
        choices=1 if body.get("n") is None else read_count("n", body["n"], 1, _MOST_CHOICES),
        notes=tuple(notes),
        bounds=bounds,
    )


def fitted(question: Question, spec: Spec | None, limits: Limits, where: str = "model") -> tuple[Question, Spec | None]:
    """The question and the strategy made to fit each other. Raises BadInput for what cannot.

    Args:
        where: the field that the strategy was named in.
    """
    notes: list[str] = []
    if spec is not None and question.choices > 1:
        if spec.strategy.streams == "tokens":  # one plain sample
            spec = Spec.parse(BASELINE).sized(question.choices)
            notes.append(f"n: {question.choices} answers are asked for, so as many samples were drawn")
        elif spec.n < question.choices:
            remedy = f"ask for at most {spec.n}, or for more samples"
            raise BadInput("n", question.choices, f"is more than the {spec.n} samples of {spec}", remedy)
    if spec is not None and spec.n > limits.samples:
        raise BadInput(where, str(spec), "draws too many samples", f"ask for at most {limits.samples}")
    sampling = question.request.sampling
    # Votes need samples that differ; a single answer stays as it was asked for.
    if sampling.temperature == 0 and (spec is None or spec.n > 1):
        sampling = replace(sampling, temperature=_DEFAULT.temperature)
        notes.append(f"temperature: 0 would make all samples equal; {_DEFAULT.temperature:g} was used")
    if not notes:  # nothing has changed
        return question, spec
    request = replace(question.request, sampling=sampling)
    return replace(question, request=request, notes=(*question.notes, *notes)), spec


def _stops(value: Json) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if stops is None:
        return ()
    if not isinstance(stops, list) or len(stops) > 64 or not all(isinstance(stop, str) and stop for stop in stops):
        raise bad_field("stop", value, "is neither a text nor a list of texts", "send at most 64 of them")
    told = tuple(str(stop) for stop in stops)
    if longest := next((stop for stop in told if len(stop) > _LONGEST), None):
        raise bad_field("stop", longest, f"has more than {_LONGEST} letters", "shorten it")
    return told
