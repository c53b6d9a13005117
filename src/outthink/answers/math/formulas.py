r"""Formulas in text: which of them a completion gives as its answer, and a light normal form.

Knows delimiters (`$`, `\\(`, `\\[`), what names something and what is a value, spacing and size commands. Does not know
mathematics: `x+1` and `1+x` stay different strings here, equivalence is the worker's business.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from outthink.answers.literal import canonical_number
from outthink.answers.math.form import FUNCTIONS, LONGEST
from outthink.answers.number import last_number, stated_number
from outthink.answers.reading import JOINER, sentence

# An opening `$` has a letter or digit behind it, a closing one before it and no digit behind: else they are prices.
_FORMULA = re.compile(
    r"(?<!\\)\$\$((?:[^$\\]|\\.)+)\$\$|(?<![\\$])\$(?=[^\s$])((?:[^$\\\n]|\\.|\n(?!\n))+?)(?<=[^\s\\])\$(?![0-9])"
    r"|\\\(((?:(?!\\[()]).)+)\\\)|\\\[((?:(?!\\\]|(?<!\\)\\\[).)+)\\\]",
    re.DOTALL,
)
_NOTHING = re.compile(
    r"\\(?:left|right)(?![A-Za-z])\.?|\\(?:displaystyle|limits|[bB]ig[lr]?)(?![A-Za-z])|\\[!,;:]|[~\u2009\xa0]"
    r"|(?<![\\}a-z])\{\}|\{(?=[-+]\})|(?<=\{[-+])\}"
)
# A blank behind a comma says that it groups no digits.
_SEPARATED = re.compile(r"(?<!\\),\s*(?:\\[,;: ]|~|\\q?quad(?![A-Za-z]))")
_SPACED = re.compile(r"\s*([-+=()^_/*<>|])\s*|\s*(,)( ?)\s*")
_DEGREES = re.compile(r"^([^\\]*[0-9})]|\\[df]?frac.*)\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree|°)\s*\Z")
_WORD = re.compile(r"[^\W\d_]{3,}|\b[A-Za-z]{2}\b")
_AND_OR = re.compile(r"(?<=[^\s,;])[,;]?\s+(?:and|or)\s+(?=\S)")
_COMMAND = re.compile(r"\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}|\\[A-Za-z]+")


def light(text: str) -> str | None:
    """The normal form of one expression: no delimiters, sizes or spacing; a number becomes canonical.

    None for an empty or absurdly long one.
    """
    if len(text) > LONGEST:
        return None
    if (number := canonical_number(text)) is not None:
        return number
    while (lighter := _lighter(text)) != text:
        text = lighter
    return canonical_number(text) or (text if _WRITTEN.search(text) else None)


def _lighter(text: str) -> str:
    text = " ".join(text.split()).rstrip(".;:, \\")
    delimited = _FORMULA.fullmatch(text)
    if delimited is not None:
        text = next(part for part in delimited.groups() if part)
    text = _NOTHING.sub("", _SEPARATED.sub(", ", re.sub(r"\\[dtc]frac", r"\\frac", text)))
    return _SPACED.sub(r"\1\2\3", _DEGREES.sub(r"\1", text)).strip()


_WRITTEN = re.compile(r"\w|∞|∅|\\\{")


# Where a text gives its answer.

_NAMES = re.compile(r"\\?[A-Za-z]+(?:_(?:\{\w+\}|\w))?'*(?:\([A-Za-z, ]*\))?")
_SAYS = re.compile(r"\b(?:is|are|was|equals|be|becomes)\b(?!\s+not\b)|(?<!\\)[:：]", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\\$])|\n+")
_LISTED = re.compile(rf"\s*,?\s*{JOINER}\s*", re.IGNORECASE)
_VALUE = re.compile(r"(?:([A-Za-z]\w*)\s*=)?[^=<>]*")  # an item of a list, `x = 3` too
_DONE_TO = re.compile(r"\s*(?:\w+ed|given|known|written|chosen|drawn|taken)\s+(?:by|to|into|from|at|in|on|as)\b")
_SUBORDINATE = re.compile(r"\b(?:if|when|where|since|because|such that|that|for which|in which|whose)\b", re.IGNORECASE)
_REMARK = re.compile(r",\s*(?:which|since|because|as|so|where|or|i\.e|that is)\b", re.IGNORECASE)
_ASIDE = re.compile(r"\([^()]{0,200}\)|\n[ \t]*(?:[0-9]+[.)]|#+ ?[0-9.]*)(?=\s)")
_SMALL_WORDS = re.compile("so|is|it|we|to|of|in|by|at|as|an|if|or|on|no|be|do|go|he|me|my|up|us|am")
_LAST = 4000  # characters from the end in which the last formula is looked for


def formulas(text: str) -> Iterator[tuple[int, int, str]]:
    """Formulas of a text: where each begins and ends, and what it holds.

    Those joined by `and` or `or` are one list, by a comma alone if all are values (of one name, if any).
    """
    start, end, held, names = 0, 0, "", set[str | None]()
    for match in _FORMULA.finditer(text):
        content = next(part for part in match.groups() if part).strip()
        value = _VALUE.fullmatch(content)
        names.add(value[1] if value is not None else content)
        between = _LISTED.fullmatch(text, end, match.start()) if held else None
        if between is not None and (between[0].strip() != "," or len(names) == 1):
            held, end = f"{held}, {content}", match.end()
            continue
        if held:
            yield start, end, held
        start, end, held = match.start(), match.end(), content
        names = {value[1] if value is not None else content}
    if held:
        yield start, end, held


def _names_only(content: str) -> bool:
    return all(_NAMES.fullmatch(part.strip()) for part in content.split(", "))


def first_value(statement: str) -> str | None:
    """The first value of a statement, a formula taken whole; None without one, empty where it is in doubt.

    A formula that only names something is no value where a value follows.
    """
    named = None
    for start, end, content in formulas(statement):
        before = statement[:start]
        if named is None and re.search(r"[0-9]", before) and (number := stated_number(before)) is not None:
            return number
        if _names_only(content):
            named = (end, content)
            continue
        return light(content)
    if named is not None:
        return stated_number(statement[named[0] :]) or light(named[1])
    return _bare(statement) or stated_number(statement)


def _bare(statement: str) -> str | None:
    """All of a statement that holds no words and no formula."""
    statement = sentence(statement).strip().strip("*_`").lstrip("⇒→⟹• ").rstrip(".;:, ")
    words = _WORD.findall(_AND_OR.sub(" ", _COMMAND.sub(" ", statement)))
    if not statement or "box" in statement or any(_spoken(word.lower()) for word in words):
        return None
    return light(statement)


def _spoken(word: str) -> bool:
    return word not in FUNCTIONS if len(word) > 2 else _SMALL_WORDS.fullmatch(word) is not None


def _said(part: str) -> str | None:
    """What a sentence says: all behind its first `is` or colon, behind the last one where clauses come before."""
    spans = [(start, end) for start, end, _ in formulas(part)]
    verbs = [verb for verb in _SAYS.finditer(part) if not _within(spans, verb.start())]
    verbs = [verb for verb in verbs if not _DONE_TO.match(part, verb.end())] or verbs
    if not verbs:
        return None
    clause = _SUBORDINATE.search(part, 0, verbs[0].start())
    if clause is None:
        return part[verbs[0].end() :]
    remark = _REMARK.search(part, verbs[0].end())
    return part[[verb for verb in verbs if remark is None or verb.end() <= remark.start()][-1].end() :]


def _within(spans: list[tuple[int, int]], place: int) -> bool:
    """Whether one of the spans, which are in order, holds a place."""
    before = bisect_left(spans, (place,))
    return before > 0 and place < spans[before - 1][1]


def last_value(text: str) -> tuple[str, str] | None:
    """(value, rule) of a text without box and statement.

    What its last sentence says, else the last formula, or the last number where that stands behind. The value is
    empty where it is in doubt.
    """
    text = text[-_LAST:]
    if len(text) < 200 and "$" not in text and "\n" not in text.strip() and (whole := _bare(text)) is not None:
        return whole, "whole-text"
    last = next(iter(list(formulas(text))[-1:]), None)
    # What is cut or in brackets is none: `(see step 4)`, a formula that is never closed, a list mark.
    behind = _ASIDE.sub(" ", text[last[1] :]) if last else text
    number = last_number(behind)
    if last is None:
        if number == "" and (said := _said(_SENTENCE.split(text.strip())[-1])) is not None:
            number = _bare(said) or ""  # several numbers may be a list
        return None if number is None else (number, "last-number")
    for part in reversed(_SENTENCE.split(text.strip())[-3:]):
        said = _said(part)
        if said is not None and (value := first_value(said)) is not None:
            return value, "last-formula"
        if re.search(r"[0-9$]|\\[(\[]", part):
            break
    if number is not None and ("\\" not in behind or _names_only(last[2])):
        return number, "last-number"
    value = light(last[2])
    return None if value is None else (value, "last-formula")
