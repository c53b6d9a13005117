"""How a text is written within another: escaped for JSON, a URL, HTML or a mail, in base64, base32 or in figures.

Knows the forms of a letter, how a text is found in any mixture of them, and in the elements of lists that hold a piece
each. Does not know what is looked for.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from html.entities import html5
from itertools import accumulate

from outthink.http.events import Json


def packed(raw: bytes) -> set[bytes]:
    """The letters that stand for a secret in hexadecimal, and in base64 wherever it begins there."""
    forms = {raw.hex().encode(), raw.hex().upper().encode()}
    return forms | _in_base(raw, base64.b64encode, 3, 6) | _in_base(raw, base64.urlsafe_b64encode, 3, 6)


def repacked(raw: bytes) -> set[bytes]:
    """Rarer letters for it: in base32, in base64 twice, in capitals, spaced, or byte by byte in figures."""
    numbers, pairs = [b"%d" % byte for byte in raw], [raw.hex(mark).encode() for mark in ": -"]
    forms = {raw.upper(), b" ".join(raw[at : at + 1] for at in range(len(raw)))}
    forms |= {mark.join(numbers) for mark in (b",", b", ", b" ")} | {*pairs, *map(bytes.upper, pairs)}
    forms |= {mark.join(b"0x%02x" % byte for byte in raw) for mark in (b",", b", ", b" ")}
    twice = {
        again for once in _in_base(raw, base64.b64encode, 3, 6) for again in _in_base(once, base64.b64encode, 3, 6)
    }
    thirty_two = _in_base(raw, base64.b32encode, 5, 5)
    return (forms | twice | thirty_two | {*map(bytes.lower, thirty_two)}) - {raw}


def _in_base(raw: bytes, encode: Callable[[bytes], bytes], turns: int, bits: int) -> set[bytes]:
    """What stands for a secret in an encoding of so many bits a letter, alone or behind a user's name."""
    return {
        encode(b"\0" * before + raw)[-(-before * 8 // bits) : (before + len(raw)) * 8 // bits]
        for before in range(turns)
    }


_PREFIX = re.compile("(?:[A-Za-z]{1,8}[-_]){1,2}")


def parts_of(secret: bytes) -> list[bytes]:
    """What can only be of a secret: all behind its prefix, and either half."""
    letters = secret.decode("utf-8", "surrogateescape")
    middle = (len(letters) + 1) // 2  # of letters: half of one would be left where it is masked
    prefix = _PREFIX.match(letters)
    bare = [letters[prefix.end() :]] if prefix is not None and prefix.end() < middle else []
    return [part.encode("utf-8", "surrogateescape") for part in (*bare, letters[:middle], letters[-middle:])]


def alone(words: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Words that stand alone."""
    found = [re.escape(word) for word in words]
    return re.compile(rb"(?<![\w-])(?:" + b"|".join(found) + rb")(?![\w-])") if found else None


_NAMED = {
    name[:-1]: letter.encode()
    for name, letter in html5.items()
    if name[-1] == ";" and letter.isascii() and len(letter) == 1
}
_ESCAPE = re.compile(
    rb"""\\{1,7}(?:(?:u00|x)([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(?=["'/\\]))|(?:%(?:25){0,4}|=)([0-9a-fA-F]{2})"""
    rb"""|&(?:amp;){0,3}#0{0,5}(\d{2,5});|&(?:amp;){0,3}#[xX]0{0,5}([0-9a-fA-F]{2,4});|&(?:amp;){0,3}("""
    + b"|".join(map(str.encode, _NAMED))
    + b");"
)
"""A letter as JSON, a URL or HTML (perhaps within another) or a mail writes it. Bounded, so that no text takes long."""


_FOREIGN = re.compile(rb"(?:\\u(?!00)[0-9a-fA-F]{4})+")
"""Letters beyond ASCII, as JSON in ASCII writes them: all of a text in Chinese, one after the other."""


def unescaped(content: bytes, *, foreign: bool = True) -> bytes:
    """The text behind a text that may be escaped, once or several times; without its `foreign` letters it is quick."""
    if not foreign and b"\\u" in content:
        content = _FOREIGN.sub(b"?", content)
    return _ESCAPE.sub(_letter_of, content)


def _letter_of(match: re.Match[bytes]) -> bytes:
    short, in_json, in_url, decimal, hexadecimal, name = match.groups()
    if in_url:
        return bytes([int(in_url, 16)])
    if name:
        return _NAMED[name.decode()]
    if not (short or in_json or decimal or hexadecimal):  # a backslash before a sign that does not need it
        return b""
    return chr(int(decimal) if decimal else int(short or in_json or hexadecimal, 16)).encode("utf-8", "surrogatepass")


def written(secrets: Iterable[bytes]) -> re.Pattern[bytes]:
    """Secrets of which any letter may be escaped. It is slow, and meant for texts that are known to hold one."""
    return re.compile(b"|".join(b"".join(map(_forms, secret.decode("utf-8", "replace"))) for secret in secrets))


def _forms(letter: str) -> bytes:
    raw, point = letter.encode("utf-8", "surrogateescape"), ord(letter)
    named = [b"&(?:amp;){0,3}%s;" % name.encode() for name, value in _NAMED.items() if value == raw]
    forms = [
        rb"\\{0,7}" + re.escape(raw),
        rb"\\{1,7}u(?i:%04x)" % point,
        *([rb"\\{1,7}x(?i:%02x)" % point] if point < 256 else []),
        b"".join(b"(?:%%(?:25){0,4}|=)(?i:%02x)" % byte for byte in raw),
        b"&(?:amp;){0,3}#0{0,5}%d;" % point,
        b"&(?:amp;){0,3}#[xX]0{0,5}(?i:%x);" % point,
        *named,
    ]
    return b"(?:" + b"|".join([*forms, rb"\+"] if letter == " " else forms) + b")"


# A text of which the elements of a list hold a piece each: parts of a message, tokens with their log-probabilities.

_LISTS = (b'"token', b'"type"')
"""In replies whose lists may spell something: names of their elements."""
_TOPS = "top_logprobs"
_BESIDE: dict[str, Json] = {"bytes": None, _TOPS: []}
"""Other forms of a token, and what stands there if it is not told."""


def without_spelled(content: bytes, secret: re.Pattern[bytes], mask: bytes) -> bytes:
    """A JSON reply in which no list spells a secret; as it came where none does."""
    if _LISTS[0] not in content and content.count(_LISTS[1]) < 2:
        return content
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError):
        return content
    waiting, found = [reply], False
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            waiting += here.values()
            if isinstance(tokens := here.get("tokens"), list) and _mask(tokens, secret, mask):
                here[_TOPS], found = [], True
        elif isinstance(here, list):
            found = _mask(here, secret, mask) or found
            waiting += here
    return json.dumps(reply).encode() if found else content


def _mask(items: list[Json], secret: re.Pattern[bytes], mask: bytes) -> bool:
    """Mask what the elements of a list spell by themselves or under one name; whether they did."""
    texts = [_text(item) for item in items]
    found = _masked(texts, secret, mask)
    for at in found:
        items[at] = texts[at].decode("utf-8", "replace")
    told = [item for item in items if isinstance(item, dict)]
    for name in {name for item in told for name, value in item.items() if isinstance(value, str) or name == "bytes"}:
        texts = [_text(item.get(name)) for item in told]
        for at in (more := _masked(texts, secret, mask)):
            told[at] |= {beside: nothing for beside, nothing in _BESIDE.items() if beside in told[at]}
            told[at][name] = texts[at].decode("utf-8", "replace") if name != "bytes" else None
        found |= more
    tops = [top for item in told if isinstance(top := item.get(_TOPS), list)]
    ranks = [[top[rank] for top in tops if rank < len(top)] for rank in range(max(map(len, tops), default=0))]
    return any([bool(found), *(_mask(rank, secret, mask) for rank in ranks)])


def _text(value: Json) -> bytes:
    """A text, or one that is written as its bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    figures = value if isinstance(value, list) else ()
    return bytes(each for each in figures if isinstance(each, int) and 0 <= each < 256)


def _masked(texts: list[bytes], secret: re.Pattern[bytes], mask: bytes) -> set[int]:
    """Take a secret out of texts that follow each other; the places of those that have changed."""
    ends, changed = [*accumulate(map(len, texts))], set()
    for match in reversed([*secret.finditer(b"".join(texts))]):  # so that what is before it keeps its place
        first, last = bisect_right(ends, match.start()), bisect_left(ends, match.end())
        for at in range(first, last + 1):
            begin = ends[at - 1] if at else 0
            kept = texts[at][: max(0, match.start() - begin)], texts[at][match.end() - begin :]
            texts[at] = kept[0] + (mask if at == first else b"") + (kept[1] if at == last else b"")
            changed.add(at)
    return changed
