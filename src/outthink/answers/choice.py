r"""Choices: the letter, A to J, that a text decides on.

Knows how letters are written (`(b)`, `**B**`, `\text{(B)}`, full-width, circled, beside Chinese), what is no letter
(`A dog`, `25 °C`), and where a text concludes. Does not know what the options say.

A text becomes a string with one mark for each word, and every run of joined letters is judged by the marks around it.
Phrases of English and some other languages help; a letter behind a colon, at the end, or the only one needs none.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from outthink.answers.choice_words import WORDS, mark, marked_phrases
from outthink.answers.reading import UNREADABLE, Reading, closing, told

# How letters are spelled.

_LETTERS = "ABCDEFGHIJ"
_CIRCLED = (0x24B6, 0x24D0, 0x1F150, 0x1F170, 0x1F1E6)
_STYLED = (*range(0xFF01, 0xFF5F), *range(0x249C, 0x24B6), *range(0x1F110, 0x1F14A), *range(0x1D400, 0x1D6A4))
# Joiners and direction marks stand unseen between a colon and its letter.
_UNSEEN = (0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFE0E, 0xFE0F, 0xFEFF)
_PLAIN: dict[int, str] = {
    **{code: unicodedata.normalize("NFKC", chr(code)) for code in _STYLED},
    **{first + place: letter for first in _CIRCLED for place, letter in enumerate(_LETTERS)},
    **dict.fromkeys(_UNSEEN, ""),
}
# Letters of scripts in which a Latin letter may be part of a word; beside all others it stands alone.
_ALPHA = r"A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u052f\u1e00-\u1fff"
_W = rf"{_ALPHA}0-9_\u00b2\u00b3\u00b9\u0300-\u036f\u2032\u2070-\u209c"
_HYPHEN = r"\-\u2010\u2011"
_ALONE = (
    rf"(?![{_W}^])(?![{_HYPHEN}][{_W}])(?!['’](?:s|d|m|t|ll|re|ve)(?![{_W}]))"
    rf"(?!(?<=[CDJcdj])['’][aeiouhéèêàâ][{_W}])(?!\+\+|\#)(?!\.[A-Za-z](?![A-Za-z]))(?!/[K-Z])(?!–[A-J](?![A-Za-z]))"
    r"(?!\([A-Za-z0-9.,]{1,5}\))(?![ ]?[⊃∨∧∩∪⊂≡∈×≤≥]|[ ]<[ ])"
)
_TICKED = re.compile(r"^[ \t]*(?:[-*+][ \t]+)?\[([ xX])\]", re.MULTILINE)
_STRUCK = re.compile(r"(?<!~)~~(?!~)[^~\n]{1,200}~~(?!~)")
_UNDERLINE = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
_TAG = re.compile(r"<(/?)([^\W\d_][\w-]{0,30})[^<>\n]{0,80}>|\[(/?)([A-Z]{3,12})\]")
_INLINE = re.compile(r"[abiu]|em|strong|span|mark|code|small|su[bp]|font|tt|kbd")
_BLOCK = re.compile(r"p|div|[bht]r|li|[uo]l|t[dh]|table|tbody|pre|h[1-6]|html|body|center")
_FORMULA = re.compile(r"\$([^$\n]+)\$|\\\(((?:[^\\\n]|\\(?![()]))+)\\\)|\\\[((?:[^\\]|\\(?![\[\]]))+)\\\]")
_OPTION = re.compile(r"[\s({]*[A-Ja-j]\s*(?:[).:,;}].*)?|.*(?:box|\\text|\\math)", re.DOTALL)
_ARROW = re.compile(r"\s*\\(?:[Ll]ong)?(?:[Rr]ightarrow|implies|to|therefore)\s*")
_QUANTITY = re.compile(r"[0-9}](?:\s|\\[,;:! ])*\Z|\\circ")  # a unit may stand behind it
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")


def _without_formula(match: re.Match[str]) -> str:
    """A formula as it is where it holds an option (`$B$`) or is none (`$5 and A for $6`), else a word for it."""
    inner = match[match.lastindex or 0]
    if _ARROW.fullmatch(inner):
        return " → "
    if _OPTION.match(inner) or _PROSE.search(inner):
        return match.group()
    return " 0 " if _QUANTITY.search(inner) else " 0x "


def _untagged(match: re.Match[str]) -> str:
    """What a tag means: nothing, a new line, or (`<answer>`) a colon before its content."""
    name = (match[2] or match[4]).lower()
    if match[0][1:-1] in tuple(_LETTERS) and match.string.find(f"</{match[2]}>", match.end(), match.end() + 400) < 0:
        return f" {match[2]} "
    if _INLINE.fullmatch(name):
        return ""
    return "\n" if _BLOCK.fullmatch(name) or match[1] or match[3] else f"\n{name}: "


_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7ff\uf900-\ufaff"
_KNOWN = sorted((word for word in WORDS if re.match(rf"[{_UNSPACED}]|\W", word)), key=len, reverse=True)
_TOKEN = re.compile(
    rf"""
      (?P<word>[{_W}]{{2,}}(?:['’{_HYPHEN}][{_W}]+)*)
    | (?P<line>\n)
    | (?P<letter>[A-J]{_ALONE}(?![ ]?=[^>]))
    | (?P<small>[a-j]{_ALONE}(?![ ]?=[^>]))
    | (?P<short>[{_W}](?:['’{_HYPHEN}][{_W}]+)*)
    | (?P<stop>[!?。…]+|\.+(?![0-9]))
    | (?P<comma>[,、،/&+・･])
    | (?P<colon>:|=>?|->|[→⇒])
    | (?P<bracket>[(\[]\s?[A-Ja-j]\s?[)\]])
    | (?P<half>[;؛])
    | (?P<dash>[-–—])
    | (?P<aside>\()
    | \\[A-Za-z]+
    | (?P<hash>\#{{4}}(?=[^\n#]{{1,80}}\Z))
    | (?P<known>{"|".join(map(re.escape, _KNOWN))}|[{_UNSPACED}]|[^\W{_W}{_UNSPACED}]+)
    """,
    re.VERBOSE,
)
_SIGNS = {"line": "|", "stop": ".", "colon": ":", "hash": "S", "comma": ",", "half": ";", "dash": "-", "aside": "u"}
_FOLLOWED = re.compile(
    rf"[ \xa0]+[*`\"'“‘]{{0,3}}(as\s+well|rather\s+than|[0-9][^\s]{{0,12}}[ ][{_ALPHA}]{{3}}"
    rf"|(?:would|must|should|could|may|might|will)\s+be|[{_ALPHA}][{_W}'’{_HYPHEN}]*)"
)
# `A sowie B`
_AND_A_LETTER = re.compile(rf"(?:[ ]+[{_ALPHA}]+){{1,2}}[ ]+[(*]{{0,3}}[B-J][).*!]{{0,4}}[ ]*(?:\n|\Z)")
# Words with which even an opening `A` is a letter: `is`, and others that stand behind no article.
_VERBS = frozenset((
    "because", "since", "but", "although", "whereas", "then", "fits", "matches", "does", "has", "it", "to", "through",
    "only", "alone",
))  # fmt: skip
_QUOTES = "\"'“‘«「『"
_AROUND = f" \t\n\xa0*_`#>({{[\\$-•{_QUOTES}"
_SENTENCE_END = re.compile(r"[.!?。…]\Z|\d\)\Z")
_OPTION_LABEL = re.compile(r"(?:\A|\n)[^\w\n]{0,6}[A-J]\*{0,2}[).:]\*{0,2}\Z")
_ROMAN = re.compile(r"(?<![A-Za-z])(?:II|III|IV|ii|iii|iv)(?![A-Za-z])")
# No option: `e.g`, `f(A)`, `R. G.`, `25 °C`, `vitamin C`, `¬A`, and the initial of a name.
_PART = re.compile(
    rf"(?:(?<![{_W}])(?:[A-Za-z][.(]|[K-Z]\.[ ]|[K-Z]/|[A-J]–)|[0-9][ ]?°?[ ]?|[⊃∨∧∩∪⊂≡∈×≤≥¬∀∃][ ]?|(?<![{_W})])~"
    r"|\b(?i:vitamins?|hepatitis|influenza)[ ])\Z"
)
_NUMBERED = re.compile(r"\b(?i:article|section|type|war|part|phase|class|chapter|volume|act|title|stage|group)[ ]\Z")
_LISTED = re.compile(r"[).:][ ]?[^\sA-Z]")
_INITIAL = re.compile(r"([A-Z][a-z]+)[ ]\Z")
_SURNAME = re.compile(r"\.[ ][A-Z][a-z]")
_SAID = re.compile(r"(?:a[^.|L]{0,14}[bp:]|[ov:]|v[to]{0,2}|a[o:]{0,2}|c[,:]?|S|L\)?[,;j]{1,2}o?)[|t]{0,2}\Z")
_IT_IS = re.compile(r"i{1,2}bt?\Z")
_LINE_END = re.compile(r"[ \t*)\].:\"'”’`$}]*(?:\n|\Z)")


def _opens(text: str, start: int) -> bool:
    """Whether what stands at `start` opens a sentence, a line or a quotation."""
    before = text[max(0, start - 24) : start]
    rest = before.rstrip(_AROUND)
    if not rest or "\n" in before[len(rest) :] or before[-1] in _QUOTES or _OPTION_LABEL.search(rest):
        return True
    return _SENTENCE_END.search(rest) is not None


def _is_letter(text: str, match: re.Match[str]) -> bool:
    """Whether a lone capital is an option's letter: no article, pronoun, unit or initial of a name."""
    start, end = match.span()
    before = text[max(0, start - 16) : start]
    if _PART.search(before) and not (before[-1:] in " 0123456789" and _LISTED.match(text, end)):
        return False
    name = _INITIAL.search(before)
    if name is not None and name[1].lower() not in WORDS and _SURNAME.match(text, end):
        return False
    follows = _FOLLOWED.match(text, end) if match.group() in "AI" else None
    if match.group() == "I":
        return follows is None and not _NUMBERED.search(before)
    if follows is None:
        return True
    word = follows[1]
    verb = word in _LETTERS or word in _VERBS or (" " in word and not word[0].isdigit())
    joined = _AND_A_LETTER.match(text, end) is not None
    return verb or joined or mark(word) in tuple("bpnjA") or not _opens(text, start)


def _is_small_letter(text: str, match: re.Match[str], marks: str) -> bool:
    """Whether a lone small letter is an option's: alone in its line, marked as in a list, or asked for before."""
    ends = _LINE_END.match(text, match.end()) is not None
    follows = _FOLLOWED.match(text, match.end()) if match.group() in "ai" else None
    if follows is not None and not (marks.endswith("o") and mark(follows[1]) in tuple("bxg")):
        return False
    if marks.endswith("|"):
        return ends or text[match.end()] in ").:"
    if _IT_IS.search(marks):
        return ends or text.startswith((".\n", ". "), match.end())
    return _SAID.search(marks) is not None and not text.endswith(("= ", "="), 0, match.start())


@dataclass(frozen=True, slots=True)
class _Marked:
    """A text as marks, the letter at each mark `L`, the places of bold ones, and letters of lists (`A) ... B) ...`)."""

    marks: str
    letters: dict[int, str]
    bold: set[int]
    listed: set[str]


def _marked(text: str) -> _Marked:
    """The marks of a text; `L` is a letter, `)` behind it says that it is written as options are."""
    roman = _ROMAN.search(text) is not None
    marks, letters, listed = "|", [], set()
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "word" or kind == "known" or kind == "short":
            marks += mark(match.group())
            continue
        letter = ""
        if kind == "letter":
            letter = match.group() if _is_letter(text, match) else ""
        elif kind == "bracket":
            function = _PART.search(text[max(0, match.start() - 2) : match.start() + 1])
            letter = "" if function else match.group()[1:-1].strip()
        elif kind == "small":
            letter = match.group() if _is_small_letter(text, match, marks[-24:]) else ""
        elif kind in _SIGNS:
            marks += "?" * ("?" in match.group()) + _SIGNS[kind]
            continue
        if not letter or (letter in "Ii" and roman):
            marks += "" if kind is None else mark(match.group())
            continue
        letters.append((letter.upper(), text.endswith(("**", "**("), 0, match.start())))
        in_list = kind != "bracket" and text.startswith(")", match.end())
        marks += "L)" if kind == "bracket" or in_list else "L"
        listed |= {letter.upper()} if in_list else set()
    marks = marked_phrases(marks + "|")
    found = [(place.start(), *letter) for place, letter in zip(re.finditer("L", marks), letters, strict=True)]
    bold = {place for place, _, is_bold in found if is_bold}
    return _Marked(marks, {place: letter for place, letter, _ in found}, bold, listed)


# What the marks before and behind a run of letters say of it. Slices of bounded length keep this linear.

_RUN = re.compile(r"L\)?(?:(?:,?j,?h|--?|[,;jto]{0,4})[to]{0,2}L\)?)*")
_AGAINST = re.compile(r"(?:[nz][tobgpif]{0,3}|z[toiln,]{0,12})\Z")
_REFUTED = re.compile(r"(?:[bpthico]{0,4}|\?\.)(?:x|n(?![tobgpif]{0,3}L))")
_HEAD = re.compile(r"[|.][to]{0,2}\Z")
_REFUTED_HEAD = re.compile(r"[.:-]{1,2}t?x|[:-]n(?![tobgpif]{0,3}L)")
_STATED = re.compile(r"(?:a[otgwvi]{0,14}[bp:]+|a[o:-]{0,3}|S)\|{0,3}[^.|Lr]{0,30}\Z")
# `<answer>A</answer> and <answer>B</answer>`, `A, or it is B`
_AND_STATED, _AND_ANOTHER = re.compile(r"L\)?\|{0,3}[,;j]{1,2}\|{0,3}a:\Z"), re.compile(r"L\)?,?j,?[ibth]{1,4}\Z")
_CHOSEN = re.compile(r"(?:v[tog]{0,4}|k[,.:|-]{0,3}[thoib]{0,4}[,:]?|(?<!b)[gf][owg]{0,2}[bp:]+\|{0,2}[to]{0,3})\Z")
_IS_ANSWER = re.compile(r"b[tifg]{0,4}(?:a|g{1,2}o)")
_IS_RIGHT = re.compile(r"(?:o?b[tifoc]{0,4}|o|\?\.)?g|ib[.|,;]")
_TEXT_IS_RIGHT = re.compile(r"u?[wt]{1,8}b[tifoc]{0,4}[ga]")
_CONCLUDED = re.compile(r"(?:c[,;:]?|i{1,3}b)[tofi]{0,3}\Z")
_OFFERED = re.compile(r"(?:\A\||:\|?)[to]{0,2}\Z")
_ENDS = re.compile(r"[|.r-]|[,;](?![jto]{0,3}L)|u[tj]{0,2}L")
_LABELLED, _LABEL_ENDS = re.compile(r":\|{0,2}[tofi]{0,3}\Z"), re.compile(r"\.?\||[,;r]")
_DOUBTED = re.compile(r"h[^.|;rcL]{0,30}\Z")
_SUPPOSED, _EXCEPTED = re.compile(r"q[^.|;,rcL]{0,30}\Z"), re.compile(r"e[to]{0,3}\Z")
_OR_ANOTHER = re.compile(r"(?:,?j,?[ibth]{1,4}|\|{1,2}j\|{0,2})L(?![bpthic]{0,4}[xn])|,?[wto]{1,3}L\.?\|")
_NONE_OF, _OPTION_TEXT = re.compile(r"z[to]{0,3}\Z"), re.compile(r"L\)(?=t?L(?:[,;jt]+L)+\Z)")
_CLAUSE, _GIVEN = re.compile(r",j"), re.compile(r"[bvc:][to]{0,3}\Z")
_ALONE_BEFORE, _ALONE_BEHIND = re.compile(r"\|[to]{0,2}\Z"), re.compile(r"[.:]?\|")
_VERDICT = re.compile(r"[|.,;][-to]{0,3}(L)(?:[^L|]{0,60}[-:.u])?[itw]{0,4}b?t{0,2}([gJxN])[.,]{0,2}(?=[|u;L-])")
_LAST = re.compile(r"(?<!L)(?<!L\))[|.][^L|.]{0,60}\Z")
_NO_OPTION = re.compile(r"(?:a[otgwvi]{0,14}[bp:]+|c[,:]?|((?<![L)])[|.]))[thib]{0,3}[yz](?![^.|]{0,20}L)")


@dataclass(slots=True)
class _Found:
    """What a text says of letters: where its firm and its lesser conclusions are, the last one of each."""

    firm: tuple[int, str, str] = (-1, "", "")
    lesser: tuple[int, str] = (-1, "")
    named: set[str] = field(default_factory=set)
    right: set[str] = field(default_factory=set)
    heads: set[str] = field(default_factory=set)
    offered: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    bold: set[str] = field(default_factory=set)
    last: str = ""
    texts: set[str] = field(default_factory=set)  # refuted, unless what refutes them is the option itself
    latest: int = -1  # where the last run began


def _pieces(marks: str, start: int, end: int) -> list[tuple[int, int]]:
    """A run of letters, its end apart where a verb speaks of that alone: `so C, A is wrong`, `B, and A is wrong`."""
    run = marks[start:end]
    verb = marks[end : end + 1]
    half, comma = max(run.rfind(";"), run.rfind("-")), run.rfind(",")
    refuted = _REFUTED.match(marks[end : end + 12]) is not None
    many = "j" in run or "," in run
    front = marks[max(0, start - 12) : start]
    place = -1
    option = _OPTION_TEXT.match(run)
    if _NONE_OF.search(front):
        return [(start, end)]
    if option is not None:
        place = option.end() - 1
    elif half > 0 and (verb == "b" or (verb == "p" and many) or refuted or _AGAINST.search(front)):
        place = half
    elif comma > run.rfind("j") and ("j" in run or verb in tuple("bx")):
        place = comma
    elif refuted and (clause := _CLAUSE.search(run)) is not None and (verb == "b" or run.count("L", clause.end()) > 1):
        place = clause.end() - 1
    elif refuted and verb == "b" and _GIVEN.search(front):
        place = run.rfind("j")
    return [(start, end)] if place < 0 else [(start, start + place + (option is not None)), (start + place + 1, end)]


_FIRST, _LATEST = 8, 100  # runs that are judged, from both ends; the letters of others are only named


def _judge(marked: _Marked) -> _Found:
    found, marks = _Found(heads=set(marked.listed)), marked.marks
    seen, runs = list(marks), list(_RUN.finditer(marks))
    for run in runs[_FIRST:-_LATEST]:
        found.named |= {marked.letters[place] for place in range(*run.span()) if marks[place] == "L"}
    for run in runs[:_FIRST] + runs[_FIRST:][-_LATEST:]:
        for start, end in _pieces(marks, run.start(), run.end()):
            before, behind = "".join(seen[max(0, start - 64) : start]), marks[end : end + 12]
            places = [place for place in range(start, end) if marks[place] == "L"]
            letters = {marked.letters[place] for place in places}
            in_brackets = marks[end - 1] == ")"
            against = _AGAINST.search(before[-16:]) or _SUPPOSED.search(before[-32:])
            if against or _is_refuted(before, behind, in_brackets):
                for place in places:
                    seen[place] = "l"
                if not against and (in_brackets or behind[0] == "."):
                    found.texts |= letters
                continue
            _weigh(found, start, before, behind, letters, in_brackets)
            found.latest = start
            if len(letters) == 1 and places[0] in marked.bold:
                found.bold |= letters
            found.last = ""
            ends = not behind.strip("|.)y:") and len(marks) - end < 12
            if len(letters) == 1 and ends and not before.rstrip("|").endswith("j"):
                (letter,) = letters
                if _ALONE_BEFORE.search(before[-3:]):
                    found.lesser = (start, letter) if found.alone == letters else found.lesser
                elif _LAST.search(before) and not _DOUBTED.search(before[-32:]):
                    found.last = letter
    return found


def _is_refuted(before: str, behind: str, marked: bool) -> bool:
    """Whether what stands behind a run of letters speaks against them."""
    refuted = _REFUTED.match(behind)
    if (marked and behind[0] in "xnt") or (_HEAD.search(before[-3:]) and behind[0] in ".:-"):
        # What stands behind its label may be the option itself: `the answer is (B) False`.
        stated = _STATED.search(before) or _CHOSEN.search(before[-12:])
        refuted = None if stated else refuted or _REFUTED_HEAD.match(behind)
    return refuted is not None and not _EXCEPTED.search(before[-4:])


def _is_another(found: _Found, before: str) -> bool:
    """Whether a letter is added to the one before it."""
    stated = found.firm[0] >= 0 and found.firm[0] == found.latest and _AND_STATED.search(before)
    return bool(stated or _AND_ANOTHER.search(before))


def _weigh(found: _Found, start: int, before: str, behind: str, letters: set[str], marked: bool) -> None:
    """Enter one run of letters, none of them refuted; several are an empty letter."""
    letter = next(iter(letters)) if len(letters) == 1 else ""
    near = before[-12:]
    right = _IS_RIGHT.match(behind) is not None or (
        (marked or behind[0] == "u") and _TEXT_IS_RIGHT.match(behind) is not None
    )
    asked = behind[0] == "?" and not right
    doubted = asked or _DOUBTED.search(before[-32:]) is not None
    if not asked:
        found.named |= letters
    if letter and _HEAD.search(near) and (marked or behind[0] in ".:-|"):
        found.heads |= letters
    if _ALONE_BEFORE.search(near) and _ALONE_BEHIND.match(behind):
        found.alone |= letters
    if _OR_ANOTHER.match(behind) or (letter != found.firm[1] and _is_another(found, before)):
        letter = ""
    if _STATED.search(before) or (_IS_ANSWER.match(behind) and not doubted):
        found.firm = (start, letter, "answer-is")
    elif doubted:
        return
    elif _CHOSEN.search(near):
        found.firm = (start, letter, "letter")
    elif (
        (_CONCLUDED.search(near) and (_ENDS.match(behind) or right))
        or _EXCEPTED.search(near)
        or (letter and _LABELLED.search(near) and _LABEL_ENDS.match(behind))
    ):
        found.lesser = (start, letter)
    elif right:
        found.right |= letters
        found.lesser = (start, letter if found.right == letters else "")
    elif letter and _OFFERED.search(near) and (marked or behind[0] == ":" or _ENDS.match(behind)):
        found.offered.add(letter)


def _decided(text: str) -> tuple[str, str] | None:
    """The letter that a text decides on and the rule that found it; an empty letter in doubt, None without a letter."""
    marked = _marked(text)
    if not marked.letters:
        return None
    found = _judge(marked)
    named = max(marked.letters)
    none = max(
        (no.end() for no in _NO_OPTION.finditer(marked.marks) if no[1] is None or no.end() > named),
        default=-1,
    )
    if none > max(found.firm[0], found.lesser[0]):
        return "", "none"
    if found.firm[0] >= 0 and (found.firm[1] or found.lesser[0] < found.firm[0]):
        return found.firm[1:]
    if found.lesser[0] >= 0:
        return found.lesser[1], "letter"
    offered = found.offered if len(found.heads) < 2 else set()
    if len(found.texts) == 1 and len(found.named) < 2:  # `B. False`; of `A) True B) False` none is said to be right
        found.named |= found.texts
    for letters in (_verdicts(marked), found.named, found.alone, offered, found.bold, {found.last}):
        if len(letters) == 1:
            return next(iter(letters)), "letter"
    return "", "none"


def _verdicts(marked: _Marked) -> set[str]:
    """The letter whose line ends in a verdict for it, where those of at least two others end in one against them."""
    lines = list(_VERDICT.finditer(marked.marks))
    right = {marked.letters[line.start(1)] for line in lines if line[2] in "gJ"}
    return right if len(lines) > 2 and len(right) == 1 else set()


_JOINED = re.compile(r"\|[,;jto]*\|")
_OPEN = re.compile(r"\\(?:boxed|fbox)\s*\{")


def _last_boxes(text: str) -> list[str]:
    """What the last complete box holds, and the boxes joined with it: `\\boxed{A} and \\boxed{B}`."""
    boxes: list[str] = []
    follows = end = len(text)
    for match in reversed(list(_OPEN.finditer(text))):
        stop = closing(text, match.end(), end)
        end = match.start()
        if stop is None:
            continue
        if boxes and not _JOINED.fullmatch(_marked(text[stop + 1 : follows][:41]).marks):
            break
        boxes.append(text[match.end() : stop])
        follows = match.start()
    return boxes


def read_choice(text: str) -> Reading:
    """Read a choice: boxed, stated, else the letter that the text concludes with, opens with or alone names."""
    if not text.isascii():
        text = text.translate(_PLAIN)
    if "$" in text or "\\" in text:
        text = _FORMULA.sub(_without_formula, text)
    if "<" in text or "[" in text:
        text = _TICKED.sub(lambda box: "❌" if box[1] == " " else "✅", text)
        text = _TAG.sub(_untagged, text)
    if "~~" in text:
        text = _STRUCK.sub(" ", text)
    text = _UNDERLINE.sub(" ", text).strip()
    boxes = [decided for box in _last_boxes(text) if (decided := _decided(box.strip())) is not None]
    if boxes:
        letters = {letter for letter, _ in boxes}
        return told(letters.pop(), "boxed") if len(letters) == 1 else UNREADABLE
    return told(*(_decided(text) or ("", "none")))
