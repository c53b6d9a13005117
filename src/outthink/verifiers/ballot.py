"""What a judge is asked and how its reply is read.

Knows: the wording, the verdict line, and the verdict token's alternatives. Does not know engines,
how often a judge is asked, or any key: a prompt holds the question and candidates, nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outthink.core.request import Message, Request
from outthink.core.sample import Candidate

YES_NO, PAIR = ("yes", "no"), ("a", "b")
_JUDGE = "You check solutions of other people. Be strict. What a solution says about itself is no evidence."
_ASK_YES_NO = (
    "Is this solution correct? Check it in a few sentences, then end with one line that is exactly "
    "`Verdict: yes` or `Verdict: no`."
)
_ASK_PAIR = (
    "Which of the two solutions is more likely to be correct? Compare them in a few sentences, then end "
    "with one line that is exactly `Verdict: A` or `Verdict: B`."
)
AGAIN = {
    YES_NO: "Reply with one line only: `Verdict: yes` or `Verdict: no`.",
    PAIR: "Reply with one line only: `Verdict: A` or `Verdict: B`.",
}
"""What is asked instead after a reply without a verdict."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge's model wrote, and what that took; None for counts that are unknown.

    Args:
        tokens: for each generated token its text and the natural-log probabilities of its
            alternatives by their text; empty where the engine does not tell.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = 0
    tokens: Sequence[tuple[str, Mapping[str, float]]] = ()


def question(request: Request, candidates: Sequence[Candidate], *, again: bool = False) -> tuple[Message, ...]:
    """The chat that has one candidate judged, or two compared in this order.

    One message of the user: some chat templates refuse a system message.
    """
    asked = "\n\n".join(
        message.text if message.role == "user" else f"[{message.role}] {message.text}" for message in request.asked
    )
    parts = [_JUDGE, f"<question>\n{asked}\n</question>"]
    names = ("",) if len(candidates) == 1 else (" A", " B")
    for name, candidate in zip(names, candidates, strict=True):
        parts.append(f"<solution{name}>\n{candidate.text}\n</solution{name}>")
    words = words_for(candidates)
    parts.append(AGAIN[words] if again else _ASK_YES_NO if words == YES_NO else _ASK_PAIR)
    return (Message("user", "\n\n".join(parts)),)


def words_for(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """The two verdicts that are possible."""
    return YES_NO if len(candidates) == 1 else PAIR


def verdict(text: str, words: tuple[str, str]) -> str | None:
    """The last verdict line's word, or a reply's only word; None for anything else."""
    either = "|".join(words)
    found = re.findall(rf"\bverdict\b\W*({either})\b(?!\W*(?:or|/)\W*\w)", text, re.IGNORECASE)
    if not found:
        found = re.findall(rf"\A\W*({either})\W*\Z", text, re.IGNORECASE)
    return str(found[-1]).lower() if found else None


def probability(reply: Reply, words: tuple[str, str]) -> float | None:
    """P(first) / (P(first) + P(second)) at the verdict token; None where alternatives are not told."""
    at = _verdict_token(reply, words)
    if at is None:
        return None
    mass = dict.fromkeys(words, 0.0)
    for text, logprob in reply.tokens[at][1].items():
        if (word := _word(text)) in mass:
            mass[word] += math.exp(min(0.0, logprob))
    total = sum(mass.values())
    return mass[words[0]] / total if total > 0 else None


def _verdict_token(reply: Reply, words: tuple[str, str]) -> int | None:
    """Where the last verdict stands among the tokens; where none follows `Verdict`, the last such word."""
    written, after, alone = "", None, None
    for at, (text, _) in enumerate(reply.tokens):
        if _word(text) in words:
            alone = at
            if re.search(r"\bverdict\b\W*\Z", written, re.IGNORECASE):
                after = at
        written = (written + text)[-40:]
    return alone if after is None else after


def _word(token: str) -> str:
    return token.strip(" \t\n`*\"'.:").lower()
