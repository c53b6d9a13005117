r"""Is an answer right? Compares canonical answers with gold keys.

Knows how keys are written (`18`, `#### 18`, `\frac12`, `\boxed{x}`, `B`, JSON). Does not know problems.
"""

from __future__ import annotations

from collections.abc import Iterable

from outthink.answers.latex import light
from outthink.answers.number import far_apart
from outthink.answers.reader import read_sync
from outthink.answers.reading import hashed, last_boxed
from outthink.core.errors import BadInput
from outthink.core.request import AnswerKind, AnswerReader, answer_named

_BATCH = 16  # pairs of one worker call: together they must fit its time limit


def canonical_key(kind: AnswerKind | AnswerReader, key: str) -> str:
    """The canonical form of a gold key; BadInput if it cannot be read as `kind`."""
    kind, answer = answer_named(kind), None
    if kind == "math":
        answer = light(last_boxed(key) or hashed(key) or key)
    elif callable(kind):
        # A user's function reads completions; a key is more often the bare answer.
        answer = read_sync(kind, key).answer or key
    else:
        answer = read_sync(kind, key).answer
    if answer is None:
        name = "function" if callable(kind) else kind
        raise BadInput("key", key, f"cannot be read as {name}", "give the gold answer alone")
    return answer


def grade(kind: AnswerKind | AnswerReader, answer: str | None, key: str) -> bool:
    """Whether a canonical answer (`Sample.answer`) equals the gold key; None is wrong.

    Blocks for `math` while the worker compares (about 10 ms); safe in any thread. BadInput for an unreadable key.
    """
    return grade_many(kind, [(answer, key)])[0]


def grade_many(kind: AnswerKind | AnswerReader, pairs: Iterable[tuple[str | None, str]]) -> list[bool]:
    """`grade` for many (answer, key) pairs, with fewer trips to the math worker."""
    results: list[bool] = []
    asked: list[tuple[int, str, str]] = []
    for place, (answer, key) in enumerate(pairs):
        gold = canonical_key(kind, key)
        canonical = light(answer) if kind == "math" and answer is not None else answer
        results.append(canonical is not None and canonical == gold)
        if kind == "math" and canonical is not None and not results[-1] and not far_apart(canonical, gold):
            asked.append((place, gold, canonical))
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        for (place, _, _), right in zip(
            batch, _compare([(gold, canonical) for _, gold, canonical in batch]), strict=True
        ):
            results[place] = right
    return results


def _compare(pairs: list[tuple[str, str]]) -> list[bool]:
    """One worker call; if it hangs, each pair alone, so that only the guilty one is wrong for it."""
    from outthink.answers.math_process import shared  # on first use: asyncio and subprocess take 20 ms to import

    value = shared().submit("grade", pairs=pairs).result()
    if isinstance(value, list) and len(value) == len(pairs):
        return [bool(item) for item in value]
    return [False] if len(pairs) == 1 else [right for pair in pairs for right in _compare([pair])]
