"""Takes a repeated prefix off a streamed reply, so that only new text remains.

Knows: the prefix that was sent, and that chat templates trim or change white space. Does not know
which servers repeat it: llama.cpp does in whole replies, and until 2026 in streams; vLLM does not.
"""

from __future__ import annotations

_DECISIVE = 12  # letters of a prefix that no model writes anew by chance


def decisive(prefix: str) -> bool:
    """Whether a reply that starts with this prefix must be repeating it."""
    return sum(not letter.isspace() for letter in prefix) >= _DECISIVE


class Stripper:
    """Compares the start of a reply with the prefix, piece by piece, ignoring white space.

    Args:
        prefix: what the reply may start with.
        repeats: what is known of this server. Only short prefixes heed it: a long one that comes back
            word for word is a repetition, whatever the server did in other replies.
    """

    __slots__ = ("_at", "_held", "prefix", "repeated")

    def __init__(self, prefix: str, repeats: bool | None) -> None:
        self.prefix = prefix
        self._at = 0
        self._held = ""
        compare = bool(prefix.strip()) and (repeats is not False or decisive(prefix))
        self.repeated: bool | None = None if compare else False
        """Whether this reply repeats the prefix, None as long as that is open."""

    def feed(self, text: str) -> str:
        """The new text in this piece; text that could still be the prefix is held back."""
        if self.repeated is False:
            return text
        if self._at >= len(self.prefix):
            return text
        self._held += text
        return self._compare(text)

    def close(self) -> str:
        """What was held back when the reply ended before it could be told apart from the prefix."""
        held, self._held = ("" if self.repeated else self._held), ""
        if self.repeated is None:
            self.repeated = False
        return held

    def _compare(self, text: str) -> str:
        prefix, at = self.prefix, self._at
        for position, letter in enumerate(text):
            while at < len(prefix) and prefix[at] != letter and prefix[at].isspace():
                at += 1
            if not self.repeated and not prefix[at:].strip():
                self.repeated = True
            if at < len(prefix) and prefix[at] == letter:
                at += 1
                continue
            if at >= len(prefix):
                self._at, self._held = at, ""
                return text[position:]
            if letter.isspace():
                continue
            held, self._held, self.repeated = self._held, "", False
            return held
        self._at = at
        if not prefix[at:].strip():
            self.repeated, self._held = True, ""
        return ""
