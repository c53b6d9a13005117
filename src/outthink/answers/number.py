r"""Numbers in text and their one canonical form.

Knows digits of every script, grouping, signs, decimal commas, fractions, mixed numbers, powers of ten, currencies and
`%`, in LaTeX and in prose; and exact rational arithmetic: equal numbers are equal strings, a decimal if it terminates
(`0.75`), else `a/b`. Does not know units, words (`a dozen`) or expressions; `%` is dropped, not divided by 100.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

from outthink.answers.reading import Reading, first, offered, sentence

LONGEST = 1000  # characters of a literal and of a canonical number: beyond, a number is unreadable
_EXPONENT = 300  # largest power of ten: beyond, a number is unreadable
_DOUBT = ""  # of a text that holds an answer which cannot be told: nothing else is guessed in its place

# Texts are first brought to ASCII as far as numbers go.

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_RAISED_RUN = re.compile("([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)(?:[⁄∕/]([₀₁₂₃₄₅₆₇₈₉]+))?|⅟([₀₁₂₃₄₅₆₇₈₉0-9]+)|([₀₁₂₃₄₅₆₇₈₉]+)")
_SIGNS = {
    **dict.fromkeys("−➖", "-"),
    **dict.fromkeys("’‘ʼ", "'"),
    **dict.fromkeys("✕✖⨯╳", "×"),
    **dict.fromkeys("⋅∙•‧", "·"),
    **dict(zip("⁄∕，．％＄٫٬٪：＝＋／（）", "//,.%$.,%:=+/()", strict=True)),
}


class _Plain(dict[int, str]):
    """What each character becomes, found out when it is first met."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kind = unicodedata.category(letter)
        plain = _SIGNS.get(letter, letter)
        if kind == "Nd":
            plain = str(unicodedata.digit(letter))
        elif kind == "Pd":
            plain = "-"
        elif kind == "Zs":
            plain = " "
        elif kind == "Cf":  # marks without a width: joiners, directions, byte order
            plain = ""
        elif unicodedata.decomposition(letter).startswith("<fraction>"):
            plain = " " + unicodedata.normalize("NFKC", letter).replace("⁄", "/")
        self[code] = plain
        return plain


_PLAIN = _Plain()


def _unraised(match: re.Match[str]) -> str:
    raised, under, below, lowered = match.groups()
    if below or lowered:
        digits = "".join(_LOWERED.get(letter, letter) for letter in below or lowered)
        return f" 1/{digits}" if below else f"_{{{digits}}}"
    digits = "".join(_RAISED[letter] for letter in raised)
    if under:
        return f" {digits}/{''.join(_LOWERED[letter] for letter in under)}"
    return f"^{{{digits}}}"


def plain(text: str) -> str:
    """A text with ASCII digits, dashes, blanks and separators; raised digits become `^{2}`, fractions `3/8`."""
    if not text.isascii():
        text = _RAISED_RUN.sub(_unraised, text).translate(_PLAIN)
    if "\\" in text:  # a command's name is no word whose last part the digits are
        text = _COMMAND.sub(r"\1 ", text)
    return text


# One number: a literal, a fraction, or a mixed number.

_COMMAND = re.compile(r"(\\[A-Za-z]+)(?=[0-9])")
_LETTER = "A-Za-zÀ-ɏͰ-ϿЀ-ӿ"  # scripts that put blanks between words
_CODES = "USD|EUR|GBP|JPY|INR|CNY|RMB|CHF|AUD|CAD|SGD|HKD|NZD|Rs|Rp|RM|kr|zł"
_MONEY = rf"(?:\\?[$¢-¥֏؋৲৳฿₠-⃀]|\b(?:{_CODES}|(?:US|R|A|C)\\?\$)\.?)"
_BEHIND_MONEY = "|".join(rf"(?<=\b{code})" for code in _CODES.split("|"))
_BLANKS = ("[ ]", "~", r"\\[ ]", r"\\,", r"\\;", r"\\:", r"\\!", r"\t")
_GAP = r"(?:[ \t~]|\\[ ,;:!])"
_BY_BLANKS = "|".join(rf"(?:{blank}[0-9]{{3}})+" for blank in _BLANKS)
_CLUSTER = (
    rf"(?:[0-9]{{1,3}}(?:{_BY_BLANKS})(?![0-9])(?:[.,][0-9]++)?"
    r"|[0-9]++(?:(?:[.,'_]|\{,\}|,\\!|\\_)[0-9]++)*+|(?<![A-Za-z0-9.])\.[0-9]++)"
)
_POWER = rf"10{_GAP}*(?:\^|\*\*){_GAP}*(?:\{{[ \t]*[-+]?[ \t]*[0-9]++[ \t]*\}}|[-+]?[0-9]++)"
_TIMES = rf"{_GAP}*(?:\\times|\\cdot|[×·*xX]){_GAP}*"
_LITERAL = rf"(?:{_POWER}|{_CLUSTER}(?:[eE][-+]?[0-9]++(?![A-Za-z])|{_TIMES}{_POWER})?)"
_NUMBER = re.compile(
    rf"""
    (?:(?<![{_LETTER}])|{_BEHIND_MONEY})             # digits behind letters are part of a word
    (?<![0-9_])(?<!_\{{)(?<![0-9][.,'])              # no subscript, no rest of a number
    (?<![A-Za-z}}]\^)(?<![A-Za-z}}]\^\{{)            # no exponent of a unit
    (?:
        (?:(?P<whole>[0-9]++){_GAP}*)?\\[dtc]?frac\s*
        (?:\{{\s*(?P<over>[-+]?[ ]?{_LITERAL})\s*\}}|(?P<over1>[0-9]))\s*
        (?:\{{\s*(?P<under>[-+]?[ ]?{_LITERAL})\s*\}}|(?P<under1>[0-9]))
      | (?:(?P<units>[0-9]++){_GAP}+)?(?P<left>{_LITERAL})[ \t]*/[ \t]*(?P<right>[-+]?{_LITERAL})
      | (?P<alone>{_LITERAL})
    )
    """,
    re.VERBOSE,
)
_TIMES_TEN = re.compile(r"(?:\\times|\\cdot|[×·*xX])?10(?:\^|\*\*)\{?([-+]?[0-9]+)\}?\Z")
_FILLER = re.compile(r"[\s~]|\\[ ,;:!]")
_ENGLISH = re.compile(r"(?!0,)[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")
_POINTS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3}){2,}")
_MARKED = re.compile(r"([0-9]{1,3}(?:'[0-9]{3})+|[0-9]{1,3}(?:_[0-9]{3})+)(?:[.,]([0-9]+))?")


def _digits(cluster: str, decimal_comma: bool) -> str | None:
    """A cluster of digits and separators as a plain decimal; None where it may be several numbers or none.

    Args:
        decimal_comma: whether one comma that groups nothing is a decimal one: beside a currency or `%`.
    """
    if cluster.isdigit():
        return cluster
    text, grouped = _FILLER.subn("", cluster.replace(",\\!", ","))
    if grouped:  # what groups by blanks may have either decimal mark
        return text.replace(",", ".")
    explicit = text.replace("{,}", ",").replace("\\_", "_")
    if _ENGLISH.fullmatch(explicit):
        return explicit.replace(",", "")
    if _POINTS.fullmatch(explicit):
        return explicit.replace(".", "").replace(",", ".")
    if (marked := _MARKED.fullmatch(explicit)) is not None:
        return marked[1].replace("'", "").replace("_", "") + (f".{marked[2]}" if marked[2] else "")
    if explicit.count(",") == 1 and explicit.replace(",", "").isdigit() and (decimal_comma or "{,}" in cluster):
        return explicit.replace(",", ".")
    return explicit if explicit.count(".") == 1 and explicit.replace(".", "").isdigit() else None


def _literal(text: str, decimal_comma: bool) -> Fraction | None:
    """The value of one literal; None past the caps and for what has more than one reading."""
    if len(text) > LONGEST:
        return None
    exponent, sign = "0", 1
    if text[0] in "+-":
        sign, text = -1 if text[0] == "-" else 1, text[1:].lstrip()
    bare = _FILLER.sub("", text)
    power = _TIMES_TEN.search(bare)
    if power is not None:
        exponent = power[1]
        text = text[: text.rindex("10")].rstrip(" \t~\\,;:!×·*xX") if power.start() else "1"
        text = text.removesuffix("\\times").removesuffix("\\cdot").rstrip(" \t~")
    else:
        text, _, tail = text.lower().partition("e")
        exponent = tail or "0"
    digits = _digits(text, decimal_comma)
    if digits is None or len(exponent.lstrip("+-0")) > 4 or abs(int(exponent)) > _EXPONENT:
        return None
    return sign * Fraction(digits) * Fraction(10) ** int(exponent)


def _ratio(match: re.Match[str], decimal_comma: bool) -> Fraction | None:
    """The literal or fraction of a match, without sign and whole part; None where it has no one value."""
    part = match.groupdict()
    top = part["over"] or part["over1"] or part["left"] or part["alone"]
    bottom = part["under"] or part["under1"] or part["right"] or "1"
    above, below = _literal(top, decimal_comma), _literal(bottom, decimal_comma)
    return above / below if above is not None and below else None


def _is_mixed(match: re.Match[str], ratio: Fraction) -> bool:
    # `2 1/2` is one number; `2 7/2` is two, of which the last one counts.
    return (match["whole"] or match["units"]) is not None and 0 <= ratio < 1


def _value(match: re.Match[str], decimal_comma: bool = False) -> Fraction | None:
    """The value of a match of `_NUMBER` without its sign; None where it has none or several."""
    value = _ratio(match, decimal_comma)
    if value is not None and _is_mixed(match, value):
        units = _literal(match["whole"] or match["units"], False)
        return None if units is None else value + units
    return value


def shown(value: Fraction) -> str | None:
    """The canonical form: `18`, `0.75`, `1/3`, `-6/7`; None where it would be longer than `LONGEST`."""
    rest, twos, fives = value.denominator, 0, 0
    if rest.bit_length() > 4 * LONGEST or value.numerator.bit_length() > 4 * LONGEST:
        return None
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1:
        text = f"{value.numerator}/{value.denominator}"
        longest = max(len(part) for part in text.split("/"))
    elif places > LONGEST:
        return None
    else:
        digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
        text = ("-" if value < 0 else "") + digits[: len(digits) - places]
        text += "." + digits[len(digits) - places :] if places else ""
        longest = len(text)
    return text if longest <= LONGEST else None


# What stands around a number decides whether it is one, and its sign.

_DRESS = r"\\(?:left|text(?:bf|it|rm)?|math(?:bf|rm|it|sf)|mbox|displaystyle|quad)(?![a-zA-Z])"
_OPENING = rf"(?:[ \t~\"'*_{{}}$“]|\\[ ,;:!(\[]|{_DRESS}|{_MONEY})"
_SIGNED = re.compile(rf"(?:([-+])|\b(minus|negative)\b)({_OPENING}*)\Z", re.IGNORECASE)
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
    rf"[)\]}}$]*(?:{_GAP}*{_POWER_BEHIND}|\*\*[-+]?[0-9(])"  # a power: no digit is dropped
    r"|\.?\\(?:overline|bar|dot|ddot)\b"  # decimals that recur
    r"|_\{?[0-9]"  # digits of another base
    rf"|{_GAP}*(?:\\pi(?![a-z])|π|\\sqrt|√)"
    r"|:[0-9]|/[0-9]"
)
_NOT_ALONE_BEFORE = re.compile(
    r"(?:(?:\\sqrt\s*(?:\[[^\]]*\])?|√|\^|\\(?:overline|bar|dot|ddot))\s*[{(]?\s*[-+]?|(?:\\pm|\\mp|±|∓|\+/-)\s*|[0-9][:/])\Z"
)
_MONEY_BEFORE = re.compile(rf"{_MONEY}[ \t~]*[-+]?[ \t~]*\Z")
_MONEY_BEHIND = re.compile(rf"[ \t~]*(?:\\?%|{_MONEY})")
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
    decimal_comma = "," in match[0] and bool(
        _MONEY_BEHIND.match(text, end) or _MONEY_BEFORE.search(text[max(0, start - _CONTEXT) : start])
    )
    value = _value(match, decimal_comma)
    if value is None:
        return _DOUBT
    return shown(-value if _sign(text, start) else value) or _DOUBT


_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}\Z")
_HEAD = re.compile(rf"([-+]?){_GAP}*({_MONEY}?){_GAP}*([-+]?){_GAP}*")
_CANONICAL = re.compile(r"-?[0-9]+(?:\.[0-9]+|/[0-9]+)?")


def canonical_number(text: str) -> str | None:
    """The canonical form of a text that is one number and nothing else, None if it is not."""
    text = plain(text).strip()
    if text.isdigit() and text.isascii() and len(text) <= LONGEST:
        return text.lstrip("0") or "0"
    text = text.strip("$" if text.count("$") > 1 else "").strip().rstrip(".")
    wrapped = _WRAPPED.match(text)
    text = wrapped.group(1).strip() if wrapped else text
    head = _HEAD.match(text)
    match = None if head is None else _NUMBER.match(text, head.end())
    if head is None or match is None:
        return None
    tail = _MONEY_BEHIND.match(text, match.end())
    if match.end() != len(text) and (tail is None or tail.end() != len(text)):
        return None
    money = tail is not None or bool(head[2])
    ratio, value = _ratio(match, money), _value(match, money)
    if value is None or ratio is None or ((match["whole"] or match["units"]) and not _is_mixed(match, ratio)):
        return None
    return shown(-value if "-" in (head[1], head[3]) else value)


def value_of(canonical: str) -> Fraction | None:
    """The number behind a canonical form, None for other strings."""
    return Fraction(canonical) if _CANONICAL.fullmatch(canonical) else None


# Which number of a text is the answer.

_STARTS = re.compile(r"[0-9]|\\[dtc]?frac|\.[0-9]")


def _numbers(text: str, start: int = 0, end: int = sys.maxsize) -> Iterator[re.Match[str]]:
    """All numbers; only where one may start is the whole pattern tried."""
    while (near := _STARTS.search(text, start, end)) is not None:
        match = _NUMBER.match(text, near.start(), end)
        start = near.start() + 1 if match is None else match.end()
        if match is not None:
            yield match


_CLAUSE = re.compile(r",\s|;|\b(?:where|because|since|with|when)\b")
_JOINED = re.compile(
    r"""(?=.*(?:[,;、&]|\band\b|\bor\b))
    (?:[\s$,;、&()\[\]{}~*"]|\\[,;:! ()\[\]]|\\q?quad|\\text|\\mbox|\\mathrm|=
        |\band\b|\bor\b|\beither\b|\b[a-zA-Z]\s?=)*
    | \s?[^\W\d_]+\s(?:or)\s""",
    re.VERBOSE,
)
_HYPHENED = re.compile(r"[^\W\d_]-")
_ONLY_AND = re.compile(r"[\s$*]*and[\s$*]*")
_PROSE = re.compile(r"[^\W\d_]")
_ENDS = re.compile(r"[\s.!?)\]}$*\"'”%]*\Z")
_BREAK = re.compile(r"[A-Za-z] (?=[A-Za-z])")
_TAIL = 400  # characters of a text that are searched first for its last number


def _joined(text: str, left: re.Match[str], right: re.Match[str]) -> bool:
    """Whether two neighbouring numbers are items of one list."""
    return right.start() - left.end() < _CONTEXT and _JOINED.fullmatch(text, left.end(), right.start()) is not None


def _last_two(text: str) -> tuple[re.Match[str] | None, re.Match[str] | None]:
    before = last = None
    for match in _numbers(text):
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
    if not _joined(text, before, last) or not _ENDS.match(text, last.end()):
        return False
    # In prose `and` joins many things that are no list.
    only_and = _ONLY_AND.fullmatch(text, before.end(), last.start()) is not None
    return not only_and or _PROSE.search(text, 0, before.start()) is None


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
        found = list(_numbers(line, start, len(clause)))
        # `the base-10 number 13`: digits behind a hyphen are part of a word where there are others.
        alone = (one for one in found if not _HYPHENED.match(line[max(0, one.start() - 2) : one.start()]))
        match = next(alone, next(iter(found), None))
        if match is not None:
            return _DOUBT if _in_list(line, match) else _told(line, match)
    return None


def _in_list(line: str, match: re.Match[str]) -> bool:
    following = next(_numbers(line, match.end()), None)
    if following is not None and _joined(line, match, following):
        return True
    before = list(_numbers(line, 0, match.start()))[-1:]
    return bool(before) and _joined(line, before[0], match)


def read_number(text: str) -> Reading:
    """Read a number: boxed (the last number in the box), stated, or the last one of the text."""
    return first(offered(text, boxed_number, stated_number, last_number, "last-number"))
