"""Server-sent events from bytes. Knows the line format; does not know what the data mean."""

from __future__ import annotations


class Events:
    """An incremental parser: feed it pieces in any cuts, it returns the data of complete events."""

    __slots__ = ("_data", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that this piece completes, in order."""
        if not self._tail and not self._data and piece.startswith(b"data: ") and piece.find(b"\n") == len(piece) - 2:
            # The common case first: one whole event. (`data: x\n?` also comes here, and goes the long way.)
            return [piece[6:-2]] if piece.endswith(b"\n") else self._lines(piece)
        return self._lines(self._tail + piece if self._tail else piece)

    def _lines(self, text: bytes) -> list[bytes]:
        if b"\r" in text:
            # A carriage return at the very end may be half of a line end: it waits for the next piece.
            held = text.endswith(b"\r")
            text = (text[:-1] if held else text).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            lines = text.split(b"\n")
            self._tail = lines.pop() + (b"\r" if held else b"")
        else:
            lines = text.split(b"\n")
            self._tail = lines.pop()
        found: list[bytes] = []
        for line in lines:
            self._line(line, found)
        return found

    def close(self) -> list[bytes]:
        """What is left when the body ends without the last line end or the last blank line."""
        found: list[bytes] = []
        self._line(self._tail.rstrip(b"\r"), found)
        self._line(b"", found)
        self._tail = b""
        return found

    def _line(self, line: bytes, found: list[bytes]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line:
            if self._data:
                found.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        elif line.startswith(b"error:"):
            # llama.cpp before 2025 reported a failure as a field of its own.
            found.append(b'{"error":' + line[6:] + b"}")
        # Comments (`: ping`), `event:`, `id:` and `retry:` carry nothing that is needed here.
