"""Looks for overspends: random bodies through a real proxy with limited keys, measured against the lenient server.

Knows: what must hold of every request (truth within the ceiling, a receipt that is never below it) and of every key's
day. Does not know how a body is drawn, nor how the proxy keeps to it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from outthink.core.request import Budget
from outthink.serving.ledger import open_durable
from outthink.serving.pool import BackendSettings
from outthink.serving.pool.rules import FieldSettings
from outthink.serving.protocols import Terms
from support.drawn_bodies import DrawnBody, draw_body
from support.lenient_server import LenientServer
from support.proxy_server import Got, ProxyServer

CEILINGS = (300, 700, 1500, 4000, 12_000)
BOUNDED = FieldSettings(image_tokens=1500, audio_tokens_per_second=400)
RENAMED = FieldSettings(length_name="max_completion_tokens")
"""Of a server that ignores the old name of a chat's length."""
DAY_IN_CEILINGS = 12
EACH = 120
"""Requests of one key."""
USAGES = ("all", "all", "all", "one", "beside", "")
FITTING = frozenset({"ceiling", "insufficient_quota"})
"""Codes of refusals that an honest request may meet: it is too much for what is left."""


@dataclass
class Findings:
    """What was seen. `faults` are descriptions, one for each request or day that broke a promise."""

    requests: int = 0
    served: int = 0
    honest: int = 0
    honest_served: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    over_ceiling: int = 0
    over_day: int = 0
    below_truth: int = 0
    honest_refused: int = 0
    failed: int = 0
    tightest: float = 0.0
    """The largest part of a ceiling that was really used."""
    faults: list[str] = field(default_factory=list)

    def fault(self, kind: str, *details: Any) -> None:
        """Note a broken promise."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.faults) < 20:
            self.faults.append(f"{kind}: {' '.join(map(str, details))}"[:900])


class OverspendSearch:
    """One proxy in front of one lenient server, and keys that are replaced when their day is nearly over."""

    def __init__(self, folder: Path, fields: FieldSettings) -> None:
        self.server = LenientServer()
        self._folder, self._fields = folder, fields
        self.found = Findings()

    def run(self, seed: int, *, requests: int, seconds: float = float("inf")) -> Findings:
        """Send so many bodies, or as many as fit into seconds of this process, in which all of it runs."""
        end = time.process_time() + seconds
        ledger = open_durable(f"sqlite:///{self._folder}/ledger-{seed}.sqlite")
        with self.server:
            backend = BackendSettings(url=self.server.url, fields=self._fields)
            with ProxyServer(backend, ledger=ledger) as proxy:
                for first in range(0, requests, EACH):
                    if time.process_time() >= end:
                        break
                    self._day(proxy, seed, first, min(EACH, requests - first), end)
        return self.found

    def _day(self, proxy: ProxyServer, seed: int, first: int, count: int, end: float) -> None:
        """The requests of one key on one day."""
        ceiling = CEILINGS[first // EACH % len(CEILINGS)]
        day = ceiling * DAY_IN_CEILINGS
        terms = Terms(ceiling=Budget(tokens=ceiling), day=Budget(tokens=day))
        ledger: Any = proxy.ledger
        _, secret = proxy.do(ledger.add_key(f"key {first}", terms))
        spent = charged = 0
        for number in range(first, first + count):
            if time.process_time() >= end:
                break
            random = Random(f"{seed}-{number}")
            drawn = draw_body(random)
            usage, chat = random.choice(USAGES), self._fields.length_name
            self.server.dialect = replace(drawn.dialect, usage=usage, chat=chat)
            before = len(self.server.work)
            got = proxy.send("POST", drawn.path, drawn.content, authorization=f"Bearer {secret}")
            truth = sum(work.tokens for work in self.server.work[before:])
            spent += truth
            charged += self._judge(proxy, drawn, got, truth, ceiling)
        if spent > day or charged < spent:
            self.found.fault("over_day", f"spent {spent}, charged {charged} of {day}")

    def _judge(self, proxy: ProxyServer, drawn: DrawnBody, got: Got, truth: int, ceiling: int) -> int:
        """Compare one reply with the truth; what the key was charged."""
        found = self.found
        found.requests += 1
        found.honest += drawn.honest
        told = f"{drawn.path} {drawn.content.decode()} by {self.server.dialect}"
        code = "served" if got.status == 200 else str(got.error["code"])
        found.codes[code] += 1
        found.tightest = max(found.tightest, truth / ceiling)
        if truth > ceiling:
            found.fault("over_ceiling", truth, "of", ceiling, told)
        if got.status >= 500:
            found.fault("failed", got.content, told)
        if got.status != 200:
            if drawn.honest and code not in FITTING:
                found.fault("honest_refused", got.content, told)
            return truth  # what was refused costs nothing, and nothing was to be spent for it
        found.served += 1
        found.honest_served += drawn.honest
        record = proxy.do(proxy.ledger.receipt(got.headers["x-outthink-receipt"]))
        known = record.tokens == truth and not record.estimated
        unknown = record.tokens is None and record.estimated and (record.at_most_tokens or 0) >= truth
        if not (known or unknown):
            receipt = f"tokens {record.tokens}, at most {record.at_most_tokens}, estimated {record.estimated}"
            found.fault("below_truth", f"{receipt} for {truth}:", told)
        return record.tokens if record.tokens is not None else record.at_most_tokens or 0
