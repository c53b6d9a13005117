"""The request body of one completion, and what is known about the server that it is written for.

Facts are not configured: they come from refusals, from what replies contain, and from `doctor`, and a small JSON file
remembers them; it holds no key, prompt or text. Knows the parameters and their names on several servers, which can be
left out or renamed after a refusal, how refusals are worded, and whether a server heeds what is asked about thinking.
Sends nothing and reads no completion.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_args, get_type_hints

from outthink.core.paths import private_folder
from outthink.engines.protocol import Call
from outthink.http.errors import ErrorBody
from outthink.http.events import Json, JsonObject
from outthink.http.fields import CHAT_LENGTH_FIELDS


@dataclass(slots=True)
class Facts:
    """None means not found out yet.

    Args:
        refused: request parameters that the server does not accept.
        length_name: the parameter that caps a completion (`max_tokens` or `max_completion_tokens`).
        top_k_off: how top-k is switched off: 0, or -1 for servers that refuse 0.
        logprobs: log-probabilities of the chosen tokens come back.
        top_logprobs: how many alternatives come back at most.
        top_logprobs_limit: more than this is refused.
        prefix: a partial assistant message is continued.
        repeats: the reply repeats that partial message.
        seed: the same seed gave the same completion.
        tokenizer: `vllm`, `llama.cpp` or `none`: whose `/tokenize` the server has.
        counts_chats: that `/tokenize` (or `/apply-template`) takes messages too.
        n: `n` > 1 gives that many choices.
        usage_sums: with `n` > 1, `usage` counts all choices and not one.
    """

    refused: set[str] = field(default_factory=set)
    length_name: str | None = None
    top_k_off: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    top_logprobs_limit: int | None = None
    prefix: bool | None = None
    repeats: bool | None = None
    seed: bool | None = None
    tokenizer: str | None = None
    counts_chats: bool | None = None
    n: bool | None = None
    usage_sums: bool | None = None
    learnt: dict[str, float] = field(default_factory=dict, repr=False)
    """When each of them was found out, in seconds since the epoch; `refused:NAME` for refusals."""
    changed: bool = field(default=False, repr=False, compare=False)
    """Something was learnt that has not been remembered yet."""
    now: Callable[[], float] = field(default=time.time, repr=False, compare=False)

    def learn(self, *, again: bool = False, **values: Json) -> None:
        """Note values. Known ones keep their date, so that limitations expire, unless tried `again`."""
        for name, value in values.items():
            if getattr(self, name) != value or again:
                setattr(self, name, value)
                self.learnt[name] = self.now()
                self.changed = True

    def refuse(self, name: str) -> None:
        """Note a parameter that must not be sent any more."""
        if name not in self.refused:
            self.refused.add(name)
            self.learnt[f"refused:{name}"] = self.now()
            self.changed = True


EXPIRES = 7 * 86_400.0
"""Seconds after which a fact must be found out again: servers are upgraded and restarted with other flags."""

_TYPES: dict[str, type] = {
    name: get_args(hint)[0] for name, hint in get_type_hints(Facts).items() if type(None) in get_args(hint)
}
"""What a file may hold, beside `refused`: the facts that may be None."""


def file_for(folder: Path, url: str, model: str) -> Path:
    """The file of one URL (without user, password and query) and model."""
    name = hashlib.sha256(f"{url}\n{model}".encode()).hexdigest()[:20]
    return folder / f"{name}.json"


def recall(path: Path, *, now: Callable[[], float] = time.time) -> Facts:
    """The facts of a file that are still fresh. A missing or corrupt file is an empty one."""
    facts = Facts(now=now)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return facts
    values, learnt = (stored.get(key) for key in ("facts", "learnt")) if isinstance(stored, dict) else (None, None)
    if not isinstance(values, dict) or not isinstance(learnt, dict):
        return facts

    def fresh(key: str) -> bool:
        at = learnt.get(key)
        # A date in the future, of a clock that was set back, would stay fresh for too long.
        return isinstance(at, int | float) and 0 <= now() - at < EXPIRES

    for name, kind in _TYPES.items():
        if type(values.get(name)) is kind and fresh(name):
            setattr(facts, name, values[name])
            facts.learnt[name] = learnt[name]
    refused = values.get("refused")
    for name in refused if isinstance(refused, list) else ():
        if isinstance(name, str) and fresh(key := f"refused:{name}"):
            facts.refused.add(name)
            facts.learnt[key] = learnt[key]
    return facts


def remember(path: Path, facts: Facts, url: str, model: str) -> None:
    """Write the file, whole or not at all. A disk that refuses costs only the memory."""
    facts.changed = False
    known = asdict(facts)
    values = {name: known[name] for name in _TYPES if known[name] is not None}
    values["refused"] = sorted(facts.refused)
    text = json.dumps({"url": url, "model": model, "facts": values, "learnt": facts.learnt}, indent=1)
    scratch = None
    try:
        private_folder(path.parent)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, path)
    except OSError:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)


# The body.

OPTIONAL = frozenset(
    {
        "top_k",
        "min_p",
        "timings_per_token",
        "stream_options",
        "continuous_usage_stats",
        "seed",
        "logprobs",
        "top_logprobs",
        "continue_final_message",
        "add_generation_prompt",
        "stream",
        "verbose",
        "reasoning_effort",
        "thinking_token_budget",
        "thinking_budget_tokens",
        "custom_params",
        "chat_template_kwargs",
    }
)
"""Parameters that may be left out because the call still means the same, or nearly so."""

EXTENSIONS = ("top_k", "min_p", "timings_per_token", "continuous_usage_stats")
"""Those which OpenAI itself does not have; strict servers refuse them all, one by one."""

THINKING = ("thinking_token_budget", "thinking_budget_tokens", "custom_params", "chat_template_kwargs")
"""How a cap of the thinking is asked for: vLLM, llama.cpp, SGLang, and templates that can leave it out.
Servers ignore the names of others, so all are sent, but only where a cap is wished."""

SAMPLING = frozenset({"temperature", "top_p", "top_k", "min_p", "seed"})
"""Those which change what is drawn: leaving one out is said in the engine's notes."""


def body(call: Call, model: str, facts: Facts, messages: list[Json] | None = None) -> JsonObject:
    """What is sent for this call, in the dialect that the facts ask for.

    Args:
        messages: the call's as they are sent, where they need not be written anew; what follows them is appended.
    """
    sampling = call.sampling
    messages = [message.wire() for message in call.messages] if messages is None else messages
    sent: JsonObject = {
        "model": model,
        "messages": messages,
        "stream": True,
        # One object, refused as a whole or in its vLLM part.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        # Sent even where they switch nothing on: left out, the server's own default would hold.
        "top_k": sampling.top_k or facts.top_k_off or 0,
        "min_p": sampling.min_p,
        facts.length_name or CHAT_LENGTH_FIELDS[0]: sampling.max_tokens,
        "timings_per_token": True,
    }
    if call.seed is not None:
        sent["seed"] = call.seed
    if sampling.stop:
        sent["stop"] = list(sampling.stop)
    if call.top_logprobs is not None:
        sent["logprobs"] = True
        alternatives = call.top_logprobs
        if facts.top_logprobs_limit is not None:
            alternatives = min(alternatives, facts.top_logprobs_limit)
        if alternatives > 0:
            sent["top_logprobs"] = alternatives
    if call.prefix:
        messages.append({"role": "assistant", "content": call.prefix})
        sent["continue_final_message"], sent["add_generation_prompt"] = True, False
    sent.update(_thinking(call))
    if sampling.stop and facts.tokenizer == "llama.cpp":
        sent["verbose"] = True  # its last chunk then tells which stop sequence was hit
    _leave_out(sent, facts.refused)
    return sent


def _thinking(call: Call) -> JsonObject:
    """What the wishes about thinking are called; nothing where there are none."""
    asked: JsonObject = {}
    if (effort := call.sampling.reasoning_effort) is not None:
        asked["reasoning_effort"] = effort
    if (tokens := call.sampling.thinking_tokens) is not None:
        asked |= {"thinking_token_budget": tokens, "thinking_budget_tokens": tokens}
        asked["custom_params"] = {"thinking_budget": tokens}
        if tokens == 0:
            asked["chat_template_kwargs"] = {"enable_thinking": False}
    return asked


def template(call: Call, facts: Facts) -> JsonObject:
    """The part of the body that changes how the chat is written out as text."""
    flags = ("reasoning_effort", "chat_template_kwargs")
    return {name: value for name, value in _thinking(call).items() if name in flags and name not in facts.refused}


def _leave_out(sent: JsonObject, refused: set[str]) -> None:
    for name in refused:
        sent.pop(name, None)
    if "continuous_usage_stats" in refused and "stream_options" in sent:
        sent["stream_options"] = {"include_usage": True}
    # OpenAI refuses the options of a stream, and of log-probabilities, without what switches these on.
    if "stream" not in sent:
        sent.pop("stream_options", None)
    if "logprobs" not in sent:
        sent.pop("top_logprobs", None)


def names(sent: JsonObject) -> set[str]:
    """The parameters of a body under the names that a refusal would use."""
    options = sent.get("stream_options")
    return set(sent) | (set(options) if isinstance(options, dict) else set())


# After a refusal.

STATUSES = frozenset({400, 422, 500, 501})
"""Refusals that may be about one parameter; 500 is llama-cpp-python's way to refuse log-probabilities, and of no others
it is certain that nothing was generated."""

_BOUND = re.compile(
    r"(?:at most|less than or equal to|<=|up to|max(?:imum)?(?: allowed)?(?: of| is|:)?|between \d+ and|and)\s*(\d+)"
)
_BAD_VALUE = re.compile(r"unsupported[ _]value|does not support|supported values|input should be", re.IGNORECASE)
_OFF_IS_MINUS_ONE = re.compile(r"-1|at least 1|greater than|positive|>=? ?[01]\b")


def adapt(refusal: ErrorBody, sent: JsonObject, facts: Facts, *, status: int = 400) -> bool:
    """Learn from a refusal of `sent`; True if a request built anew has a chance."""
    if status not in STATUSES or refusal.context or (status == 500 and not refusal.unknown):
        return False
    name = _blamed(refusal, names(sent))
    if status == 500 and name not in ("logprobs", "top_logprobs"):
        return False
    if name in CHAT_LENGTH_FIELDS:
        return _rename_length(refusal, name, facts)
    if name in ("top_logprobs", "logprobs") and isinstance(asked := sent.get("top_logprobs"), int):
        return _fewer_alternatives(refusal, name, asked, facts)
    if name == "top_k" and sent["top_k"] == 0 and _OFF_IS_MINUS_ONE.search(refusal.message) and not refusal.unknown:
        facts.learn(top_k_off=-1)
        return True
    if name == "reasoning_effort" and (not refusal.unknown or _BAD_VALUE.search(f"{refusal.code} {refusal.message}")):
        return False  # it has the parameter, and its message lists the values
    if name in OPTIONAL or (name in ("temperature", "top_p") and refusal.unknown):
        for refused in (name, *_alike(name, facts)) if refusal.unknown else (name,):
            _drop(refused, facts)
        return True
    extensions = names(sent).intersection((*EXTENSIONS, *THINKING))
    # It names nothing, so all that OpenAI itself does not have is left out at once.
    if name is None and refusal.unknown and not refusal.param and extensions:
        for refused in (*EXTENSIONS, *extensions):
            facts.refuse(refused)
        return True
    return False


def _alike(name: str, facts: Facts) -> tuple[str, ...]:
    """What a strict server would refuse too, one by one: one that has refused a second parameter of a kind."""
    for kind in (EXTENSIONS, THINKING):
        if name in kind and facts.refused.intersection(kind):
            return kind
    return ()


def _blamed(refusal: ErrorBody, sent: set[str]) -> str | None:
    """The parameter of ours that the refusal is about: named apart, or first in its text."""
    for part in reversed(re.split(r"[.\s/\[\]]+", refusal.param)):
        if part in sent or part in CHAT_LENGTH_FIELDS:
            return part
    if refusal.param:
        return None
    candidates = sent & (OPTIONAL - {"stream"} | {"temperature", "top_p", *CHAT_LENGTH_FIELDS})
    if refusal.unknown and "stream" in sent and re.search(r"\bstream(?:ing)?\b", refusal.message, re.IGNORECASE):
        candidates.add("stream")
    named = []
    for name in candidates:
        word = r"stream(?:ing)?" if name == "stream" else re.escape(name)
        # `stream_options.x` blames x alone.
        if match := re.search(rf"(?<![\w-]){word}(?![\w-]|\.\w)", refusal.message, re.IGNORECASE):
            named.append((match.start(), name))
    return min(named)[1] if named else None


def _rename_length(refusal: ErrorBody, name: str, facts: Facts) -> bool:
    other = CHAT_LENGTH_FIELDS[1 - CHAT_LENGTH_FIELDS.index(name)]
    if not refusal.unknown and f"{other}' instead" not in refusal.message and f"use {other}" not in refusal.message:
        return False  # a bad value, which another name does not cure
    used = facts.length_name or CHAT_LENGTH_FIELDS[0]
    if used != name:
        # Another request has renamed it meanwhile; if both names were refused there is nothing left.
        return used == other
    if f"refused:{other}" in facts.learnt:  # both names were refused: renaming again would never end
        return False
    facts.learnt[f"refused:{name}"] = facts.now()
    facts.learn(length_name=other)
    return True


def _fewer_alternatives(refusal: ErrorBody, name: str, asked: int, facts: Facts) -> bool:
    limit = facts.top_logprobs_limit
    if limit is not None and limit < asked:
        return True  # lowered meanwhile by another request
    bounds = [int(number) for number in _BOUND.findall(refusal.message.lower())]
    fitting = [number for number in bounds if 0 < number < asked]
    if fitting:
        facts.learn(top_logprobs_limit=max(fitting))
    elif asked > 5 and not refusal.unknown:
        facts.learn(top_logprobs_limit=5)
    elif name == "top_logprobs":
        facts.learn(top_logprobs_limit=0)
    else:
        _drop("logprobs", facts)
    return True


def _drop(name: str, facts: Facts) -> None:
    facts.refuse(name)
    if name == "logprobs":
        facts.learn(logprobs=False, top_logprobs=0)


_SLACK = 16  # tokens that servers need to end the thinking: its closing tag, a sentence before it


class Thinking:
    """The wishes of one engine's calls, and the worst excess."""

    __slots__ = ("_cap", "_effort", "_excess")

    def __init__(self) -> None:
        self._effort = False
        self._cap = False
        self._excess: tuple[int, int] | None = None

    def asked(self, call: Call) -> None:
        """A call is about to be sent."""
        self._effort = self._effort or call.sampling.reasoning_effort is not None
        self._cap = self._cap or call.sampling.thinking_tokens is not None

    def record(self, call: Call, thought: int | None) -> None:
        """A call has ended after so many tokens of thinking, None if the server did not tell."""
        cap = call.sampling.thinking_tokens
        if cap is None or thought is None or thought <= cap + _SLACK:
            return
        if self._excess is None or thought - cap > self._excess[1] - self._excess[0]:
            self._excess = cap, thought

    def notes(self, url: str, refused: Set[str]) -> tuple[str, ...]:
        """What the server at this address refused or ignored, in words."""
        notes = []
        if self._effort and "reasoning_effort" in refused:
            notes.append(f"reasoning_effort is not accepted by {url}: the server's own default holds")
        if self._cap and (names := [name for name in THINKING if name in refused]):
            listed = ", ".join(names)
            notes.append(f"thinking_tokens: {url} does not accept {listed}; its own limit of thinking may hold")
        if self._excess is not None:
            cap, thought = self._excess
            notes.append(f"thinking_tokens: {url} ignores the cap: it thought for {thought} tokens instead of {cap}")
        return tuple(notes)
