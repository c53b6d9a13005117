"""The seam between the proxy's handlers and the backends: which one answers, and how it is asked.

Knows: shapes only. The pool (`serving.pool`) and the client (`serving.transport`) fill them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from outthink.core.errors import OutthinkError
from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy
from outthink.http.transport import Response, Timeouts


class NoBackend(OutthinkError):
    """No backend for the model is healthy now; `retry_after` in seconds, None if nobody knows."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Resting(NoBackend):
    """The backends for the model are well, but have asked for a pause or have all the calls they take."""


class Full(Resting):
    """The backends for the model are well, but have all the calls they take: wait for `Pool.room`."""


class Lease(Protocol):
    """A place on one backend, taken on entry and given back on exit.

    What is not reported is no verdict on the backend, but for a TransportFault on exit.
    """

    @property
    def url(self) -> str:
        """The backend's base URL with its version segment, for example http://127.0.0.1:8000/v1."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What it wants with every request (its own key); never what the client sent."""

    def report(self, *, ok: bool, status: int | None = None, retry_after: float | None = None) -> None:
        """Report how it went; a refusal of the request (4xx) is no failure of the backend.

        `retry_after` is the pause in seconds that it has asked for with a 429 or 503.
        """

    def __enter__(self) -> Self:
        """The lease itself."""

    def __exit__(self, *error: object) -> None:
        """Give the place back."""


class Pool(Protocol):
    """The backends by the models they serve."""

    async def start(self) -> None:
        """Ask every backend for its models and begin the health checks."""

    async def stop(self) -> None:
        """End the health checks."""

    def names(self) -> Sequence[str]:
        """Model names that some backend serves, in a stable order; the first is the default."""

    def choose(self, model: str, prefix: int | None = None, avoid: Sequence[str] = (), *, brief: bool = False) -> Lease:
        """A place on the backend to use now; it is not taken before it is entered.

        Args:
            model: one of `names`.
            prefix: hash of the prompt's beginning; equal ones prefer one backend.
            avoid: base URLs that have just failed this request.
            brief: the call generates nothing, so it may go to a backend that has all the calls it takes.

        Raises NoBackend, Resting where a moment's patience is all it takes, Full where a place is.
        """

    async def room(self, model: str) -> None:
        """Wait until a place on a backend of a model has been given back; somebody else may be quicker to take it."""

    def urls(self, model: str) -> tuple[str, ...]:
        """Base URLs of a model's backends, well or not."""

    def stated(self, url: str) -> tuple[Pricing | None, Energy | None]:
        """What a backend's operator has said that its tokens cost."""

    def places(self, model: str) -> int | None:
        """Calls that the backends of a model take at once, None for as many as come."""

    def health(self) -> Sequence[tuple[str, bool]]:
        """Base URLs and whether they are healthy now."""

    @property
    def ready(self) -> bool:
        """Whether any backend is healthy."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A reply that was read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Wire(Protocol):
    """The HTTP client: `outthink.engines.openai.transport.Transport`, and whole replies in one step."""

    async def open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> Response:
        """Send a request and wait for the head of its reply. Raises TransportFault, never retries."""

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeouts: Timeouts
    ) -> Whole:
        """Send a request and read its reply whole; cancelling closes the connection. Raises TransportFault."""

    async def aclose(self) -> None:
        """Close every connection."""
