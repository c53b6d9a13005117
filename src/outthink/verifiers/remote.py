"""A reward model behind HTTP, as vLLM serves them.

Knows: the shapes of its pooling, score and classify APIs, and what a reply must hold. Does not know weights or
tokenizers (its token counts are the server's), nor how bytes move: that is the HTTP room's.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from outthink.core.errors import BadInput, EngineError, need_known
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.http.errors import ServerErrors, masked_url
from outthink.http.events import Json, JsonObject
from outthink.http.server import Address, Server
from outthink.http.transport import HttpxTransport, Timeouts, TransportFault
from outthink.http.usage import read_count, read_usage
from outthink.verifiers.protocol import Aggregation, Kind, Score, Verifier, VerifierAway, question_of
from outthink.verifiers.reward_model.formats import MARKER, SYSTEM

Api = Literal["pooling", "score", "classify"]
_APIS: tuple[Api, ...] = ("pooling", "score", "classify")
RemoteFormat = Literal["qwen-prm", "math-shepherd", "chat"]
_FORMATS: tuple[RemoteFormat, ...] = ("qwen-prm", "math-shepherd", "chat")
_ABSENT = (404, 405, 501)
_HELPLESS = (400, 401, 403, 404, 413, 422)
_TEMPLATE = 256  # tokens that a chat template may add, at most


class _NoSuchApi(EngineError):
    """The server has no such route, or its model none of that task."""


class _Errors(ServerErrors):
    """Words failures for a reward model's server: what is said of a chat server does not help with one."""

    def fault(self, fault: TransportFault) -> EngineError:
        """The error for a request that got no answer, or only a part of one."""
        if fault.kind == "idle":
            return EngineError(f"{_place(self.url)}: no reply within {self.timeouts.idle:g} s")
        return EngineError(f"{_place(self.url)}: no connection ({fault.detail or fault.kind}); is the server running?")


class RemoteRewardModel(Verifier):
    """Judges by asking a server. `prepare` asks it for its model, unless one was named.

    Args:
        url: of the server, with or without `/v1`.
        model: name on the server; default: the first that it lists.
        format: how steps are written: `qwen-prm` (a chat, `<extra_0>` after each), `math-shepherd`
            (text, ` ки` after each) or `chat` (a chat, scored as a whole); default: by the model's name.
        api: `pooling`, `score` or `classify`; default: the first of them that the server has. The
            last two give one number a text, so every prefix is sent as a text of its own.
        kind: default: `process` for the formats that mark steps, else `outcome`.
        sigmoid: the server gives raw values that are yet to be squeezed between 0 and 1.
        parameters: weights read for a token; None if unknown.
        max_context: tokens of an input at most, as the server says; it refuses what is longer.
        api_key: sent as a bearer token.
        timeout: seconds to wait for a reply.
        concurrency: candidates that are asked for at once.
    """

    separator: str
    parameters: int | None
    ready: bool

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        format: RemoteFormat | None = None,
        api: Api | None = None,
        kind: Kind | None = None,
        aggregation: Aggregation | None = None,
        separator: str | None = None,
        sigmoid: bool = False,
        parameters: int | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        concurrency: int = 16,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput("verifier", masked_url(url), "is no address of a server", "give http://HOST:PORT")
        for field, value, known in (("format", format, _FORMATS), ("api", api, _APIS)):
            if value is not None:
                need_known(field, value, known)
        address = Address.parse(url)
        self.url, self._where = address.root, _place(url)
        transport = HttpxTransport(concurrency, secure=parts.scheme == "https", proxies=not address.local)
        self._server = Server(address, api_key, transport, Timeouts(min(10.0, timeout), timeout), _Errors)
        self._format, self._kind, self._aggregation, self._api = format, kind, aggregation, api
        self._name, self._named = model, model is not None
        self.ready = True
        self.max_context: int | None = None
        self.separator = separator or "\n\n"
        self.parameters, self.sigmoid, self.timeout, self.concurrency = parameters, sigmoid, timeout, concurrency

    @property
    def model(self) -> str:
        """Its name on the server; the server's address until it is known."""
        return self._name or self._where

    @property
    def format(self) -> RemoteFormat:
        """How steps are written."""
        name = self.model.lower()
        by_name: RemoteFormat = "math-shepherd" if "shepherd" in name else "chat"
        return self._format or ("qwen-prm" if "qwen" in name and "prm" in name else by_name)

    @property
    def id(self) -> str:
        """Model, server and format."""
        return f"{self.model}@{urlsplit(self.url).netloc}/{self.format}"

    @property
    def kind(self) -> Kind:
        """As given, else whether the format marks steps."""
        return self._kind or ("outcome" if self.format == "chat" else "process")

    @property
    def aggregation(self) -> Aggregation:
        """As given, else what the format's authors use."""
        return self._aggregation or ("min" if self.format == "math-shepherd" else "last")

    def bound(self, request: Request, candidate: Candidate) -> int:
        """As many tokens as bytes, and room for a chat template and markers."""
        question = len(question_of(request).encode())
        texts = [candidate.text] if self._api == "pooling" else self._texts(candidate)
        marks = 16 * len(candidate.steps)
        return sum(question + len(text.encode()) + _TEMPLATE + marks for text in texts)

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """One request a candidate. Raises EngineError where the server fails or answers in another shape."""
        try:
            await self.prepare()
        except EngineError as error:
            raise VerifierAway(str(error), fatal=error.fatal) from error
        places = asyncio.Semaphore(self.concurrency)
        # The first one finds out which API there is.
        first = [await self._judge(places, request, candidates[0])] if candidates else []
        try:
            async with asyncio.TaskGroup() as group:
                jobs = [group.create_task(self._judge(places, request, candidate)) for candidate in candidates[1:]]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # a failure is one line, however many candidates met it
        return first + [job.result() for job in jobs]

    async def prepare(self) -> None:
        """Take the first model that the server lists, unless one was named. Raises EngineError where none answers.

        A server that has failed is asked again, and refused where it has another model by then: the scores of two are
        never mixed.
        """
        if self._name is not None and self.ready:
            return
        try:
            reply = await self._send("v1/models")
        except _NoSuchApi:
            if not self._named:
                raise
            return  # it answers
        if self._named:
            return
        models = reply.get("data")
        first = models[0] if isinstance(models, list) and models else None
        if not isinstance(first, dict) or not isinstance(name := first.get("id"), str):
            raise self._strange("v1/models", reply, "names no model")
        if self._name not in (None, name):
            self.ready = False
            raise EngineError(f"{self._where}: serves {name}, and {self._name} before; open it anew to use that one")
        self._name = name
        self.max_context = read_count(first.get("max_model_len"))

    async def aclose(self) -> None:
        """Close the connections of this event loop."""
        await self._server.transport.aclose()

    async def _judge(self, places: asyncio.Semaphore, request: Request, candidate: Candidate) -> Score:
        if not candidate.steps or not all(step.strip() for step in candidate.steps):
            raise BadInput("steps", candidate.steps, "hold a step without text", "score steps that hold visible text")
        async with places:
            apis, refusal = ((self._api,) if self._api else _APIS), None
            for api in apis:
                try:
                    reply = await self._send(api, self._body(api, request, candidate))
                except _NoSuchApi as error:
                    refusal = refusal or error
                    continue
                score = self._read(api, reply, candidate)
                self._api = api  # only once its reply could be read
                return score
        raise refusal or EngineError(f"{self._where}: has none of the APIs {', '.join(_APIS)}")

    def _texts(self, candidate: Candidate) -> list[str]:
        """What an API of one number a text is sent."""
        if self.kind != "process":
            return [candidate.text]
        return ["".join(candidate.steps[: count + 1]) for count in range(len(candidate.steps))]

    def _body(self, api: Api, request: Request, candidate: Candidate) -> JsonObject:
        question = question_of(request)
        body: JsonObject = {"model": self._name}
        if api == "score":
            return body | {"text_1": question, "text_2": [*self._texts(candidate)]}
        if api == "classify":
            return body | {"input": [f"{question}\n\n{text}" for text in self._texts(candidate)]}
        steps = [step.strip() for step in candidate.steps]
        if self.format == "math-shepherd":
            # The marker that this model was trained on, behind each step (Math-Shepherd, arXiv 2312.08935).
            return body | {"input": f"{question} " + "\n".join(f"{step} ки" for step in steps)}
        marked = self.format == "qwen-prm"
        answer = "".join(step + MARKER for step in steps) if marked else candidate.text
        system: list[Json] = [{"role": "system", "content": SYSTEM}] if marked else []
        chat: list[Json] = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return body | {"messages": system + chat}

    def _read(self, api: Api, reply: JsonObject, candidate: Candidate) -> Score:
        """The scores in a reply, NaN and null passed on. Raises EngineError for any other shape."""
        wanted = len(candidate.steps) if self.kind == "process" else 1
        data = reply.get("data")
        rows = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
        if not isinstance(data, list) or not data or len(rows) < len(data):
            raise self._strange(api, reply, "holds no list of results")
        rows.sort(key=lambda row: read_count(row.get("index")) or 0)
        field = {"pooling": "data", "score": "score", "classify": "probs"}[api]
        values = rows[0].get(field) if api == "pooling" else [row.get(field) for row in rows]
        if not isinstance(values, list):
            raise self._strange(api, reply, f"holds no list of numbers in {field!r}")
        scores = [self._number(api, reply, value) for value in values]
        if wanted == 1 and api == "pooling":
            scores = scores[-1:]  # a value a token: the last one has seen the whole text
        if len(scores) != wanted:
            raise self._strange(api, reply, f"gives {len(scores)} scores for {wanted} steps")
        counts = reply.get("usage")
        usage = read_usage(counts if isinstance(counts, dict) else {})
        return Score(tuple(scores), usage.prompt, 0, usage.cached)

    def _number(self, api: Api, reply: JsonObject, value: Json) -> float:
        """A number, or that of the class `right` in a list of one or two."""
        if isinstance(value, list) and len(value) in (1, 2):
            # Math-Shepherd's pair is (+, -); everywhere else class 1 is the right one.
            value = value[0] if len(value) == 2 and self.format == "math-shepherd" else value[-1]
        if value is None:  # how some servers write NaN
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._strange(api, reply, "holds no list of numbers")
        # exp overflows beyond 709.
        return 1 / (1 + math.exp(-min(max(value, -700), 700))) if self.sigmoid else float(value)

    def _strange(self, api: str, reply: JsonObject, problem: str) -> EngineError:
        shown = _cut(json.dumps(reply, ensure_ascii=False))
        return EngineError(f"{self._where}: the reply of /{api} {problem}: {shown}", again=False)

    async def _send(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """A JSON object. Raises EngineError for anything else."""
        try:
            answer = await self._server.fetch(f"/{path}", body, root=True)
        except EngineError:
            self.ready = False
            raise
        self.ready = answer.status < 500
        text = answer.content.decode("utf-8", "replace")
        if answer.status >= 300:
            line = f"{self._where}: /{path} answered {answer.status}: {_reason(text)}"
            # vLLM has the route and answers 400 where the model is of another task.
            if answer.status in _ABSENT or (answer.status == 400 and "not support" in text):
                raise _NoSuchApi(line, fatal=True)
            raise EngineError(line, fatal=answer.status in _HELPLESS)
        value = answer.json()
        if not isinstance(value, dict):
            raise EngineError(f"{self._where}: /{path} answered no JSON object: {_reason(text)}", again=False)
        return value


def _place(url: str) -> str:
    """How messages name the server."""
    parts = urlsplit(url)
    return f"reward model at {parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."


def _reason(text: str) -> str:
    """The message in an error's body, on one line."""
    try:
        body = json.loads(text)
        inner = body.get("error", body) if isinstance(body, dict) else body
        message = inner.get("message", inner.get("detail", text)) if isinstance(inner, dict) else inner
    except ValueError:
        message = text
    return _cut(" ".join(str(message).split()) or "nothing")
