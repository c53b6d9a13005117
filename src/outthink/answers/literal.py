r"""One number as people write it, and its canonical form.

Knows digits of every script, grouping, decimal commas, fractions, mixed numbers, powers of ten, currencies and `%`, in
LaTeX and in prose; and exact rational arithmetic: equal numbers are equal strings, a decimal if it terminates
(`0.75`), else `a/b`. Does not know what stands around a number in a text.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

LONGEST = 1000  # characters of a literal and of a canonical number: beyond, a number is unreadable
_EXPONENT = 300  # largest power of ten: beyond, a number is unreadable

# Texts are first brought to ASCII as far as numbers go.

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_RAISED_RUN = re.compile("([⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)(?:[⁄∕/]([₀₁₂₃₄₅₆₇₈₉]+))?|⅟([₀₁₂₃₄₅₆₇₈₉0-9]+)|([₀₁₂₃₄₅₆₇₈₉]+)")
_SIGNS = {
    **dict.fromkeys("−➖˗⁻", "-"),
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
    if "\\" in text:
        for pattern, put in _LATEX:
            text = pattern.sub(put, text)
    return _BRACED.sub(r"\1", text) if "{" in text else text


# One number: a literal, a fraction, or a mixed number.

_LATEX = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"\\(?:thinspace|>)(?![A-Za-z]) ?", r"\\,"),
        (r"\\medspace(?![A-Za-z]) ?", r"\\:"),
        (r"\\thickspace(?![A-Za-z]) ?", r"\\;"),
        (r"\\negthinspace(?![A-Za-z]) ?", r"\\!"),
        (r"\\(?:enspace|space|hspace\*?\{[^{}]{0,20}\})(?![A-Za-z]) ?", r"\\ "),
        (r"\\(?:mathord|mathpunct)\{,\}", "{,}"),
        (r"\{,\}(?:\\!)+", "{,}"),
        (r"(\\[,;:! ])\{\}", r"\1"),
        (r"(\\[A-Za-z]+)(?=[0-9])", r"\1 "),  # a command's name is no word whose last part the digits are
    )
]
_BRACED = re.compile(r"(?<=[-+0-9])\{([ ~']|\\[,;:! ])\}(?=[0-9])")
_LETTER = "A-Za-zÀ-ɏͰ-ϿЀ-ӿ"  # scripts that put blanks between words
_CODES = (
    "AED|ARS|AUD|BDT|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|GHS|HKD|HUF|IDR|ILS|INR|ISK|JPY|KES|KRW|KZT|LKR"
    "|MAD|MXN|MYR|NGN|NOK|NPR|NZD|PEN|PHP|PKR|PLN|QAR|RMB|RON|RSD|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR"
    "|eur|gbp|inr|usd|Ksh|KSh"
)
_SHORT_CODES = "Rs|rs|Rp|RM|Tk|TL|Kč|kr|zł|Ft"
MONEY = rf"(?:\\?[$¢-¥֏؋৲৳฿₠-⃀]|(?<![^\W\d_])(?:{_CODES}|{_SHORT_CODES}|(?:US|R|A|C)\\?\$)\.?)"
_BEHIND_MONEY = rf"(?<=\b(?:{_CODES}))|(?<=\b(?:{_SHORT_CODES}))"
_BLANKS = ("[ ]", "~", r"\\[ ]", r"\\,", r"\\;", r"\\:", r"\\!", r"\t")
GAP = r"(?:[ \t~]|\\[ ,;:!])"
_BY_BLANKS = "|".join(rf"(?:{blank}[0-9]{{3}})+" for blank in _BLANKS)
_CLUSTER = (
    rf"(?:[0-9]{{1,3}}(?:{_BY_BLANKS})(?![0-9])(?:[.,][0-9]++)?"
    r"|[0-9]++(?:(?:[.,'_]|\{,\}|,\\!|\\_)[0-9]++)*+|(?<![A-Za-z0-9.])\.[0-9]++)"
)
_POWER = rf"\{{?10\}}?{GAP}*(?:\^|\*\*){GAP}*(?:\{{[ \t]*[-+]?[ \t]*[0-9]++[ \t]*\}}|[-+]?[0-9]++)"
_TIMES = rf"{GAP}*(?:\\times|\\cdot|[×·*xX]){GAP}*"
_LITERAL = rf"(?:{_POWER}|{_CLUSTER}(?:[eE][-+]?[0-9]++(?![A-Za-z])|{_TIMES}{_POWER})?)"
_NUMBER = re.compile(
    rf"""
    (?:(?<![{_LETTER}])|{_BEHIND_MONEY})             # digits behind letters are part of a word
    (?<![0-9])(?<![^\W_]_)(?<![)}}\]]_)(?<!_\{{)(?<![0-9][.,'])  # no subscript, no rest of a number
    (?<![A-Za-z}}]\^)(?<![A-Za-z}}]\^\{{)            # no exponent of a unit
    (?<![A-Za-z}}]\^[-+])(?<![A-Za-z}}]\^\{{[-+])
    (?:
        (?:(?P<whole>[0-9]++){GAP}*)?\\[dtc]?frac\s*
        (?:\{{\s*(?P<over>[-+]?[ ]?{_LITERAL})\s*\}}|(?P<over1>[0-9]))\s*
        (?:\{{\s*(?P<under>[-+]?[ ]?{_LITERAL})\s*\}}|(?P<under1>[0-9]))
      | (?:(?P<units>[0-9]++){GAP}+)?(?P<left>{_LITERAL})[ \t]*/[ \t]*(?P<right>[-+]?{_LITERAL})
      | (?P<alone>{_LITERAL})
    )
    """,
    re.VERBOSE,
)
_TIMES_TEN = re.compile(rf"(?:{_TIMES})?\{{?10\}}?{GAP}*(?:\^|\*\*){GAP}*\{{?[ \t]*([-+]?[ \t]*[0-9]+)[ \t]*\}}?\Z")
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
    power = _TIMES_TEN.search(text)
    if power is not None:
        text, exponent = text[: power.start()] or "1", power[1].replace(" ", "")
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


def value_of_match(match: re.Match[str], decimal_comma: bool = False) -> Fraction | None:
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


_MONEY_BEHIND = re.compile(rf"(?:{GAP}|\\(?:text|mathrm|mbox)\{{|[{{}}])*(?:\\?[%$]|{MONEY})")
_MONEY_BEFORE = re.compile(rf"{MONEY}[ \t~]*[-+]?[ \t~]*\Z")


def priced(text: str, start: int, end: int) -> bool:
    """Whether a currency or `%` stands beside a number; a `$` that closes a formula is none."""
    behind = _MONEY_BEHIND.match(text, end)
    if behind is not None and (behind[0][-1] != "$" or "\\$" in behind[0] or text.count("$", 0, start) % 2 == 0):
        return True
    return behind is None and _MONEY_BEFORE.search(text[max(0, start - 80) : start]) is not None


_WRAPPED = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}\Z")
_HEAD = re.compile(rf"([-+]?){GAP}*({MONEY}?){GAP}*([-+]?){GAP}*")
_CANONICAL = re.compile(r"-?[0-9]+(?:\.[0-9]+|/0*[1-9][0-9]*)?")


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
    if head is None or match is None or (head[1] and head[3]):
        return None
    tail = _MONEY_BEHIND.match(text, match.end())
    if match.end() != len(text) and (tail is None or text[tail.end() :].strip(" }")):
        return None
    money = tail is not None or bool(head[2])
    ratio, value = _ratio(match, money), value_of_match(match, money)
    if value is None or ratio is None or ((match["whole"] or match["units"]) and not _is_mixed(match, ratio)):
        return None
    return shown(-value if "-" in (head[1], head[3]) else value)


def value_of(canonical: str) -> Fraction | None:
    """The number behind a canonical form, None for other strings."""
    return Fraction(canonical) if _CANONICAL.fullmatch(canonical) else None


# All numbers of a text.

_STARTS = re.compile(r"[0-9]|\\[dtc]?frac|\.[0-9]")


def numbers(text: str, start: int = 0, end: int = sys.maxsize) -> Iterator[re.Match[str]]:
    """All numbers; only where one may start is the whole pattern tried."""
    while (near := _STARTS.search(text, start, end)) is not None:
        match = _NUMBER.match(text, near.start(), end)
        start = near.start() + 1 if match is None else match.end()
        if match is not None:
            yield match
