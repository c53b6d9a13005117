"""Secrets that a server writes in pieces, an event each: what a client puts together holds none.

Knows: which values of events belong to one text, by their name and the place in their event. What could begin a secret
waits for the next piece of its text; its event does not, and what turns out honest is not lost. Does not know which
fields there are, or in which forms a secret is looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

_LEAST = 4
"""Letters that a text and a secret have in common before anything waits."""
_TELLING = 8
"""Letters, and half of a secret: so much of one is not told at the end of a text either."""
_MOST = 256
"""Texts of a reply that are followed at once."""
_FIELD = re.compile(rb'"([^"\\]{1,64})"\s*:\s*(?:(?:\[\s*)?"((?:[^"\\]|\\.)*)"|(\d+))')
_LAST = re.compile(
    rb'"finish_reason"\s*:\s*"|\Adata:\s*\[DONE\]'
    rb'|(?:\Aevent:\s*|"type"\s*:\s*")[\w.]*\b(?:done|completed|incomplete|failed)\b'
)
"""A text ends with this line."""
_USUAL = (b"content", b"text", b"reasoning_content", b"reasoning", b"delta", b"arguments")
"""What most events differ in."""

_TOPS = re.compile(rb'"top_logprobs"\s*:\s*\[(?:[^\[\]"]|"(?:[^"\\]|\\.)*"|\[[^\]]*\])*\]')
_BYTES = re.compile(rb'"bytes"\s*:\s*\[[\d,\s]*\]')
"""A token's other form."""

_Path = tuple[bytes, bytes, bytes]
"""A text's name, and the numbers of its choice and of its part."""


class _Held(NamedTuple):
    """What waits for more of its text, and the line that it was taken from, up to it and behind it."""

    text: bytes
    before: bytes
    after: bytes


class _Tops:
    """The alternatives of the tokens in a line: those of one rank are a text of their own."""

    def __init__(self, line: bytes) -> None:
        self._spans = [match.span() for match in _TOPS.finditer(line)] if b'"top_logprobs"' in line else []
        self._ranks: dict[int, int] = {}

    def name(self, field: re.Match[bytes]) -> bytes:
        """The name of a text's path."""
        for begin, end in self._spans:
            if begin < field.start() < end:
                self._ranks[begin] = self._ranks.get(begin, 0) + 1
                return b"%s %d" % (field[1], self._ranks[begin])
        return field[1]


class SecretForms:
    """Secrets as they are looked for, prepared for any number of replies.

    Args:
        mask: what stands for one.
    """

    def __init__(self, secrets: Iterable[bytes], mask: bytes) -> None:
        self.secrets, self.mask = sorted(set(secrets), key=len, reverse=True), mask
        self.whole = re.compile(b"|".join(map(re.escape, self.secrets)))
        self.starts = re.compile(b"|".join({re.escape(secret[:_LEAST]) for secret in self.secrets}))

    def begun(self, text: bytes) -> tuple[int, bool]:
        """Letters at the end of a text that could begin a secret, and whether they are too many to be told."""
        for secret in self.secrets:
            for length in range(min(len(secret) - 1, len(text)), _LEAST - 1, -1):
                if text.endswith(secret[:length]):
                    return length, length >= _TELLING and 2 * length >= len(secret)
        return 0, False


class SecretJoints:
    """Reads the events of one reply, and takes out the secrets that its texts make up."""

    def __init__(self, forms: SecretForms) -> None:
        self._forms = forms
        self._shown: dict[_Path, bytes] = {}  # the last letters of each text
        self._held: dict[_Path, _Held] = {}
        self._like: tuple[bytes, bytes, _Path] | None = None  # both ends of a line that differs in one text alone

    def lines(self, content: bytes) -> bytes:
        """Whole lines without the secrets that end in them."""
        lines, changed = content.splitlines(keepends=True), False
        for at, line in enumerate(lines):
            if line == b"\n":
                continue
            if (like := self._like) is not None and line.startswith(like[0]) and line.endswith(like[1]):
                text = line[len(like[0]) : -len(like[1])]
                if b'"' not in text and text[-1:] != b"\\" and not self._suspect(like[2], _read(text)):
                    continue
            if (masked := self._line(line)) != line:
                lines[at], changed = masked, True
        return b"".join(lines) if changed else content

    def close(self) -> bytes:
        """What still waits when the reply ends, as events."""
        return self._let_go()

    def _line(self, line: bytes) -> bytes:
        if not line.startswith((b"data:", b"event:")):
            return line
        last = _LAST.search(line) is not None
        choice, masked = b"", b""
        if line.startswith(b"data:"):
            choice, masked = self._values(line, last=last)
        return self._let_go(choice) + masked if last and self._held else masked or line

    def _values(self, line: bytes, *, last: bool) -> tuple[bytes, bytes]:
        """The number of an event's choice, and its line without secrets."""
        fields = list(_FIELD.finditer(line))
        numbers = [field[3] for field in fields if field[3] is not None and field[1].endswith(b"index")]
        choice = part = numbers[0] if numbers else b""
        written, at, tops, spelled = b"", 0, _Tops(line), False
        self._like = None
        for field in fields:
            name, raw, number = field.groups()
            if number is not None:
                part = number if name.endswith(b"index") else part
                continue
            path, text = (tops.name(field), choice, part), _read(raw)
            if not self._suspect(path, text):
                if name in _USUAL and not last:
                    self._like = line[: field.start(2)], line[field.end(2) :], path
                continue
            shown, held = self._without(path, text, last=last)
            if held:
                self._held[path] = _Held(held, line[: field.start(2)], line[field.end(2) :])
            if shown != text:
                spelled = spelled or b"token" in path[0]
                written, at = written + line[at : field.start(2)] + _write(shown), field.end(2)
        rest = written + line[at:]
        if spelled:
            rest = _BYTES.sub(b'"bytes": null', rest)
            rest = _TOPS.sub(b'"top_logprobs": []', rest) if b'"tokens"' in rest else rest
        return choice, rest

    def _suspect(self, path: _Path, text: bytes) -> bool:
        """Whether the text up to here may hold a secret or begin one; else this is noted as shown."""
        joined = self._shown.get(path, b"") + text
        if self._forms.starts.search(joined) is not None or path in self._held:
            return True
        if len(self._shown) >= _MOST:
            self._shown.clear()
        self._shown[path] = joined[1 - _LEAST :]
        return False

    def _without(self, path: _Path, text: bytes, *, last: bool) -> tuple[bytes, bytes]:
        """What may be shown of a text and what waited for it, and what waits now."""
        forms, before = self._forms, self._shown.get(path, b"")
        joined, at, shown = before + (self._held.pop(path).text if path in self._held else b"") + text, len(before), b""
        for secret in forms.whole.finditer(joined):
            shown += joined[at : secret.start()] + forms.mask
            at = secret.end()
        begun, telling = forms.begun(joined[at if shown else 0 :])
        end = max(at, len(joined) - begun)
        held = joined[end:]
        shown += joined[at:end]
        if last:
            shown, held = shown + (forms.mask if telling else held), b""
        self._shown[path] = (before + shown)[1 - _LEAST :]
        return shown, held

    def _let_go(self, choice: bytes = b"") -> bytes:
        """What waits though its choice ends, in events like those that it was taken from; of all without a number."""
        events = b""
        for path in [path for path in self._held if choice in (b"", path[1])]:
            text, before, after = self._held.pop(path)
            _, telling = self._forms.begun(self._shown.get(path, b"") + text)
            events += before + _write(self._forms.mask if telling else text) + after.rstrip(b"\r\n") + b"\n\n"
        return events


def _read(raw: bytes) -> bytes:
    """The text behind a text of JSON; as it is where it is none."""
    if b"\\" not in raw:
        return raw
    try:
        return str(json.loads(b'"%s"' % raw)).encode("utf-8", "surrogatepass")
    except ValueError:
        return raw


def _write(text: bytes) -> bytes:
    return json.dumps(text.decode("utf-8", "replace"))[1:-1].encode()
