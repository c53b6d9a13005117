r"""Which number of a text is the answer, with its sign.

Knows what must stand before a minus for it to be a sign, what makes a number a part of something else, and when two
numbers are a list. Does not know units, words (`a dozen`) or expressions; `%` is dropped, not divided by 100.
"""

from __future__ import annotations

import re

from outthink.answers.literal import GAP, LONGEST, MONEY, numbers, plain, priced, shown, value_of_match
from outthink.answers.reading import JOINER, OR, Reading, placed, sentence, told

_DOUBT = ""  # of a text that holds an answer which cannot be told: nothing else is guessed in its place

# What stands around a number decides whether it is one, and its sign.

_DRESS = r"\\(?:left|text(?:bf|it|rm)?|math(?:bf|rm|it|sf)|mbox|displaystyle|quad)(?![a-zA-Z])"
_OPENING = rf"(?:[ \t~\"'`*_{{}}$“]|\\[ ,;:!(\[]|{_DRESS}|{MONEY})"
_SIGNED = re.compile(rf"(?:([-+])|\b(minus|negative)\b)((?:{_OPENING}|\()*)\Z", re.IGNORECASE)
_SKIPPED = re.compile(rf"{_OPENING}+\Z")
_DUE = re.compile(
    r"""(?:
        [=:(\[{,<>≤≥≈≃≅~|→⇒⟹×·*/÷^;]
      | \\(?:approx|leq?|geq?|to|implies|Rightarrow|rightarrow|equiv|sim|cong|in|times|cdot|div|boxed|frac|neq?)
      | \b(?:is|are|was|were|be|been|equals?|becomes?|gives?|yields?|gets?|got|to|at|of|than|by
          | about|approximately|roughly|exactly|therefore|thus|simply|now)
    )\Z""",
    re.VERBOSE | re.IGNORECASE,
)
_CONTEXT = 80  # characters before a number that decide its sign
_POWER_BEHIND = r"\^(?!\s*\{?\s*(?:\\(?:circ|degree|text|mathrm|prime)|st\b|nd\b|rd\b|th\b|o\b|['°]))"
_NOT_ALONE_BEHIND = re.compile(
    rf"[)\]}}$]*(?:{GAP}*{_POWER_BEHIND}|\*\*[-+]?[0-9(])"  # a power: no digit is dropped
    r"|\.?\\(?:overline|bar|dot|ddot)\b"  # decimals that recur
    r"|_\{?[0-9]"  # digits of another base
    rf"|{GAP}*(?:\\pi(?![a-z])|π|\\sqrt|√)"
    r"|:[0-9]|/[0-9]"
)
_NOT_ALONE_BEFORE = re.compile(
    r"(?:(?:\\sqrt\s*(?:\[[^\]]*\])?|√|\^|\\(?:overline|bar|dot|ddot))\s*[{(]?\s*[-+]?|(?:\\pm|\\mp|±|∓|\+/-)\s*|[0-9][:/]|[0-9)\]}]\*\*[-+]?)\Z"
)
_WORDS_BEHIND = re.compile(r"[^\n]*?(?<![\\\w])[^\W\d_]")


def _sign(text: str, start: int) -> str:
    """`-` where a minus before `start` belongs to the number there, else nothing."""
    before = text[max(0, start - _CONTEXT) : start]
    sign = _SIGNED.search(before)
    if sign is None or sign[1] == "+":
        return ""
    begin = start - len(before) + sign.start()
    ahead = text[max(0, begin - _CONTEXT) : begin]
    context = _SKIPPED.sub("", ahead)
    behind_number = context[-1:].isdigit()
    if sign[2] and sign[2].lower() == "negative":
        return "" if behind_number else "-"
    near = ahead.rstrip(" \t")
    # Of an odd number of `$` the last one opens a formula.
    opens = near.endswith(("\\(", "\\[")) or (near.endswith("$") and text.count("$", 0, begin) % 2 == 1)
    if opens or (not context and len(ahead) < _CONTEXT) or _DUE.search(context):
        return "-"
    if context.endswith("\n"):  # a list mark where words follow
        return "" if sign[3] and _WORDS_BEHIND.match(text, start) else "-"
    # `drops to -5`, but `word - 5`, `word-5` and `3 -5`.
    tight = not sign[3].strip("$\\*_{\"'") and ahead[-1:] in (" ", "\t", "~")
    return "-" if sign[1] and tight and context[-1:] not in ")]}" and not behind_number else ""


def _told(text: str, match: re.Match[str]) -> str:
    """The canonical number of a match, `_DOUBT` where it is none or one of several readings."""
    start, end = match.span()
    if _NOT_ALONE_BEHIND.match(text, end) or _NOT_ALONE_BEFORE.search(text[max(0, start - _CONTEXT) : start]):
        return _DOUBT
    alone = match["alone"]
    if alone is not None and alone.isdigit() and len(alone) <= LONGEST:  # by far the commonest, and much faster
        digits = alone.lstrip("0") or "0"
        return digits if digits == "0" else _sign(text, start) + digits
    value = value_of_match(match, "," in match[0] and priced(text, start, end))
    if value is None:
        return _DOUBT
    return shown(-value if _sign(text, start) else value) or _DOUBT


# Which number of a text is the answer.

_CLAUSE = re.compile(r",\s|(?<!\\);|\b(?:where|because|since|with|when)\b")
_JOINED = re.compile(
    rf"""(?=.*(?:{JOINER}))
    (?:{GAP}?[^\W\d_]+{GAP}(?={OR}))?  # `3 km or 4 miles`
    (?:{JOINER}|[\s$()\[\]{{}}~*"=%°]|\^\{{?\\circ|\\[ ,;:! ()\[\]%$]|\\q?quad|\\text|\\mbox|\\mathrm|{MONEY}
        |\b(?:either|else|maybe|possibly|perhaps|even)\b|\b[a-zA-Z]\s?=)*
    (?:[-+]|\bminus\b|\bnegative\b)?{_OPENING}*""",
    re.VERBOSE | re.IGNORECASE,
)
_HYPHENED = re.compile(r"[^\W\d_]-")
_UNIT = re.compile(rf"(?:{GAP}|\\(?:text|mathrm|mbox)\{{)*([^\W\d_]+)")
_ONLY_AND = re.compile(r"[\s$*]*[^\W\d_]*[\s$*]*\band[\s$*]*")
_OR = re.compile(OR, re.IGNORECASE)
_PROSE = re.compile(r"[^\W\d_]")
_ENDS = re.compile(r"(?:[\s.!?)\]}$*\"'”%°]|\^\{?\\circ)*\Z")
_BREAK = re.compile(r"[A-Za-z] (?=[A-Za-z])")
_TAIL = 400  # characters of a text that are searched first for its last number


def _unit_end(text: str, left: re.Match[str], right: re.Match[str]) -> int:
    """Where the word behind `left` ends if the same one stands behind `right`, else where `left` ends."""
    units = [_UNIT.match(text, one.end()) for one in (left, right)]
    return units[0].end() if units[0] and units[1] and units[0][1] == units[1][1] else left.end()


def _joined(text: str, left: re.Match[str], right: re.Match[str]) -> bool:
    """Whether two neighbouring numbers are items of one list."""
    if right.start() - left.end() >= _CONTEXT:
        return False
    starts = (left.end(), _unit_end(text, left, right))  # `3 kg, 4 kg`
    return any(_JOINED.fullmatch(text, start, right.start()) for start in starts)


def _last_two(text: str) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    before = last = None
    for match in numbers(text):
        before, last = last, match
    return before, last


def last_number(text: str) -> str | None:
    """The last number of a text; None without one, empty where it is in doubt or ends a list that ends the text."""
    cut = _BREAK.search(text, max(0, len(text) - _TAIL), max(0, len(text) - _TAIL // 2)) if len(text) > _TAIL else None
    tail = "\n" + plain(text[cut.start() :] if cut else text)
    before, last = _last_two(tail)
    if last is None and cut is not None:
        tail = "\n" + plain(text)
        before, last = _last_two(tail)
    if last is None:
        return None
    if before is not None and _ends_in_list(tail, before, last):
        return _DOUBT
    return _told(tail, last)


def _ends_in_list(text: str, before: re.Match[str], last: re.Match[str]) -> bool:
    """Whether the last two numbers are a list that ends the text."""
    if not _joined(text, before, last):
        return False
    if _OR.search(text, before.end(), last.start()):
        return True
    end = last.end() + _unit_end(text, before, last) - before.end()
    # In prose `and` joins many things that are no list.
    only_and = _ONLY_AND.fullmatch(text, before.end(), last.start()) is not None
    return _ENDS.match(text, end) is not None and (not only_and or _PROSE.search(text, 0, before.start()) is None)


def boxed_number(box: str) -> str | None:
    """The last number of a box; None without one, empty where it is in doubt or an item of a list."""
    text = plain(box)
    before, last = _last_two(text)
    if last is None:
        return None
    return _DOUBT if before is not None and _joined(text, before, last) else _told(text, last)


def stated_number(statement: str) -> str | None:
    """The number a statement gives: behind the last `=` of its first clause, else the clause's first number.

    None without one, empty where it is in doubt or an item of a list.
    """
    line = sentence(plain(statement))
    clause = _CLAUSE.split(line, maxsplit=1)[0]
    for start in {clause.rfind("=") + 1: None, 0: None}:
        found = list(numbers(line, start, len(clause)))
        # `the base-10 number 13`: digits behind a hyphen are part of a word where there are others.
        alone = (one for one in found if not _HYPHENED.match(line[max(0, one.start() - 2) : one.start()]))
        match = next(alone, next(iter(found), None))
        if match is not None:
            return _DOUBT if _in_list(line, match) else _told(line, match)
    return None


def _in_list(line: str, match: re.Match[str]) -> bool:
    following = next(numbers(line, match.end()), None)
    if following is not None and _joined(line, match, following):
        return True
    before = list(numbers(line, 0, match.start()))[-1:]
    return bool(before) and _joined(line, before[0], match)


def read_number(text: str) -> Reading:
    """Read a number: boxed (the last number in the box), stated, or the last one of the text."""
    return told(*(placed(text, boxed_number, stated_number) or (last_number(text), "last-number")))
