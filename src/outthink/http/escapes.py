"""How a text is written within another: escaped for JSON, a URL, HTML or a mail, in base64, base32 or in figures.

Knows the forms of a letter, and how a text is found in any mixture of them. Does not know what is looked for.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from html.entities import html5


def packed(raw: bytes) -> set[bytes]:
    """The letters that stand for a secret in hexadecimal, and in base64 wherever it begins there."""
    forms = {raw.hex().encode(), raw.hex().upper().encode()}
    return forms | _in_base(raw, base64.b64encode, 3, 6) | _in_base(raw, base64.urlsafe_b64encode, 3, 6)


def repacked(raw: bytes) -> set[bytes]:
    """Rarer letters for it: in base32, in base64 twice, as lists of its bytes, and in capitals."""
    numbers = [b"%d" % byte for byte in raw]
    forms = {raw.upper(), b",".join(numbers), b", ".join(numbers), raw.hex(":").encode()}
    twice = {
        again for once in _in_base(raw, base64.b64encode, 3, 6) for again in _in_base(once, base64.b64encode, 3, 6)
    }
    return (forms | twice | _in_base(raw, base64.b32encode, 5, 5)) - {raw}


def _in_base(raw: bytes, encode: Callable[[bytes], bytes], turns: int, bits: int) -> set[bytes]:
    """What stands for a secret in an encoding of so many bits a letter, alone or behind a user's name."""
    return {
        encode(b"\0" * before + raw)[-(-before * 8 // bits) : (before + len(raw)) * 8 // bits]
        for before in range(turns)
    }


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


def unescaped(content: bytes) -> bytes:
    """The text behind a text that may be escaped, once or several times."""
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
