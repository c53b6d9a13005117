"""Secrets that go out with a request, kept out of all that is said in return.

Knows: where a request carries secrets (its Authorization header, the query of its URL) and the forms in which servers
repeat them: as they are, escaped for JSON, URLs, HTML or mails, in base64 and the like. Does not know who reads them.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from urllib.parse import parse_qsl

from outthink.http.escapes import alone, packed, parts_of, repacked, unescaped, without_spelled, written
from outthink.http.joined import SecretForms, SecretJoints
from outthink.http.transport import Response, TransportFault

MASK = b"***"
_ANYWHERE, _MIXED, _ALONE, _IN_ERRORS = 8, 7, 5, 3
"""Letters from which a secret is masked within words, and so one that is no plain word or number; from which such a
one is masked where it stands alone, and any where errors are told."""
_PUBLIC = ("api-version", "api_version", "version")  # terms of a query that may well stand in an answer
_LONGEST_LINE, _LONGEST_OBJECT, _BRIEF = 1 << 16, 1 << 20, 1 << 15
_SPACE = b" \t\r\n\xef\xbb\xbf"


class SecretMask:
    """Masks secrets in texts, headers and bytes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = sorted({secret for secret in secrets if secret.strip()}, key=len, reverse=True)
        raw = [secret.encode("utf-8", "surrogateescape") for secret in known]
        long = [secret for secret in raw if len(secret) >= (_MIXED if _is_mixed(secret) else _ANYWHERE)]
        short = [secret for secret in raw if len(secret) >= _IN_ERRORS and secret not in long]
        # Halves too, where they are long enough to be nobody's word: events may cut a secret in two.
        halves = [half for secret in long if len(secret) >= 2 * _ANYWHERE for half in parts_of(secret)]
        forms = [form for secret in long for form in packed(secret)]
        self._plain = (*long, *halves, *forms)
        self._rare = {form for secret in long for form in repacked(secret)}
        self._least = min(map(len, self._rare), default=0)
        self.in_pieces = SecretForms([*long, *forms], MASK) if long else None
        whole = [*long, *halves]
        # What looks like an escape in a secret is read as one, too, and of backslashes nobody knows whose they are.
        self._long = {_bare(text) for secret in whole for text in (secret, unescaped(secret))}
        self._foreign = not all(map(bytes.isascii, self._long))
        self._pattern = cache(lambda: written(whole))  # takes 10 ms to be made, and few replies need it
        # A short one without a digit or a sign, such as EMPTY, is a placeholder that an answer may well hold.
        telling = [word for word in short if len(word) >= _ALONE and _is_mixed(word)]
        self._telling, self._words = alone(telling), alone(short)
        self.longest = 6 * max(map(len, long), default=0)  # letters of its longest form

    def content(self, content: bytes, *, error: bool = False) -> bytes:
        """Bytes of a body without secrets; where it tells of an `error`, without short words that are some, too."""
        for form in self._plain:
            if form in content:
                content = content.replace(form, MASK)
        if self._rare and max(map(len, content.split(b'"'))) >= self._least:  # no form has a mark of a text in it
            for form in self._rare:
                content = content.replace(form, MASK)
        if self._long and (b"\\" in content or b"%" in content or b"&" in content or b"=3" in content):
            plain = _bare(unescaped(content, foreign=self._foreign))
            spaced = plain.replace(b"+", b" ")
            if any(secret in plain or secret in spaced for secret in self._long):
                content = self._pattern().sub(MASK, content)
        words = self._words if error else self._telling
        return content if words is None else words.sub(MASK, content)

    def object(self, content: bytes, *, error: bool) -> bytes:
        """The same of a whole object of JSON, of which no list spells a secret, either."""
        forms = self.in_pieces
        return self.content(content if forms is None else without_spelled(content, forms.whole, MASK), error=error)

    def text(self, text: str) -> str:
        """A text of an error or a header without secrets."""
        content = text.encode("utf-8", "surrogateescape")
        masked = self.content(content, error=True)
        return text if masked is content or masked == content else masked.decode("utf-8", "surrogateescape")

    def headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Headers without secrets; one whose name holds a secret is left out."""
        lines = "\n".join(f"{name}: {value}" for name, value in headers.items())
        if self.text(lines) == lines:
            return headers
        return {name.lower(): self.text(value) for name, value in headers.items() if self.text(name) == name}

    def fault(self, fault: TransportFault) -> TransportFault:
        """A fault that tells no secret: a library's own words may quote what came, or where it was asked for."""
        return TransportFault(fault.kind, self.text(fault.detail), unsent=fault.unsent)


class MaskedResponse(Response):
    """A reply without the secrets of its request. Lines of its body wait for their ends, so that none is cut in two."""

    def __init__(self, reply: Response, mask: SecretMask) -> None:
        self._reply, self._mask, self.status = reply, mask, reply.status
        self.headers = mask.headers(reply.headers)
        self._error = reply.status >= 400
        self._is_object: bool | None = None  # and none that is long
        self._held = b""
        self._joints = SecretJoints(mask.in_pieces) if mask.in_pieces is not None and not self._error else None
        self._ended = False
        self._end: Exception = StopAsyncIteration()

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                piece = await anext(self._reply)
            except StopAsyncIteration:
                piece, self._ended = b"", True
            except TransportFault as fault:  # what came before it is handed on first
                piece, self._ended, self._end = b"", True, self._mask.fault(fault)
            size = len(self._held) + len(piece)
            quick = size <= _BRIEF or (self._is_object and not self._ended and size <= _LONGEST_OBJECT)
            if masked := self._take(piece) if quick else await asyncio.to_thread(self._take, piece):
                return masked
        raise self._end from None

    def _take(self, piece: bytes) -> bytes:
        """What may go on of all that has come; of text that is full of escapes this takes time."""
        if self._held or self._is_object is None or not piece.endswith((b"\n", b"\r")):
            piece = self._whole_lines(self._held + piece)
        if self._is_object:
            return self._mask.object(piece, error=self._error) if piece else piece
        if self._joints is not None:
            piece = self._joints.lines(piece)
            if self._ended and (rest := self._joints.close()):
                piece += b"\n\n" + rest
        return self._mask.content(piece, error=self._error) if piece else piece

    def _whole_lines(self, content: bytes) -> bytes:
        """What may go on now: whole lines, or all but the end of a line that is too long to be kept."""
        if self._is_object is None and content:
            self._is_object = content.lstrip(_SPACE)[:1] == b"{"
        self._is_object = self._is_object and len(content) <= _LONGEST_OBJECT
        if self._is_object and not self._ended:  # only the whole of it tells what its lists spell
            self._held = content
            return b""
        end = max(content.rfind(b"\n"), content.rfind(b"\r")) + 1
        if self._ended:
            end = len(content)
        elif len(content) - end > _LONGEST_LINE:
            content = self._mask.content(content, error=self._error)
            end = max(end, len(content) - self._mask.longest)
        self._held = content[end:]
        return content[:end]

    async def aclose(self) -> None:
        """Close the reply."""
        await self._reply.aclose()


Credentials = tuple[str, str]
"""An Authorization header and the query of a URL, each empty where there is none."""


def mask_of(url: str, headers: Mapping[str, str], others: tuple[Credentials, ...] = ()) -> SecretMask | None:
    """What masks the secrets that a request carries, and `others`; None where there are none."""
    authorization, query = headers.get("authorization"), url.partition("?")[2]
    return _mask(((authorization or "", query), *others)) if authorization or query or others else None


@lru_cache(256)
def _mask(credentials: tuple[Credentials, ...]) -> SecretMask | None:
    secrets = [
        secret for authorization, query in credentials for secret in (*_of_header(authorization), *_of_query(query))
    ]
    return SecretMask(secrets) if secrets else None


def _of_header(authorization: str) -> Iterator[str]:
    scheme, _, value = authorization.partition(" ")
    if not value:
        return
    yield value
    if scheme.lower() == "basic":
        with suppress(ValueError):  # whoever wrote it by hand may have written anything
            pair = base64.b64decode(value).decode("utf-8", "replace")
            user, _, password = pair.partition(":")
            yield from (pair, password) if password else (pair, user)


def _of_query(query: str) -> Iterator[str]:
    terms = [(name, value) for name, value in parse_qsl(query) if name.lower() not in _PUBLIC]
    if terms:
        yield query
        yield from (value for _, value in terms if len(value) >= _ANYWHERE)


def _bare(text: bytes) -> bytes:
    return text.replace(b"\\", b"")


def _is_mixed(secret: bytes) -> bool:
    return not (secret.isalpha() or secret.isdigit())
