r"""Numbers in text and their one canonical form.

Knows literals (`1,234.50`, `\frac{1}{3}`, `2 1/2`, `6 \times 10^{3}`, `$`, `%`, Unicode minus) and exact
rational arithmetic: equal numbers are equal strings, a decimal if it terminates (`0.75`), else `a/b`.
Does not know units, words (`a dozen`) or expressions; `%` is dropped, not divided by 100.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from outthink.answers.reading import Reading, first, offered, sentence

LONGEST = 1000  # characters of a literal and of a canonical number: beyond, a number is unreadable
_EXPONENT = 300  # largest power of ten: beyond, a number is unreadable

_UNICODE = str.maketrans(
    {
        **dict.fromkeys("−﹣－‐‑–", "-"),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        **dict(zip("½⅓⅔¼¾⅕⅛", (" 1/2", " 1/3", " 2/3", " 1/4", " 3/4", " 1/5", " 1/8"), strict=True)),
        **dict(zip("⁄，．％＄", "/,.%$", strict=True)),
    }
)
_GROUP = r"(?:,\\!|,|\{,\}|\\,|[\xa0\u2009\u202f])"
_DIGITS = rf"(?:[0-9]{{1,3}}(?:{_GROUP}[0-9]{{3}})+(?![0-9])|[0-9]++)"
_POWER = r"10[ \t]*(?:\^|\*\*)[ \t]*(?:\{[ \t]*[-+]?[0-9]++[ \t]*\}|[-+]?[0-9]++)"
_PLAIN = rf"(?:{_DIGITS}(?:\.[0-9]++)?|\.[0-9]++)"
_LITERAL = rf"(?:{_POWER}|{_PLAIN}(?:[eE][-+]?[0-9]++(?![A-Za-z])|[ \t]*(?:\\times|\\cdot|×|·|\*|x)[ \t]*{_POWER})?)"
_NUMBER = re.compile(
    rf"""
    (?<![0-9_])(?<!_\{{)(?<![A-Za-z}}]\^)(?<![A-Za-z}}]\^\{{)   # no subscript, no exponent of a unit
    (?:(?<![\w)}}\]%])(?<![0-9)}}\]][ ])(?P<sign>[-+]))?(?:\\?[$€£¥][ \t]*(?P<inner>[-+])?)?
    (?:
        (?:(?P<whole>[0-9]++)[ \t~]*)?\\[dtc]?frac\s*
        (?:\{{\s*(?P<over>[-+]?{_LITERAL})\s*\}}|(?P<over1>[0-9]))\s*
        (?:\{{\s*(?P<under>[-+]?{_LITERAL})\s*\}}|(?P<under1>[0-9]))
      | (?:(?P<units>[0-9]++)[ \t]+)?(?P<left>{_LITERAL})[ \t]*/[ \t]*(?P<right>[-+]?{_LITERAL})
      | (?P<alone>{_LITERAL})
    )
    """,
    re.VERBOSE,
)
_TIMES_TEN = re.compile(r"(?:\\times|\\cdot|[×·*xX])?10(?:\^|\*\*)\{?([-+]?[0-9]+)\}?\Z")
_FILLER = re.compile(rf"{_GROUP}(?=[0-9])|\s")
_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}\Z")
_CLAUSE = re.compile(r",\s|;|\b(?:where|because|since|with|when)\b")


def _literal(text: str) -> Fraction | None:
    """The value of one literal; None past the caps."""
    if len(text) > LONGEST:
        return None
    text = _FILLER.sub("", text)
    exponent = "0"
    power = _TIMES_TEN.search(text)
    if power is not None:
        exponent, text = power.group(1), text[: power.start()] or "1"
        text = "-1" if text == "-" else "1" if text == "+" else text
    else:
        text, _, tail = text.lower().partition("e")
        exponent = tail or "0"
    if len(exponent.lstrip("+-0")) > 4 or abs(int(exponent)) > _EXPONENT:
        return None
    return Fraction(text) * Fraction(10) ** int(exponent)


def _ratio(match: re.Match[str]) -> Fraction | None:
    """The literal or fraction of a match, without sign and whole part; None past the caps or over zero."""
    part = match.groupdict()
    top = part["over"] or part["over1"] or part["left"] or part["alone"]
    bottom = part["under"] or part["under1"] or part["right"] or "1"
    above, below = _literal(top), _literal(bottom)
    return above / below if above is not None and below else None


def _is_mixed(match: re.Match[str], ratio: Fraction) -> bool:
    # `2 1/2` is one number; `2 7/2` is two, of which the last one counts.
    return (match["whole"] or match["units"]) is not None and 0 <= ratio < 1


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of a match of `_NUMBER`; None past the caps or for a division by zero."""
    value = _ratio(match)
    if value is None:
        return None
    if _is_mixed(match, value):
        units = _literal(match["whole"] or match["units"])
        if units is None:
            return None
        value += units
    return -value if "-" in (match["sign"], match["inner"]) else value


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


def _canonical(match: re.Match[str]) -> str | None:
    plain = match["alone"]
    if plain is not None and plain.isdigit() and len(plain) <= LONGEST:  # by far the commonest, and much faster
        digits = plain.lstrip("0") or "0"
        return "-" + digits if "-" in (match["sign"], match["inner"]) and digits != "0" else digits
    value = _value(match)
    return None if value is None else shown(value)


def _matches(text: str) -> Iterator[re.Match[str]]:
    return _NUMBER.finditer(text if text.isascii() else text.translate(_UNICODE))


def canonical_number(text: str) -> str | None:
    """The canonical form of a text that is one number and nothing else, None if it is not."""
    text = text.translate(_UNICODE).strip().strip("$" if text.count("$") > 1 else "").strip().rstrip(".")
    wrapped = _WRAPPED.match(text)
    text = wrapped.group(1).strip() if wrapped else text
    if text.endswith("%"):
        text = text[:-1].rstrip().removesuffix("\\").rstrip()
    if text[:1] in ("-", "+"):
        text = text[0] + text[1:].lstrip()
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    if (match["whole"] or match["units"]) is not None:
        ratio = _ratio(match)
        if ratio is None or not _is_mixed(match, ratio):
            return None
    return _canonical(match)


def value_of(canonical: str) -> Fraction | None:
    """The number behind a canonical form, None for other strings."""
    match = _NUMBER.fullmatch(canonical)
    return None if match is None or match["units"] is not None else _value(match)


def far_apart(left: str, right: str) -> bool:
    """True where both are canonical numbers too different for any rounding to make them equal."""
    a, b = value_of(left), value_of(right)
    return a is not None and b is not None and abs(a - b) * 1000 > max([abs(a), abs(b), Fraction(1)])


def last_number(text: str) -> str | None:
    """The last number of a text; None without one, or where it is past the caps."""
    last = None
    for match in _matches(text):
        last = match
    return None if last is None else _canonical(last)


def stated_number(statement: str) -> str | None:
    """The number a statement gives: behind the last `=` of its first clause, else the clause's first number."""
    clause = _CLAUSE.split(sentence(statement), maxsplit=1)[0]
    for piece in (clause.rpartition("=")[2], clause):
        match = next(_matches(piece), None)
        if match is not None:
            return _canonical(match)
    return None


def read_number(text: str) -> Reading:
    """Read a number: boxed (the last number in the box), stated, or the last one of the text."""
    return first(offered(text, last_number, stated_number, last_number, "last-number"))
