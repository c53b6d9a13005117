"""What is asked of a proxy before a real engine, case by case, and what is right.

Knows: vLLM's counters, OpenAI's protocol, and what a receipt must say of it: the truth, or null with a bound that
covers it. Does not know how either is started.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from outthink.http.fields import TABLE

CEILING = 220
"""Tokens of every single request of the key `capped`."""
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
_ASKED = [{"role": "user", "content": "Count from one to a hundred, in words."}]
_LONG = 400
Json = Any
Case = dict[str, Any]


@dataclass
class Setup:
    """A running engine and a proxy before it.

    Args:
        root: of the engine, without `/v1`; `proxy` likewise.
        secrets: of the proxy's keys by their names.
        doctor: what doctor has found, by name.
    """

    root: str
    proxy: str
    secrets: dict[str, str]
    model: str
    doctor: dict[str, str]

    def truth(self) -> dict[str, float]:
        """vLLM's own counters: tokens read and generated since its start, and requests in flight."""
        with urllib.request.urlopen(f"{self.root}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        names = {"prompt": "prompt_tokens_total", "generated": "generation_tokens_total"}
        names |= {"running": "num_requests_running", "waiting": "num_requests_waiting"}
        counters = {name: sum(_values(lines, f"vllm:{metric}{{")) for name, metric in names.items()}
        return {**counters, "tokens": counters["prompt"] + counters["generated"]}

    def settled(self) -> dict[str, float]:
        """The counters once nothing is in flight any more."""
        ends = time.monotonic() + 60
        while (now := self.truth())["running"] or now["waiting"]:
            if time.monotonic() > ends:
                raise RuntimeError("vLLM still works on something that nobody waits for")
            time.sleep(0.02)
        return now

    def direct(self, body: Json, path: str = CHAT) -> Answer:
        """The engine's own answer."""
        return ask(self.root, path, {"model": self.model, **body}, None)

    def through(self, body: Json, path: str = CHAT, *, key: str = "open", **headers: str) -> Answer:
        """The answer that comes through the proxy."""
        return ask(self.proxy, path, {"model": self.model, **body}, self.secrets[key], **headers)

    def receipt(self, number: str) -> Json:
        """A request's receipt as an administrator sees it, once it has been written."""
        address = f"{self.proxy}/v1/receipts/{number}"
        asked = urllib.request.Request(address, headers={"authorization": f"Bearer {self.secrets['admin']}"})
        ends = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(asked, timeout=10) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                if error.code != 404 or time.monotonic() > ends:  # a client that left is settled behind it
                    raise
                time.sleep(0.02)


def _values(lines: list[str], start: str) -> Iterator[float]:
    return (float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))


@dataclass
class Answer:
    """A reply that was read whole, or as far as wanted."""

    status: int
    receipt: str
    value: Json
    events: list[Json]
    seconds: float
    first: float

    @property
    def text(self) -> str:
        """Content of the first choice."""
        if not self.events:
            return str(self.value["choices"][0]["message"]["content"] or "")
        return "".join(_delta(event).get("content") or "" for event in self.events)

    @property
    def error(self) -> str:
        """The error object's words."""
        return str(self.value.get("error", {}).get("message", ""))[:160] if isinstance(self.value, dict) else ""


def _delta(event: Json) -> Json:
    rows = [row for row in event.get("choices", ()) if row.get("index") == 0]
    return rows[0].get("delta", {}) if rows else {}


def ask(root: str, path: str, body: Json, secret: str | None, *, leave: int | None = None, **headers: str) -> Answer:
    """Send a request and read its reply; `leave` closes the connection after so many events."""
    parts = urlsplit(root)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {"content-type": "application/json"}
    if secret is not None:
        named["authorization"] = f"Bearer {secret}"
    began = time.monotonic()
    try:
        connection.request("POST", path, json.dumps(body), named)
        reply = connection.getresponse()
        number = reply.headers.get("x-outthink-receipt", "")
        if not reply.headers.get("content-type", "").startswith("text/event-stream"):
            content = reply.read()
            seconds = time.monotonic() - began
            return Answer(reply.status, number, json.loads(content or b"null"), [], seconds, seconds)
        events, first = [], 0.0
        for line in reply:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            events.append(json.loads(line[6:]))
            first = first or time.monotonic() - began
            if len(events) == leave:
                break
        return Answer(reply.status, number, None, events, time.monotonic() - began, first)
    finally:
        connection.close()


def case(name: str, right: bool, detail: object = "") -> Case:
    """One case of a check."""
    return {"case": name, "right": bool(right), "detail": str(detail)[:300]}


_PROMPT = 40
"""Tokens of `_ASKED` under the model's template."""


def one_call(before: dict[str, float], after: dict[str, float]) -> float:
    """What one call has spent, whatever its choices: the counter takes its prompt once for each of them."""
    return _PROMPT + after["generated"] - before["generated"]


def charged(setup: Setup, name: str, number: str, spent: float) -> Case:
    """Whether a receipt says what was spent, or that nobody knows it and a bound that covers it."""
    receipt = setup.receipt(number)
    tokens, bound = receipt["tokens"], receipt["at_most_tokens"]
    exact = tokens is not None and tokens == spent
    covered = tokens is None and receipt["estimated"] and (bound is None or bound >= spent)
    return case(name, exact or covered, f"spent {spent:g}, receipt {tokens}, at most {bound}")


def doctor(setup: Setup) -> Iterator[Case]:
    """What doctor says of vLLM, which can do all of this."""
    for name in ("streaming", "usage in stream", "continuous counts", "logprobs", "top_logprobs", "tokenizer", "n"):
        yield case(name, setup.doctor[name] == "yes", setup.doctor[name])
    for name in ("usage sums choices", "seed", "prompt counts", "cancellation"):
        yield case(name, setup.doctor[name] == "yes", setup.doctor[name])


def streaming(setup: Setup) -> Iterator[Case]:
    """The same greedy stream, directly and through the proxy."""
    body = {"messages": _ASKED, "max_tokens": 40, "temperature": 0, "stream": True}
    direct, through = setup.direct(body), setup.through(body)
    yield case("the same text", direct.text == through.text, through.text)
    yield case("as many events", len(direct.events) == len(through.events), f"{len(through.events)} events")
    yield case("as they come", through.first < 0.7 * through.seconds, f"{through.first:.2f} of {through.seconds:.2f} s")
    for key in ("open", "daily"):
        for options in ({}, {"stream_options": {"include_usage": True}}):
            before = setup.settled()["tokens"]
            answer = setup.through({**body, **options}, key=key)
            told = any(event.get("usage") for event in answer.events)
            yield case(f"{key} {options}: usage is shown where it was asked for", told == bool(options), told)
            spent = setup.settled()["tokens"] - before
            yield charged(setup, f"{key} {options}: receipt", answer.receipt, spent)
    for model in ("outthink/single", "outthink/self-consistency@3"):
        before = setup.settled()
        answer = setup.through({**body, "model": model, "temperature": 0.7, "max_tokens": 12})
        yield case(f"{model}: some text", bool(answer.text), answer.text)
        yield charged(setup, f"{model}: receipt", answer.receipt, one_call(before, setup.settled()))


def cancellation(setup: Setup) -> Iterator[Case]:
    """Clients that leave: the engine stops, and what it had done is charged."""
    body = {"messages": _ASKED, "max_tokens": _LONG, "temperature": 0.7, "ignore_eos": True, "stream": True}
    for model in (setup.model, "outthink/single"):
        for key in ("open", "daily"):
            before = setup.settled()
            headers = {"leave": 4, "key": key}
            answer = setup.through({**body, "model": model}, **headers)
            left = time.monotonic()
            after = setup.settled()
            seconds, generated = time.monotonic() - left, after["generated"] - before["generated"]
            yield case(f"{model}, {key}: it stops", generated < _LONG / 2, f"{generated:g} tokens, {seconds:.2f} s")
            yield charged(setup, f"{model}, {key}: receipt", answer.receipt, after["tokens"] - before["tokens"])


def choices(setup: Setup) -> Iterator[Case]:
    """Several choices in one call: all come, and all are charged."""
    for stream in (False, True):
        for key in ("open", "daily"):
            before = setup.settled()
            body = {"messages": _ASKED, "max_tokens": 10, "n": 3, "stream": stream}
            answer = setup.through(body, key=key)
            replies = answer.events if stream else [answer.value]
            rows = [row for reply in replies for row in reply["choices"]]
            places = {row["index"] for row in rows}
            what = f"{key}, {'streamed' if stream else 'whole'}"
            yield case(f"{what}: three choices", places == {0, 1, 2}, sorted(places))
            yield charged(setup, f"{what}: receipt", answer.receipt, one_call(before, setup.settled()))
    before = setup.settled()
    answer = setup.through({"model": "outthink/self-consistency@4", "messages": _ASKED, "max_tokens": 8})
    notes = answer.value["outthink"]["receipt"]["notes"]
    yield case("four samples share a call", any("shared a call" in note for note in notes), notes)
    yield charged(setup, "four samples: receipt", answer.receipt, one_call(before, setup.settled()))


def log_probabilities(setup: Setup) -> Iterator[Case]:
    """Twenty alternatives a token, directly, through the proxy and through a strategy."""
    body = {"messages": _ASKED, "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 20}
    entries = setup.direct(body).value["choices"][0]["logprobs"]["content"]
    for model in (setup.model, "outthink/single"):
        through = setup.through({**body, "model": model}).value["choices"][0]["logprobs"]["content"]
        tokens = [entry["token"] for entry in entries] == [entry["token"] for entry in through]
        pairs = zip(entries, through, strict=False)
        apart = max(abs(first["logprob"] - second["logprob"]) for first, second in pairs)
        wide = {len(entry["top_logprobs"]) for entry in through}
        right = tokens and len(entries) == len(through) and apart < 1e-3 and wide <= {20, 21}
        yield case(model, right, f"{len(through)} tokens, {apart:.2g} apart, {wide} alternatives")


def ceilings(setup: Setup) -> Iterator[Case]:
    """A key with a ceiling: whatever a length is called, no more than that is spent."""
    prompts = {CHAT: {"messages": _ASKED}, COMPLETIONS: {"prompt": "One, two,"}, RESPONSES: {"input": "Count to 99."}}
    names = [name for row in TABLE if row.kind == "length" for name in row.names.split()]
    lengths: list[Json] = [{name: 300} for name in (*names, "MAX_TOKENS", "maxTokens", "an_unknown_length")]
    lengths += [{}, {"max_tokens": "300"}, {"options": {"num_predict": 300}}, {"min_tokens": 400}]
    lengths += [{"max_tokens": 20, "n": 20}, {"max_tokens": 20, "n": "20"}, {"best_of": 20, "max_tokens": 30}]
    lengths += [{"max_tokens": 300, "max_completion_tokens": 10}]
    asked = [(path, length, {**prompts[path], "ignore_eos": True, **length}) for path in prompts for length in lengths]
    asked += [(COMPLETIONS, "three prompts", {"prompt": ["a", "b", "c"], "max_tokens": 90, "ignore_eos": True})]
    before = setup.settled()["generated"]
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda one: setup.through(one[2], one[0], key="capped"), asked)
        pairs = list(zip(asked, answers, strict=True))
    generated, charges = setup.settled()["generated"] - before, 0
    for (path, length, _), answer in pairs:
        what = f"{path} {json.dumps(length)}"
        if answer.status != 200:
            yield case(what, answer.status == 400 and bool(answer.error), answer.error)
            continue
        used = answer.value["usage"]
        receipt = setup.receipt(answer.receipt)
        charges += receipt["completion_tokens"] or receipt["at_most_tokens"]
        right = used["total_tokens"] <= CEILING and receipt["tokens"] in (None, used["total_tokens"])
        yield case(what, right, f"{used['total_tokens']} tokens, receipt {receipt['tokens']}")
    yield case("generated in all, as vLLM counts it", generated <= charges, f"{generated:g}, charged {charges}")


_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two whole numbers.",
        "strict": True,  # without it this server lets the arguments be anything
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


def tool_calls(setup: Setup) -> Iterator[Case]:
    """A call that vLLM is made to write, whole and in pieces, directly and through strategies."""
    body = {
        "messages": [{"role": "user", "content": "What is 2 + 3?"}],
        "tools": [_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "max_tokens": 60,
        "temperature": 0,
    }
    expected = _call(setup.direct(body))
    for model in (setup.model, "outthink/single", "outthink/self-consistency@3"):
        for stream in (False, True):
            answer = setup.through({**body, "model": model, "stream": stream})
            found, what = _call(answer), f"{model}, {'streamed' if stream else 'whole'}"
            same = found == expected if model == setup.model else found is not None and found[0] == "add"
            yield case(what, same and _fits(found), found)


def _call(answer: Answer) -> tuple[str, str] | None:
    """Name and arguments of the one call in a reply, as the official client puts them together."""
    if answer.status != 200:
        return None
    pieces = answer.events and [call for event in answer.events for call in _delta(event).get("tool_calls") or ()]
    if not answer.events:
        pieces = answer.value["choices"][0]["message"].get("tool_calls") or []
    name = "".join(piece["function"].get("name") or "" for piece in pieces)
    return (name, "".join(piece["function"].get("arguments") or "" for piece in pieces)) if pieces else None


def _fits(call: tuple[str, str] | None) -> bool:
    try:
        value = json.loads(call[1]) if call is not None else None
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) == {"a", "b"}


def reasoning(setup: Setup) -> Iterator[Case]:
    """Behind a reasoning parser: what is thinking stays thinking, is counted, and is no vote."""
    body = {"messages": [{"role": "user", "content": "What is 2 + 3?"}], "max_tokens": 12, "temperature": 0}
    direct = setup.direct(body).value["choices"][0]["message"]["reasoning"]
    passed = setup.through(body).value["choices"][0]["message"]
    yield case("passed through", passed["reasoning"] == direct and passed["content"] is None, passed["reasoning"])
    for stream in (False, True):
        before = setup.settled()["tokens"]
        answer = setup.through({**body, "model": "outthink/single", "temperature": 0.0001, "stream": stream})
        if stream:
            pieces = [_delta(event) for event in answer.events]
            thought = "".join(piece.get("reasoning_content") or piece.get("reasoning") or "" for piece in pieces)
        else:
            message = answer.value["choices"][0]["message"]
            thought = message.get("reasoning_content") or message.get("reasoning") or ""
        what = f"outthink/single, {'streamed' if stream else 'whole'}"
        yield case(what, thought.strip() == (direct or "").strip() and not answer.text, thought)
        yield charged(setup, f"{what}: receipt", answer.receipt, setup.settled()["tokens"] - before)
    voted = {**body, "model": "outthink/self-consistency@3", "outthink": {"answer": "number"}, "temperature": 0.7}
    receipt = setup.through(voted).value["outthink"]["receipt"]
    yield case("thinking is no vote", receipt["answer"] is None, receipt["answer"])
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    answer = setup.through({**voted, **off, "temperature": 0.01})
    yield case("without thinking there is one", answer.value["outthink"]["receipt"]["answer"] is not None, answer.text)


Check = Callable[[Setup], Iterator[Case]]
CHECKS: dict[str, tuple[Check, ...]] = {
    "plain": (doctor, streaming, cancellation, choices, log_probabilities, ceilings, tool_calls),
    "reasoning": (reasoning,),
}
