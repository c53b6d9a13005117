"""A model server that obeys every field that some server obeys, and records what it has really worked for.

Knows: names of lengths and multiplicities, in which order they win, how leniently names and numbers may be read, and
what pictures, sound and earlier contexts cost. It stops at no end of its own: each completion is as long as the length
that it obeys, or as its context. Knows nothing of the proxy: it is the truth that a ceiling is measured against.

    with LenientServer(Dialect(lengths=("options.num_predict",))) as server: ... server.work[-1].tokens
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from outthink.http.fields import names_of, normalised
from support.chat_server import DONE, ChatServer, Reply, Seen, event, models, stream, whole

CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS = (
    f"/v1/{name}" for name in ("chat/completions", "completions", "responses", "embeddings")
)
OWN_LENGTHS = {
    CHAT: ("max_completion_tokens", "max_tokens"),
    COMPLETIONS: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
    EMBEDDINGS: (),
}
"""What every server of an endpoint obeys."""


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it was sent: equal names stand one after the other."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a server reads requests.

    Args:
        lengths: names that it obeys, the strongest first, before those of the endpoint; `a.b` is `b` inside `a`.
        chat: the only one of a chat's own names that it obeys, None for both.
        capitals: names are told apart by capitals, underscores and hyphens.
        first: of equal names the first counts, not the last.
        texts: a text or a whole float is read as the number that it says.
        lists: a list stands for its first value.
        holders: objects whose fields count as well, below those of the request.
        deep: names are found at any depth.
        choices: names of completions of one prompt, of which the largest counts.
        beams: names that multiply these.
        thinking: names of tokens that are granted beside the length.
        floors: names of a least length.
        context: tokens of a completion that nothing stops.
        picture, second, hidden: tokens of a picture or file, of a second of sound, and of whatever the request names.
        usage: `all` choices are counted, `one`, or none (`""`); `beside` leaves the thinking out of the completion.
    """

    lengths: tuple[str, ...] = ()
    chat: str | None = None
    capitals: bool = True
    first: bool = False
    texts: bool = True
    lists: bool = False
    holders: tuple[str, ...] = ()
    deep: bool = False
    choices: tuple[str, ...] = names_of("choices")
    beams: tuple[str, ...] = names_of("beams")
    thinking: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    context: int = 4096
    picture: int = 1500
    second: int = 50
    hidden: int = 5000
    usage: Literal["all", "one", "beside", ""] = "all"


@dataclass(frozen=True)
class Work:
    """What one request has cost."""

    path: str
    prompt: int
    completion: int
    """Over all choices."""
    choices: int

    @property
    def tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt + self.completion


def number(value: Any, dialect: Dialect) -> int | None:
    """A whole number as this server reads it."""
    if isinstance(value, list) and not isinstance(value, Pairs):
        return number(value[0], dialect) if dialect.lists and value else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        read = float(value) if dialect.texts and isinstance(value, str | float) else float("nan")
    except ValueError:
        return None
    return int(read) if read == read // 1 else None


def inside(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every named value at every depth, with its path."""
    if isinstance(value, Pairs):
        for name, below in value:
            yield (*path, name), below
            yield from inside(below, (*path, name))
    elif isinstance(value, list):
        for below in value:
            yield from inside(below, path)


_PROSE = ("messages", "prompt", "input", "tools", "functions", "response_format", "text", "metadata", "instructions")
"""Where names are what users and their programs choose."""


@dataclass
class _Read:
    """A request, read in a dialect."""

    pairs: Pairs
    dialect: Dialect
    named: list[tuple[tuple[str, ...], Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.named = [(path, value) for path, value in inside(self.pairs) if path[0] not in _PROSE or len(path) == 1]

    def same(self, one: str, other: str) -> bool:
        return one == other if self.dialect.capitals else normalised(one) == normalised(other)

    def values(self, name: str) -> list[Any]:
        """The values under a name, the strongest first."""
        wanted = tuple(name.split("."))
        places = [wanted, *((holder, *wanted) for holder in self.dialect.holders)]
        found: list[Any] = []
        for place in places:
            here = [
                value
                for path, value in self.named
                if len(path) == len(place) and all(self.same(*pair) for pair in zip(path, place, strict=True))
            ]
            found += here if self.dialect.first else here[::-1]
        if self.dialect.deep:
            found += [value for path, value in self.named if self.same(path[-1], wanted[-1])]
        return found

    def whole(self, names: Sequence[str]) -> Iterator[int]:
        for name in names:
            for value in self.values(name):
                if (read := number(value, self.dialect)) is not None:
                    yield read

    def get(self, name: str) -> Any:
        return next(iter(self.values(name)), None)


def text_bytes(value: Any) -> int:
    """A token for every byte that a prompt may hold: no tokeniser is worse."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Pairs):
        return sum(
            text_bytes(below) for name, below in value if name not in ("image_url", "input_audio", "role", "type")
        )
    if isinstance(value, list):
        return sum(text_bytes(below) for below in value)
    return 0 if value is None else 1  # a token of a list of them


def prompts_in(value: Any) -> list[Any]:
    """The prompts of a completion: a text, a list of tokens, or a list of these."""
    if isinstance(value, list) and value and not all(type(part) is int for part in value):
        return list(value)
    return [value]


_MEDIA = {"image_url", "input_image", "image", "video_url", "input_file", "file"}
_HIDDEN = ("previous_response_id", "conversation", "prediction", "web_search_options", "data_sources", "chat_template")


class LenientServer:
    """The server; `dialect` may be changed between requests."""

    def __init__(self, dialect: Dialect | None = None, *, names: Sequence[str] = ("toy",)) -> None:
        self.dialect = dialect or Dialect()
        self.work: list[Work] = []
        routes = dict.fromkeys(OWN_LENGTHS, self._answer)
        self.server = ChatServer(routes={"/v1/models": models(*names), **routes})

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.__exit__(*error)

    @property
    def url(self) -> str:
        """The address that a user would give."""
        return self.server.url

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was asked, in order."""
        return [seen.body for seen in self.server.seen if seen.path in OWN_LENGTHS]

    def measured(self, path: str, content: bytes) -> Work:
        """What a request costs here."""
        dialect = self.dialect
        read = _Read(json.loads(content, object_pairs_hook=Pairs), dialect)
        prompts = prompts_in(read.get("prompt")) if path == COMPLETIONS else [read.get("messages") or read.get("input")]
        prompt = sum(text_bytes(each) + 1 for each in prompts) + self._unseen(read)
        prompt += text_bytes(read.get("tools")) + text_bytes(read.get("instructions"))
        if path == EMBEDDINGS:
            return Work(path, prompt, 0, 0)
        own = OWN_LENGTHS[path] if path != CHAT or dialect.chat is None else (dialect.chat,)
        length = next(read.whole((*dialect.lengths, *own)), -1)
        length = dialect.context if not 0 < length <= dialect.context else length
        length = max(length, min(dialect.context, max(read.whole(dialect.floors), default=0)))
        length += max(read.whole(dialect.thinking), default=0)
        choices = max(1, *read.whole(dialect.choices), 1) * max(1, *read.whole(dialect.beams), 1) * len(prompts)
        return Work(path, prompt, length * choices, choices)

    def _unseen(self, read: _Read) -> int:
        """Tokens of pictures, sound and of what the request only names."""
        dialect, tokens = self.dialect, 0
        for path, value in inside(read.pairs):
            if path[-1] == "type" and value in _MEDIA:
                tokens += dialect.picture
            elif path[-2:] == ("input_audio", "data"):
                tokens += dialect.second * -(-len(str(value)) * 3 // 4 // 8000)
        for name in _HIDDEN:
            tokens += dialect.hidden * (read.get(name) is not None)
        tools = read.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            kind = dict(tool).get("type", "function") if isinstance(tool, Pairs) else "function"
            tokens += dialect.hidden * (kind not in ("function", "custom"))
        return tokens

    def _answer(self, seen: Seen) -> Reply:
        try:
            work = self.measured(seen.path, seen.content)
        except (ValueError, TypeError) as error:
            return whole({"error": {"message": str(error), "type": "invalid_request_error"}}, 400)
        self.work.append(work)
        streamed, mode = seen.body.get("stream") is True, self.dialect.usage
        told = work.completion if mode == "all" else work.completion // max(1, work.choices)
        used = {"prompt_tokens": work.prompt, "completion_tokens": told, "total_tokens": work.prompt + told}
        if mode == "beside":
            used |= {"completion_tokens": min(1, work.completion), "total_tokens": work.tokens}
        usage = used if mode else None
        if seen.path == RESPONSES:
            return _response(usage, streamed=streamed)
        if seen.path == EMBEDDINGS:
            return whole({"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "model": "toy", "usage": usage})
        return _completion(seen.path == CHAT, min(work.choices, 16), usage, streamed=streamed)


def _response(usage: dict[str, int] | None, *, streamed: bool) -> Reply:
    """A reply of `/v1/responses`."""
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "total_tokens": "total_tokens"}
    counts = usage and {name: usage[other] for name, other in names.items()}
    part = {"type": "output_text", "text": "word", "annotations": []}
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    value = {"id": "r", "object": "response", "status": "completed", "model": "toy", "output": [item], "usage": counts}
    if not streamed:
        return whole(value)
    delta = event({"type": "response.output_text.delta", "delta": "word"})
    return stream(delta, event({"type": "response.completed", "response": value}))


def _completion(chat: bool, choices: int, usage: dict[str, int] | None, *, streamed: bool) -> Reply:
    """A reply of a chat or a text completion."""
    kind = "chat.completion" if chat else "text_completion"
    said: dict[str, Any] = {"message": {"role": "assistant", "content": "word"}} if chat else {"text": "word"}
    if not streamed:
        rows = [{"index": at, **said, "finish_reason": "length"} for at in range(choices)]
        return whole({"id": "c", "object": kind, "model": "toy", "choices": rows, "usage": usage})
    said = {"delta": {"role": "assistant", "content": "word"}} if chat else said
    head = {"id": "c", "object": f"{kind}.chunk" if chat else kind, "model": "toy"}
    steps = [event({**head, "choices": [{"index": at, **said, "finish_reason": "length"}]}) for at in range(choices)]
    if usage is not None:
        steps.append(event({**head, "choices": [], "usage": usage}))
    return stream(*steps, DONE)
