"""What a session accepts from outside. Knows only the shapes; storage and displays live elsewhere."""

from __future__ import annotations

from typing import Protocol

from outthink.core.sample import Sample
from outthink.engines.protocol import Call
from outthink.session.running import Running


class SampleCache(Protocol):
    """Finished samples of earlier runs, looked up by call."""

    def get(self, call: Call) -> Sample | None:
        """The sample this call gave before, None if it is not known."""
        ...

    def put(self, call: Call, sample: Sample) -> None:
        """Keep a finished sample."""
        ...


class Observer(Protocol):
    """Sees what happens, for a live display. It must not raise and cannot change anything."""

    def __call__(self, event: str, running: Running, sample: Sample | None) -> None:
        """`event` is launched, delta, finished, stopped, cancelled, failed or cached."""
        ...
