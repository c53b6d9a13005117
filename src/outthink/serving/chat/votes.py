"""What a chat's samples vote on (tool calls, JSON, or an answer in words), and how the vote stands.

Knows: which kind of answer a request asks for, how samples of that kind become equal strings, and when a plain majority
cannot change any more. A sample that breaks the schema, or names no tool of the request, is unreadable and has no vote.
Does not know strategies: how they weigh their samples is their own matter.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from outthink.answers import read_sync
from outthink.answers.reader import AwaitedFunction
from outthink.answers.reading import IN_PLACE
from outthink.answers.text import canonical_json
from outthink.core.request import AnswerKind, AnswerReader
from outthink.core.sample import Sample
from outthink.http.events import Json
from outthink.http.fields import JsonDict
from outthink.serving.chat.calls import CALLS_MARK
from outthink.serving.chat.schemas import SchemaCheck
from outthink.serving.failure import bad_field
from outthink.serving.watch import Watchers
from outthink.session.calls import RunningCall

NO_CALL = "(no tool call)"
"""The vote of a sample that answers in free words where it could have called a tool."""


def answer_reader(body: JsonDict, kind: str | None) -> AnswerKind | AnswerReader:
    """The reader for a request: by its tools, else its response format, else the kind that it names, else text."""
    if body.get("tools") or body.get("functions"):
        choice = body.get("tool_choice")
        if choice != "none":
            return _tools(body, kind)
    form = body.get("response_format")
    if form is not None:
        if not isinstance(form, dict) or not isinstance(form.get("type"), str):
            raise bad_field("response_format", form, "has no type", "use text, json_object or json_schema")
        if form["type"] == "json_schema" or (form["type"] == "json_object" and isinstance(form.get("schema"), dict)):
            return _structured(form)
        if form["type"] == "json_object":
            return "json"
    return kind or "text"  # type: ignore[return-value]


def _structured(form: JsonDict) -> AnswerReader:
    """The reader of JSON under a schema, which OpenAI nests with its name; other servers take it flat, too."""
    inner = form.get("json_schema")
    nested = inner is not None or "schema" not in form
    field = "response_format.json_schema" if nested else "response_format"
    holder = inner if nested else form
    schema = holder.get("schema") if isinstance(holder, dict) else holder
    schema = {} if schema is None and nested and isinstance(holder, dict) else schema
    if not isinstance(schema, dict):
        raise bad_field(field, holder, "has no schema", "send {'name': ..., 'schema': {...}}")
    check = SchemaCheck(schema, f"{field}.schema")

    def read(text: str) -> Vote | None:
        answer = read_sync("json", text).answer
        return None if answer is None else (answer, [(check, answer)])

    return VoteReader(read, [check])


def _tools(body: JsonDict, kind: str | None) -> AnswerReader:
    checks = _checks(body)

    def words(text: str) -> str | None:
        if kind is not None:
            return read_sync(kind, text).answer  # type: ignore[arg-type]
        reading = read_sync("text", text)
        if reading.answer is None:
            return None
        # Free words never agree, so that not calling a tool could never win: they are one vote together.
        return reading.answer if reading.rule in ("boxed", "answer-is") else NO_CALL

    def read(text: str) -> Vote | None:
        # Calls are apart from what a text holds of thinking, or of its end: a server has read them.
        _, mark, tail = text.rpartition(CALLS_MARK)
        if mark and (calls := _listed(tail)) is not None:
            return _calls(calls, checks)
        answer = words(text)
        return None if answer is None else (answer, [])

    return VoteReader(read, [check for check in checks.values() if check is not None], slow=kind == "math")


def _listed(tail: str) -> list[Json] | None:
    """The calls behind a mark, None where the mark is a model's own words."""
    try:
        calls = json.loads(tail)
    except (ValueError, RecursionError):
        return None
    return calls if isinstance(calls, list) else None


Vote = tuple[str, list[tuple[SchemaCheck, str]]]
"""A sample's vote, and the JSON in it with what each must fit for the vote to count."""


class VoteReader(AwaitedFunction):
    """The vote of a sample's text, None where it breaks a schema.

    Args:
        slow: reading waits for a worker.
    """

    def __init__(
        self, read: Callable[[str], Vote | None], checks: Sequence[SchemaCheck], *, slow: bool = False
    ) -> None:
        self._read, self._checks, self._slow = read, checks, slow

    async def prepare(self) -> None:
        """Read the schemas, one after the other. Raises Failure for one that is none."""
        for check in self._checks:
            await check.prepare(id(self))
            await asyncio.sleep(0)  # others are served between two of them

    def __call__(self, text: str) -> str | None:
        vote = self._read(text)
        return vote[0] if vote is not None and all(check.now(part) for check, part in vote[1]) else None

    async def later(self, text: str) -> str | None:
        """The same, after a worker has checked what takes its time."""
        quick = len(text) <= IN_PLACE and not self._slow
        vote = self._read(text) if quick else await asyncio.to_thread(self._read, text)
        if vote is None:
            return None
        for check, part in vote[1]:
            if not await check.later(part, id(self)):
                return None
        return vote[0]


def _checks(body: JsonDict) -> dict[str, SchemaCheck | None]:
    """What the arguments of each tool must be like, None for anything."""
    checks: dict[str, SchemaCheck | None] = {}
    tools = body.get("tools") or []
    functions = body.get("functions") or []
    if not isinstance(tools, list) or not isinstance(functions, list):
        raise bad_field("tools", tools, "is no list", "send [{'type': 'function', 'function': {...}}]")
    for at, tool in enumerate(tools):
        kind = tool.get("type", "function") if isinstance(tool, dict) else None
        if not isinstance(tool, dict) or not isinstance(kind, str):
            _check(checks, f"tools[{at}]", None)
        elif kind in ("function", "custom") or kind in tool:
            _check(checks, f"tools[{at}]", tool.get(kind))
        else:
            checks[kind] = None  # the server's own tool, which has no schema here
    for at, function in enumerate(functions):
        _check(checks, f"functions[{at}]", function)
    return checks


def _check(checks: dict[str, SchemaCheck | None], field: str, tool: Json) -> None:
    if not isinstance(tool, dict) or not isinstance(name := tool.get("name"), str):
        raise bad_field(field, tool, "has no name", "send {'type': 'function', 'function': {...}}")
    parameters = tool.get("parameters")
    field = f"{field}.function.parameters"
    checks[name] = SchemaCheck(parameters, field) if isinstance(parameters, dict) else None


def _calls(calls: list[Json], checks: Mapping[str, SchemaCheck | None]) -> Vote | None:
    """The canonical form of a sample's calls, in any order; None where one of them could not be carried out."""
    votes = []
    parts: list[tuple[SchemaCheck, str]] = []
    for call in calls:
        if not isinstance(call, dict) or not isinstance(name := call.get("name"), str) or name not in checks:
            return None
        if "input" in call:  # a custom tool: free text
            votes.append(f"{name}({json.dumps(call['input'])})")
            continue
        sent = call.get("arguments") or "{}"
        arguments = canonical_json(sent if isinstance(sent, str) else json.dumps(sent))
        if arguments is None:
            return None
        check = checks[name]
        if check is not None:
            parts.append((check, arguments))
        votes.append(f"{name}({arguments})")
    return ("; ".join(sorted(votes)), parts) if votes else None


_STATES = {
    "launched": "started",
    "finished": "finished",
    "cached": "finished",
    "stopped": "cancelled",
    "cancelled": "cancelled",
    "failed": "failed",
}


def _nothing() -> None:
    """Of a session that has ended."""


class VoteProgress:
    """An observer of one session.

    Args:
        n: samples of a plain majority vote, None where the strategy decides by itself.
        decided: called once when the vote is beyond change.
        watchers: of the samples and votes.
        id: of the request's receipt.
    """

    def __init__(self, n: int | None, decided: Callable[[], None], watchers: Watchers, id: str) -> None:
        self._n, self._decided, self._watchers, self._id = n, decided, watchers, id
        self.samples: list[Sample] = []
        self.launched = 0
        self._votes: Counter[str] = Counter()
        self._numbers: dict[RunningCall, int] = {}

    def __call__(self, event: str, running: RunningCall, sample: Sample | None) -> None:
        """Take note, and let the watchers know."""
        state = _STATES.get(event)
        if state is None:
            return
        if state == "started":
            self.launched += 1
        elif sample is not None and running.role == "policy":
            self._add(sample)
        if self._watchers:
            self._report(state, running, sample)

    def end(self) -> None:
        """No more calls come. Those that came, and who waited for a decision, refer to the session and so to this."""
        self._n, self._decided = None, _nothing
        self._numbers.clear()

    def _report(self, state: str, running: RunningCall, sample: Sample | None) -> None:
        """Tell of a call, and of the votes where they have changed."""
        index = self._numbers.setdefault(running, len(self._numbers))
        answer = None if sample is None or running.role != "policy" else sample.answer
        tokens = running.tokens if sample is None else sample.tokens
        self._watchers.sampled(self._id, index, state, answer, tokens, running.model)
        if answer is not None:
            self._watchers.voted(self._id, dict(self._votes), self._votes.most_common(1)[0][0])

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        if sample.answer is None:
            return
        self._votes[sample.answer] += 1
        if self._n is None or len(self.samples) >= self._n:
            return
        best = self._votes.most_common(2)
        second = best[1][1] if len(best) > 1 else 0
        if best[0][1] > second + self._n - len(self.samples):
            self._n = None
            self._decided()

    def ranked(self, text: str, answer: str | None, most: int) -> list[str]:
        """Texts of the best answers, the chosen one first; more samples of the same answers where those run out."""
        firsts: dict[str, str] = {}
        for sample in sorted(self.samples, key=lambda sample: sample.index):
            if sample.answer is not None:
                firsts.setdefault(sample.answer, sample.text)
        order = sorted(firsts, key=lambda other: -self._votes[other])
        texts = [text, *(firsts[other] for other in order if other != answer)]
        rest = [sample.text for sample in sorted(self.samples, key=lambda sample: sample.index)]
        for used in texts:
            if used in rest:
                rest.remove(used)
        return (texts + rest)[:most]

    @property
    def line(self) -> str:
        """Progress in words."""
        line = f"{len(self.samples)} of {self.launched} samples"
        if self._votes:
            line += f", the leading answer has {self._votes.most_common(1)[0][1]} votes"
        return line
