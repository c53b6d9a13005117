"""The policies of `outthink/auto`: read again when their files change, tried in the shadow or on a share first.

Knows: which policy decides for a request, and what another one would have decided. Does not know how a
policy decides. A file that cannot be used leaves the one before it at work, and is said to.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan
from outthink.core.errors import BadInput

_log = logging.getLogger("outthink.serving")
_EVERY = 2.0
"""Seconds between two looks at the files."""
_PARTS = 1 << 32


class Chosen(NamedTuple):
    """Who decides for a request, and who only says what it would have done."""

    policy: Policy | None
    shadow: Policy | None = None


@dataclass(slots=True)
class Comparison:
    """What a shadow policy would have done differently. Tokens are predicted, of requests where both are known."""

    agreed: int = 0
    differed: int = 0
    refused: int = 0
    active_tokens: float = 0.0
    shadow_tokens: float = 0.0

    def add(self, active: Plan, shadow: Plan) -> None:
        """One request."""
        if active.name == shadow.name:
            self.agreed += 1
        else:
            self.differed += 1
        tokens, others = predicted(active), predicted(shadow)
        if tokens is not None and others is not None:
            self.active_tokens += tokens
            self.shadow_tokens += others


class Policies:
    """The active policy, and the candidate for its place.

    Args:
        file: of the active one, None for none.
        candidate: of the other one.
        share: part of the requests that the candidate decides; the others it shadows.

    Raises BadInput for a file that is no policy.
    """

    def __init__(self, file: Path | None = None, candidate: Path | None = None, share: float = 0.0) -> None:
        self.share = share
        self.compared = Comparison()
        self._files = {name: path for name, path in (("active", file), ("candidate", candidate)) if path is not None}
        self._seen = {name: _mark(path) for name, path in self._files.items()}
        self._loaded = {name: Policy.load(path) for name, path in self._files.items()}
        self._problems: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> Policy | None:
        """The policy in use."""
        return self._loaded.get("active")

    @property
    def candidate(self) -> Policy | None:
        """The policy that is tried."""
        return self._loaded.get("candidate")

    @property
    def problem(self) -> str | None:
        """Why a changed file is not used, in one line; None where all are."""
        return "; ".join(self._problems.values()) or None

    def choose(self, request: str) -> Chosen:
        """Who decides for a request: always the same for one id."""
        candidate = self.candidate
        if candidate is None:
            return Chosen(self.active)
        if zlib.crc32(request.encode()) < self.share * _PARTS:
            return Chosen(candidate)
        return Chosen(self.active, candidate)

    async def start(self) -> None:
        """Watch the files from now on."""
        if self._files:
            self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Watch them no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reload(self, *, all: bool = False) -> None:
        """Read the files that have changed, or all of them."""
        for name, path in self._files.items():
            mark = _mark(path)
            if mark == self._seen[name] and not all:
                continue
            self._seen[name] = mark
            try:
                loaded = await asyncio.to_thread(Policy.load, path)
            except (BadInput, RecursionError) as error:
                self._problems[name] = f"{error}; {self._loaded[name].id} stays"
                _log.error("the %s policy was not read again: %s", name, error)
                continue
            self._problems.pop(name, None)
            if loaded.id != self._loaded[name].id:
                _log.info("the %s policy is now %s", name, loaded.id)
                self._loaded[name] = loaded
                self.compared = Comparison()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self.reload()


def predicted(plan: Plan) -> float | None:
    """Tokens that a plan is expected to use, None where nobody knows."""
    option = next((option for option in plan.options if plan.arm is not None and option.arm.n == plan.arm.n), None)
    return None if option is None else option.usage["tokens"]


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from what it was before; None where there is none, as for a moment while it is replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
