"""A reward model behind HTTP, as vLLM serves them.

Knows: the shapes of its pooling, score and classify APIs, and what a reply must hold. Does not know
weights or tokenizers: its token counts are the server's.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlsplit

from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Request
from outthink.core.sample import Candidate
from outthink.verifiers.protocol import Aggregation, Kind, Score, Verifier, question_of
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


class RemoteRewardModel(Verifier):
    """Judges by asking a server.

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
            raise BadInput("verifier", url, "is no address of a server", "give http://HOST:PORT")
        for field, value, known in (("format", format, _FORMATS), ("api", api, _APIS)):
            if value is not None and value not in known:
                raise BadInput(field, value, "is not known", f"use one of {', '.join(known)}")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"
        self._where = f"reward model at {parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._format, self._kind, self._aggregation, self._api = format, kind, aggregation, api
        self._name = model
        self.max_context: int | None = None
        self.separator = separator or "\n\n"
        self.parameters, self.sigmoid, self.timeout, self.concurrency = parameters, sigmoid, timeout, concurrency
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

    @classmethod
    def open(cls, url: str, **settings: Any) -> RemoteRewardModel:
        """Ask the server which model it has, so that its name is known from the start. Blocks.

        Raises EngineError where no server answers, BadInput for settings that cannot be used.
        """
        verifier = cls(url, **settings)
        with ThreadPoolExecutor(1) as thread:  # an event loop may be running in this one
            thread.submit(asyncio.run, verifier._ask_name()).result()
        return verifier

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
        if self._name is None:
            await self._ask_name()
        gate = asyncio.Semaphore(self.concurrency)
        async with self._client() as client:
            first = [await self._judge(client, gate, request, candidates[0])] if candidates else []
            try:
                async with asyncio.TaskGroup() as group:
                    jobs = [group.create_task(self._judge(client, gate, request, one)) for one in candidates[1:]]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return first + [job.result() for job in jobs]

    async def _judge(self, client: Any, gate: asyncio.Semaphore, request: Request, candidate: Candidate) -> Score:
        """One candidate; the first one finds out which API there is."""
        if not candidate.steps or not all(step.strip() for step in candidate.steps):
            raise BadInput("steps", candidate.steps, "hold a step without text", "score steps that hold visible text")
        async with gate:
            apis, refusal = ((self._api,) if self._api else _APIS), None
            for api in apis:
                try:
                    reply = await self._send(client, "POST", api, self._body(api, request, candidate))
                except _NoSuchApi as error:
                    refusal = refusal or error
                    continue
                score = self._read(api, reply, candidate)
                self._api = api
                return score
        raise refusal or EngineError(f"{self._where}: has none of the APIs {', '.join(_APIS)}")

    def _texts(self, candidate: Candidate) -> list[str]:
        """What an API of one number a text is sent."""
        if self.kind != "process":
            return [candidate.text]
        return ["".join(candidate.steps[: count + 1]) for count in range(len(candidate.steps))]

    def _body(self, api: Api, request: Request, candidate: Candidate) -> dict[str, Any]:
        question, body = question_of(request), {"model": self._name}
        if api == "score":
            return body | {"text_1": question, "text_2": self._texts(candidate)}
        if api == "classify":
            return body | {"input": [f"{question}\n\n{text}" for text in self._texts(candidate)]}
        steps = [step.strip() for step in candidate.steps]
        if self.format == "math-shepherd":
            return body | {"input": f"{question} " + "\n".join(f"{step} ки" for step in steps)}
        chat = [{"role": "system", "content": SYSTEM}] if self.format == "qwen-prm" else []
        said = "".join(step + MARKER for step in steps) if self.format == "qwen-prm" else candidate.text
        chat += [{"role": "user", "content": question}, {"role": "assistant", "content": said}]
        return body | {"messages": chat}

    def _read(self, api: Api, reply: Mapping[str, Any], candidate: Candidate) -> Score:
        """The scores in a reply, NaN and null passed on. Raises EngineError for any other shape."""
        wanted = len(candidate.steps) if self.kind == "process" else 1
        data = reply.get("data")
        if not isinstance(data, list) or not data or not all(isinstance(row, dict) for row in data):
            raise self._strange(api, reply, "holds no list of results")
        rows = sorted(data, key=lambda row: row.get("index") or 0)
        field = {"pooling": "data", "score": "score", "classify": "probs"}[api]
        values = rows[0].get(field) if api == "pooling" else [row.get(field) for row in rows]
        if not isinstance(values, list):
            raise self._strange(api, reply, f"holds no list of numbers in {field!r}")
        scores = [self._number(api, reply, value) for value in values]
        if wanted == 1 and api == "pooling":
            scores = scores[-1:]  # a value a token: the last one has seen the whole text
        if len(scores) != wanted:
            raise self._strange(api, reply, f"gives {len(scores)} scores for {wanted} steps")
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return Score(tuple(scores), _count(usage.get("prompt_tokens")), 0, _count(cached))

    def _number(self, api: Api, reply: Mapping[str, Any], value: object) -> float:
        """A number, or that of the class `right` in a list of one or two."""
        if isinstance(value, list) and len(value) in (1, 2):
            # Math-Shepherd's pair is (+, -); everywhere else class 1 is the right one.
            value = value[0] if len(value) == 2 and self.format == "math-shepherd" else value[-1]
        if value is None:  # how some servers write NaN
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._strange(api, reply, "holds no list of numbers")
        return 1 / (1 + math.exp(-min(max(value, -700), 700))) if self.sigmoid else float(value)

    def _strange(self, api: str, reply: object, problem: str) -> EngineError:
        shown = json.dumps(reply, ensure_ascii=False)
        shown = shown if len(shown) <= 200 else shown[:200] + "..."
        return EngineError(f"{self._where}: the reply of /{api} {problem}: {shown}", again=False)

    async def _ask_name(self) -> None:
        """Take the first model that the server lists."""
        async with self._client() as client:
            reply = await self._send(client, "GET", "v1/models", None)
        models = reply.get("data")
        first = models[0] if isinstance(models, list) and models else None
        if not isinstance(first, dict) or not isinstance(first.get("id"), str):
            raise self._strange("v1/models", reply, "names no model")
        self._name = self._name or first["id"]
        self.max_context = _count(first.get("max_model_len"))

    def _client(self) -> Any:
        import httpx2

        host = urlsplit(self.url).hostname or ""
        return httpx2.AsyncClient(
            headers=self._headers,
            timeout=httpx2.Timeout(self.timeout, connect=min(10.0, self.timeout)),
            # Over http:// nothing is verified, and an empty context is made in no time.
            verify=True if self.url.startswith("https") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=host != "localhost" and not host.startswith("127."),
        )

    async def _send(self, client: Any, method: str, path: str, body: dict[str, Any] | None) -> Mapping[str, Any]:
        """A JSON object. Raises EngineError for anything else."""
        import httpx2

        try:
            reply = await client.request(method, f"{self.url}/{path}", json=body)
        except httpx2.TimeoutException as error:
            raise EngineError(f"{self._where}: no reply within {self.timeout:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            line = " ".join(str(error).split()) or type(error).__name__
            raise EngineError(f"{self._where}: no connection ({line}); is the server running?") from error
        text = reply.text
        if reply.status_code >= 300:
            line = f"{self._where}: /{path} answered {reply.status_code}: {_reason(text)}"
            if reply.status_code in _ABSENT or (reply.status_code == 400 and "not support" in text):
                raise _NoSuchApi(line, fatal=True)
            raise EngineError(line, fatal=reply.status_code in _HELPLESS)
        try:
            parsed = json.loads(text)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise EngineError(f"{self._where}: /{path} answered no JSON object: {_reason(text)}", again=False)
        return parsed


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _reason(text: str) -> str:
    """The message in an error's body, on one line."""
    try:
        body = json.loads(text)
        inner = body.get("error", body) if isinstance(body, dict) else body
        said = inner.get("message", inner.get("detail", text)) if isinstance(inner, dict) else inner
    except ValueError:
        said = text
    line = " ".join(str(said).split()) or "nothing"
    return line if len(line) <= 200 else line[:200] + "..."
