r"""The outer form of a mathematical answer: lists, brackets, relations, bases, words and units, without any algebra.

Knows LaTeX and the plain spelling of the same, and what separates the items of a list. Does not know what an
expression is worth; it leaves each in a spelling that a parser of LaTeX reads.
"""

from __future__ import annotations

import re
from functools import lru_cache

from outthink.answers.literal import plain
from outthink.answers.reading import closing

LONGEST = 1000  # characters: beyond, an expression is unreadable (parsing time grows fast)

_SIGNS = str.maketrans(
    {
        "π": r"\pi ", "√": r"\sqrt ", "∞": r"\infty ", "≤": r"\leq ", "≥": r"\geq ", "≠": r"\neq ", "×": r"\times ",
        "÷": "/", "·": r"\cdot ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ ", "º": r"^\circ ",
        "∅": r"\emptyset ",
        "±": r"\pm ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "\n": " ", "\t": " ", "≈": r"\approx ",
        "ℝ": r"\real ",
    }
)  # fmt: skip
_DELIMITED = re.compile(r"\$\$(.+)\$\$|\$(.+)\$|\\\((.+)\\\)|\\\[(.+)\\\]", re.DOTALL)
_ROOT = re.compile(r"([√∛])\s*([0-9]+(?:\.[0-9]+)?)")
_TRIGONOMETRY = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?")
_ALIGNED = re.compile(r"\\begin\{(?:align|aligned|gather|gathered|split|equation)\*?\}(.*)\\end\{\w+\*?\}", re.DOTALL)
_NEXT_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?\s*(?=&?\s*=|\Z)")  # a row that goes on with `=`
_ALL_TEXT = re.compile(r"\A\\text\{((?:[^{}]*[0-9,]|.*\b(?:and|or)\b)[^{}]*)\}\Z")
_WITH_UNIT = r"\\text\{[^{}]*\}(?:\^\s*\{?[0-9]\}?)?"
_REWRITES = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"\\(?:left|right)(?![A-Za-z])\.?", ""),
        (r"\\(?:displaystyle|textstyle|limits|[bB]ig{1,2}[lr]?)(?![A-Za-z])", ""),
        (r"(?<!\\)\\!\s*", ""),
        (r"(?<!\\),\s*(?:\\[,;: ]|~|\\q?quad(?![A-Za-z]))|\\text\{\s*,\s*\}", ", "),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:mathrm|text)\{([ie])\}|\\(?:mathbf|mathit|boldsymbol|vec|hat)\s*\{([A-Za-z])\}", r"\1\2"),
        (r"\\(?:text)?color\s*\{[A-Za-z]+\}|\\underline(?=\s*\{)", ""),
        (r"\^\s*(?:\\prime(?![A-Za-z])|\{\s*\\prime\s*\})", "'"),
        (r"\\pmod\s*([0-9A-Za-z])", r"\\pmod{\1}"),
        (r"\\(?:mathbb|Bbb)\s*\{?\s*R\s*\}?", r"\\real "),
        (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
        (r"\\log\s*_\s*(?:e(?![A-Za-z])|\{\s*e\s*\})", r"\\ln "),
        (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
        (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\\textsuperscript", "^"),
        (r"\\(?:mbox|hbox|mathrm|mathbf|mathit|mathsf|text(?:bf|it|rm|sf|normal)|operatorname)\s*\{", r"\\text{"),
        (r"\\?%|\\\$|(?<!\\)\$", ""),
        (r"\\text\{([^{}]*)\^\{?(-?[0-9]+)\}?\s*\}", r"\\text{\1}^{\2}"),
        (rf"\\frac\s*\{{\s*({_WITH_UNIT})\s*\}}\s*\{{\s*({_WITH_UNIT})\s*\}}", r"\1/\2"),
        (rf"(?<=[0-9)}}])(\s*{_WITH_UNIT})\s*\\(?:cdot|times)\s*(?=\\text\{{)", r"\1 "),
        (
            r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degree(?![A-Za-z]))"
            r"(?:\s*(?:\\text\{\s*[CF]\s*\}|[CF](?![A-Za-z])))?",
            "",
        ),
        (r"\\(?:leqslant|le)(?![A-Za-z])|<=", r"\\leq "),
        (r"\\(?:geqslant|ge)(?![A-Za-z])|>=", r"\\geq "),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset"),
        (r"\\ne(?![A-Za-z])|!=", r"\\neq "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"\*\*", "^"),
        (r"\^\s*\{?\s*(?:\\text\{)?\s*(?:st|nd|rd|th)\s*\}?\s*\}?(?![A-Za-z])|(?<=[0-9])(?:st|nd|rd|th)\b", ""),
        (r"(?<=[0-9])\s*\\text\{\s*-?\s*(?:st|nd|rd|th)\s*\}", ""),
        (r"\^\s*([0-9]{2,})", r"^{\1}"),
        (r"_\s*([0-9]{2}(?![0-9])|(?<![0-9]_)[0-9]{3,})", r"_{\1}"),
        (r"\A\s*(?:\\text\{)?\s*(?:minus|negative|Minus|Negative|MINUS|NEGATIVE)\s*\}?\s*(?=[0-9.\\])", "-"),
    )
]


@lru_cache(maxsize=8192)
def normal(text: str) -> str:
    """One spelling for the same signs: no delimiters, sizes, currency, degrees or per cent, one kind of blank."""
    text = _ROOT.sub(lambda root: rf"\sqrt{'[3]' if root[1] == '∛' else ''}{{{root[2]}}}", plain(text))
    text = text.translate(_SIGNS).strip().rstrip(".;:, ")
    while (delimited := _DELIMITED.fullmatch(text)) is not None:
        inside = next(part for part in delimited.groups() if part)
        if "$" in inside.replace("\\$", ""):
            break
        text = inside.strip()
    if _TRIGONOMETRY.search(text):
        text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)
    if (aligned := _ALIGNED.fullmatch(text)) is not None:
        text = _NEXT_ROW.sub(" ", aligned[1]).replace("&", "")
    for pattern, put in _REWRITES:
        text = pattern.sub(put, text)
    text = " ".join(text.split()).rstrip(".;:, \\")
    text = _ALL_TEXT.sub(r"\1", text)
    while text.startswith("{") and closing(text, 1, len(text)) == len(text) - 1:
        text = text[1:-1].strip()
    return text


# Where a text can be cut: outside every bracket.

_TOKEN = re.compile(
    r"\\text\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|\\.|[()\[\]{},;|]|[=<>]|[A-Za-z]+|\s+|.", re.DOTALL
)
_OPENS = {"(": 1, "[": 1, "{": 1, r"\{": 1}
_CLOSES = {")": 1, "]": 1, "}": 1, r"\}": 1}
RELATIONS = ("=", "<", ">", r"\leq", r"\geq", r"\neq", r"\equiv", r"\approx")


def tokens(text: str) -> list[tuple[str, int, int]]:
    """Tokens with their place and how many brackets are open around them."""
    found, depth = [], 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _CLOSES or token.startswith(r"\end"):
            depth -= 1
        found.append((token, match.start(), depth))
        if token in _OPENS or token.startswith(r"\begin"):
            depth += 1
    return found


_THREE = re.compile(r"[0-9]{3}(?![0-9])")


def _groups_digits(text: str, comma: int) -> bool:
    return _THREE.match(text, comma + 1) is not None and text[max(0, comma - 1) : comma].isdigit()


def items(text: str, bracketed: bool = False) -> list[str]:
    """The items of a list without its brackets, one if it is none.

    A comma separates unless it groups digits; with a blank behind it always does. `and`, `or` and `;` join too.

    Args:
        bracketed: inside brackets a comma never groups digits, unless another one has a blank behind it.
    """
    parts, start = [], 0
    for name, place, depth in [*tokens(text), (";", len(text), 0)]:
        if depth == 0 and (name == ";" or name.removeprefix(r"\text{").strip(" ,}").lower() in ("and", "or")):
            parts += _at_commas(text[start:place], bracketed)
            start = place + len(name)
    return [part for part in (part.strip(" ,") for part in parts) if part]


def _at_commas(text: str, bracketed: bool) -> list[str]:
    commas = [place for name, place, depth in tokens(text) if depth == 0 and name == ","]
    spaced = any(text[place + 1 : place + 2] == " " for place in commas)
    grouped = spaced or (not bracketed and _GROUPED.fullmatch(re.sub(r"[^0-9,.]", "", text)) is not None)
    parts, start = [], 0
    for place in commas:
        if not (grouped and _groups_digits(text, place)):
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")


def bracketed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) where one pair of brackets holds the whole text."""
    every = tokens(text)
    if len(every) < 2 or every[0][0] not in ("(", "[", r"\{") or every[-1][0] not in (")", "]", r"\}"):
        return None
    if every[-1][2] != 0 or any(depth <= 0 for _, _, depth in every[1:-1]):
        return None
    opens, closes = every[0][0], every[-1][0]
    return opens, text[len(opens) : every[-1][1]].strip(), closes


def cut_at(text: str, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Parts of a text outside brackets, and the tokens among `names` that stand between them."""
    parts, signs, start = [], [], 0
    for token, place, depth in tokens(text):
        if depth == 0 and token in names:
            parts.append(text[start:place].strip())
            signs.append(token)
            start = place + len(token)
    return [*parts, text[start:].strip()], signs


# Words and units.

_NAMES = """
sin cos tan cot sec csc log ln lg exp sqrt arcsin arccos arctan sinh cosh tanh min max gcd lcm det asin acos atan binom
frac tbinom dbinom
"""
FUNCTIONS = frozenset(_NAMES.split())
_SHORT_WORDS = frozenset(["no", "on", "or"])
_WRITTEN_UNITS = "cm mm km μm µm kg mg μg µg ft yd mi hr ml oz lb in sq mph kph kmh khz mhz kpa kwh"
_UNITS = frozenset(_WRITTEN_UNITS.split())
_CAPITAL_UNITS = frozenset(["Hz", "Pa", "kW", "MW", "kJ", "kV", "kΩ"])  # in small letters they may be unknowns
_LETTERS = frozenset("msghlLtAVWJNKCFΩ")  # units only beside another one: `m/s`
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_RUN = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_EXPONENT = r"(?:\s*\^\s*(?:\{\s*-?[0-9]+\s*\}|-?[0-9])|[23])?"
_WORDS_BEHIND = re.compile(rf"(?<=[\s0-9)}}\]])((?:[A-Za-zμµΩ]+\.?{_EXPONENT}(?:[\s/.,-]|\\cdot(?![A-Za-z]))*)+)\Z")
_TEXT_BEFORE = re.compile(r"\A\\text\{[^{}0-9\\]*[A-Za-z][^{}0-9\\]*[\s:]\}\s*(?=[-+0-9\\(\[.])")
_WORDS_BEFORE = re.compile(r"\A(?:[A-Za-z]{2,}[\s:]+)+(?=[-+0-9\\(\[.])")


def _is_word(run: str) -> bool:
    run = run.lower()
    return run not in FUNCTIONS and (len(run) >= 3 or run in _SHORT_WORDS) and run not in ("pi", "inf")


def words(text: str) -> str | None:
    """The words of an answer that holds nothing else, in small letters; None for anything else."""
    bare = _TEXT.sub(r" \1 ", text)
    if re.search(r"[0-9\\=<>^_+*/|]|(?<![^\W\d_]{2})-|-(?![^\W\d_]{2})", bare) or not re.search(r"[^\W\d_]", bare):
        return None
    found = re.findall(r"[^\W\d_][\w'’-]*", bare)
    spoken = any(_is_word(word) or not word.isascii() or len(word) > 2 for word in found)
    if not spoken or any(word.lower() in FUNCTIONS for word in found):
        return None
    return " ".join(found).casefold()


def without_units(text: str) -> str:
    """A value without the words and units around it; the text itself where nothing would be left."""
    text = _TEXT_BEFORE.sub("", text)
    spoken = _TEXT.sub(lambda match: match[0] if re.search(r"[0-9\\]", match[1]) else f" {match[1]} ", text)
    in_text = " ".join(match[1] for match in _TEXT.finditer(text))
    spoken = _TEXT.sub(r" \1 ", spoken).strip()

    def drop(match: re.Match[str]) -> str:
        runs = re.findall(r"[A-Za-zμµΩ]+", match[1].replace("\\cdot", " "))
        units = {run for run in runs if run.lower() in _UNITS or run in _CAPITAL_UNITS}
        if units or "/" in match[1]:
            units |= _LETTERS
        return "" if all(run in in_text or run in units or _is_word(run) for run in runs) else match[0]

    rest = _WORDS_BEHIND.sub(drop, spoken)
    rest = _WORDS_BEFORE.sub(
        lambda match: "" if all(map(_is_word, match[0].replace(":", " ").split())) else match[0], rest
    )
    rest = rest.rstrip(" .,:").lstrip(" ,:")
    return rest if re.search(r"[0-9A-Za-z\\]", rest) else text


# What a parser of LaTeX reads.

_SHORT = r"[0-9A-Za-z]|\\(?:pi|alpha|beta|theta|lambda|phi)(?![A-Za-z])"
_PARSED = [
    (re.compile(pattern), put)
    for pattern, put in (
        (r"\\(?:tbinom|dbinom)", r"\\binom"),
        (r"\\sqrt\s*([0-9A-Za-z])(?![0-9]*\.)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*(\[[^\]]*\])\s*([0-9A-Za-z])", r"\\sqrt\1{\2}"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*\[([0-9]*[13579])\]\s*\{\s*-\s*([0-9.]+)\s*\}", r"(-\\sqrt[\1]{\2})"),
        (r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (rf"\\(frac|binom)\s*({_SHORT})\s*", r"\\\1{\2}"),
        (rf"(\\(?:frac|binom)\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}})\s*({_SHORT})", r"\1{\2}"),
        (r"\^\s*\(([^()]*)\)", r"^{(\1)}"),
        (r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan)(?![A-Za-z])", r"\\\1 "),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<=[0-9])(?:,|\{,\})(?=[0-9]{3}(?![0-9]))", ""),
        (r"(?<![0-9. ])([0-9]{1,3}) ([0-9]{3})(?![0-9]| [0-9])", r"\1\2"),
        (r"\*", r"\\cdot "),
    )
]
_MIXED = re.compile(r"(?<![0-9A-Za-z.}^_])([0-9]+)\s*\\frac\s*\{([0-9]+)\}\s*\{([0-9]+)\}")
_DECIMAL = re.compile(r"(?<![0-9.])([0-9]*)\.([0-9]+)(?![0-9.])")
_REPEATING = re.compile(r"([0-9]*)\.([0-9]*)\\(?:overline|bar)\s*(?:\{([0-9]+)\}|([0-9]))")


def _repeating(match: re.Match[str]) -> str:
    whole, start, again = match[1] or "0", match[2], match[3] or match[4]
    top = int(whole + start + again) - int(whole + start)
    return rf"\frac{{{top}}}{{{'9' * len(again)}{'0' * len(start)}}}"


def _fraction(match: re.Match[str]) -> str:
    # A parser would make a float of 15 digits of it.
    return rf"\frac{{{int((match[1] or '0') + match[2])}}}{{1{'0' * len(match[2])}}}"


_BRACED = r"\{(?:[^{}]|\{[^{}]*\})*\}"
# Of two whole numbers side by side a parser would make a mixed number: `(9)(8)` would be 17.
_SIDE_BY_SIDE = re.compile(
    rf"((?:\\frac|\\binom){_BRACED}{_BRACED}|(?<![_^])[0-9](?![0-9])|\))\s*"
    r"(?=\(|\\(?:frac|binom|sqrt|lfloor|lceil|log|ln|exp|max|min|gcd|lcm)(?![A-Za-z])|(?<=[)}])\s*[0-9])"
)


_CALCULUS = re.compile(r"\\int|\\frac\s*\{\s*d|\\partial")
_D = re.compile(r"(?<![\\A-Za-z{])(?:d[A-Za-ce-z]?|[A-Za-ce-z]d)(?![A-Za-z])|(?<=\{)d(?=\})")


def _mixed(match: re.Match[str]) -> str:
    whole, above, below = map(int, match.groups())
    return rf"\frac{{{whole * below + above}}}{{{below}}}" if above < below else match[0]


def parsable(text: str) -> str:
    """An expression as a parser of LaTeX reads it: exact decimals, braces, and words as single symbols."""
    text = _REPEATING.sub(_repeating, text)
    for pattern, put in _PARSED:
        text = pattern.sub(put, text)
    text = _SIDE_BY_SIDE.sub(r"\1\\cdot ", _MIXED.sub(_mixed, _DECIMAL.sub(_fraction, text)))
    if not _CALCULUS.search(text):  # there a parser takes `d` for a differential
        text = _D.sub(lambda match: match[0].replace("d", r"\delta "), text)
    text = _TEXT.sub(lambda match: rf"\text{{{''.join(match[1].split()).lower()}}}", text)
    return _RUN.sub(lambda match: rf"\text{{{match[0].lower()}}}" if _is_word(match[0]) else match[0], text)
