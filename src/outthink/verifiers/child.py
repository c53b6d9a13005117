"""The child process of `process.ProcessVerifier`: one verifier, for one parent.

Knows how frames are read and written, what the parent is told of a verifier, and that a candidate which is refused
costs no other its score, and a request that fails no other request. Does not know which verifier it is: the parent
names the function that opens it. It is run as a plain script, and ends with its parent or at the end of its input,
also while it judges, and not at signals that are meant for the parent.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from outthink.core.request import Request
    from outthink.core.sample import Candidate
    from outthink.http.fields import JsonDict
    from outthink.verifiers.protocol import Score, Verifier

HEAD = 4
"""Bytes that say how long a frame is; its content is JSON."""
_Group = tuple["Request", list["Candidate"]]


def frame(content: JsonDict) -> bytes:
    """A message between parent and child."""
    encoded = dumps(content).encode()
    return len(encoded).to_bytes(HEAD, "big") + encoded


def _read(source: BinaryIO) -> JsonDict | None:
    """The next message, None at the end of the input, also in the middle of a message: its writer was killed."""
    head = source.read(HEAD)
    size = int.from_bytes(head, "big")
    content = source.read(size)
    message: JsonDict | None = loads(content) if len(head) == HEAD and len(content) == size else None
    return message


def _follow_input(source: BinaryIO, messages: queue.SimpleQueue[JsonDict]) -> None:
    while (message := _read(source)) is not None:
        messages.put(message)
    os._exit(0)  # nothing is to be saved, and nobody reads what is still being judged


def _described(verifier: Verifier) -> JsonDict:
    """What makes it a verifier for the parent, and how its own bound grows: `fixed` tokens, and `each` a step."""
    from outthink.core.request import Request
    from outthink.core.sample import Candidate

    request = Request.of("a")
    one, two, three = (verifier.bound(request, Candidate(("a\n\n",) * steps)) for steps in (1, 2, 3))
    names = ("id", "kind", "model", "parameters", "separator", "aggregation", "top_logprobs", "notes")
    told = {name: getattr(verifier, name) for name in names}
    return {**told, "fixed": one, "each": max(two - one, three - two)}


def _error(error: BaseException) -> JsonDict:
    from outthink.core.errors import BadInput, OutthinkError

    if isinstance(error, BadInput):
        return {"bad": [error.field, str(error.value), error.problem, error.remedy]}
    line = str(error) if isinstance(error, OutthinkError) else f"{type(error).__name__}: {error}"
    return {"failed": " ".join(line.split())[:500]}


def _outcomes(verifier: Verifier, groups: Sequence[_Group], runner: asyncio.Runner) -> list[JsonDict]:
    """Scores or an error by group. All are judged together; where that fails, each by itself."""
    try:
        refusals = [[_refusal(verifier, request, each) for each in some] for request, some in groups]
        within = [
            (request, [each for each, refusal in zip(some, refused, strict=True) if not refusal])
            for (request, some), refused in zip(groups, refusals, strict=True)
        ]
        judged = [[_row(score) for score in scores] for scores in _judge(verifier, within, runner)]
        _need_scores([len(some) for _, some in within], [len(rows) for rows in judged])
    except Exception as error:  # noqa: BLE001 - whatever it dies of, the others have their scores
        if len(groups) == 1:
            return [{"error": _error(error)}]
        return [outcome for group in groups for outcome in _outcomes(verifier, [group], runner)]
    outcomes = []
    for refused, scores in zip(refusals, judged, strict=True):
        left = iter(scores)
        rows = [{"steps": (), "message": refusal} if refusal else next(left) for refusal in refused]
        outcomes.append({"scores": rows})
    return outcomes


def _row(score: Score) -> JsonDict:
    """A score as JSON; numbers of an array library become plain ones."""
    row: JsonDict = loads(dumps(asdict(score), default=lambda number: number.item()))
    return row


def _need_scores(wanted: list[int], given: list[int]) -> None:
    """Raise EngineError for a verifier that gives more scores than candidates, or fewer."""
    from outthink.core.errors import EngineError

    if given != wanted:
        raise EngineError(f"it gave {given} scores for {wanted} candidates")


def _refusal(verifier: Verifier, request: Request, candidate: Candidate) -> str:
    """Why a candidate cannot be judged, such as one that is too long; empty where it can."""
    from outthink.core.errors import BadInput

    try:
        verifier.bound(request, candidate)
    except BadInput as error:
        return error.problem
    except Exception as error:  # noqa: BLE001 - such as of a tokeniser for what is no Unicode
        return str(_error(error)["failed"])
    return ""


def _judge(verifier: Verifier, groups: Sequence[_Group], runner: asyncio.Runner) -> list[list[Score]]:
    if (score_many := verifier.score_many) is not None:
        return score_many(groups)

    async def scores() -> list[list[Score]]:
        return list(await asyncio.gather(*(verifier.score(request, some) for request, some in groups)))

    return runner.run(scores())


def _groups(work: Sequence[JsonDict]) -> list[_Group]:
    from outthink.core.request import Message, Request
    from outthink.core.sample import Candidate

    # As parts: a request whose messages are pictures alone has no text.
    return [
        (
            Request(messages=tuple(Message(role, ({"text": text},)) for role, text in asked["messages"])),
            [Candidate(tuple(steps)) for steps in asked["candidates"]],
        )
        for asked in work
    ]


def main() -> None:
    """Open what the first message names, tell what it is, and judge what the others bring."""
    for number in signal.Signals:
        if number.name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they reach all processes of a service; the parent decides
            signal.signal(number, lambda *_: None)  # not ignored: processes that a plugin starts would inherit that
    sys.path.append(str(Path(__file__).parents[2]))
    from outthink.core.plugins import resolve
    from outthink.verifiers.protocol import complete
    from outthink.workers.process import follow_parent

    if (first := _read(sys.stdin.buffer)) is None:
        return
    follow_parent(first["parent"], signalled=first["signalled"])
    messages: queue.SimpleQueue[JsonDict] = queue.SimpleQueue()
    threading.Thread(target=_follow_input, args=(sys.stdin.buffer, messages), daemon=True).start()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print belongs into the log
    with asyncio.Runner() as runner:
        try:
            verifier = complete(resolve(first["opener"])(first["source"]))
            runner.run(verifier.prepare())
            told = _described(verifier)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
            told = {"error": _error(error)}
        while True:
            replies.write(frame(told))
            replies.flush()
            if "error" in told:
                return
            told = {"groups": _outcomes(verifier, _groups(messages.get()["work"]), runner)}


if __name__ == "__main__":
    main()
