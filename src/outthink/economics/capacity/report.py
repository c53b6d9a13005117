"""A capacity plan in numbers: GPUs, latencies, dollars and watts of a workload at its rate, and over utilisation.

Knows which figure follows from which, what limits and inputs are called, and that what is not known is None. Does not
know how numbers are shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outthink.core.errors import BadInput
from outthink.economics.capacity.plan import Capacity, Objective

Values = dict[str, Any]
UTILISATION = 0.8
"""Share of the effective rate that is planned to be used."""
_CURVE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

BINDINGS = {
    "memory": "memory of the cache",
    "sequences": "requests inside at once",
    "compute": "tokens that a step computes",
}
"""Limits of a replica, in words."""
INPUTS = {
    "prompt_tokens": "prompts",
    "output_tokens": "outputs",
    "step_seconds": "the step",
    "kv_tokens": "memory",
    "max_sequences": "requests inside at once",
}
"""What the effective rate follows from, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPlan:
    """What a workload needs.

    Args:
        capacity: of one replica.
        rate: requests a second in all.
        utilisation: share of the effective rate that is planned to be used.
        gpus: GPUs whose stability is asked about.
        objective: targets of latency.
        notes: what a reader has to know of the numbers.
    """

    capacity: Capacity
    rate: float
    utilisation: float = UTILISATION
    gpus: int = 1
    objective: Objective | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise BadInput("rate", self.rate, "is not a positive number", "give requests a second")
        if not 0 < self.utilisation <= 1:
            raise BadInput("utilisation", self.utilisation, "is not above 0 and up to 1", "give a share, 0.8 for 80 %")
        size = self.capacity.deployment.gpus
        if self.gpus < 1 or self.gpus % size:
            raise BadInput(
                "gpus", self.gpus, f"is no multiple of the {size} that a replica takes", "give whole replicas"
            )

    @property
    def replicas(self) -> int:
        """Servers that the rate needs, those that targets of latency need included."""
        return max(self._replicas(self.capacity.effective * self.utilisation), self._for_objective or 0)

    @property
    def _for_objective(self) -> int | None:
        """Servers at which 90 per cent meet the targets, None without targets or where none would do."""
        if self.objective is None or not (good := self.capacity.goodput(self.objective)):
            return None
        return self._replicas(min(good, self.capacity.effective * self.utilisation))

    def _replicas(self, rate: float) -> int:
        # A rate that fills a replica exactly is no reason for another one.
        return max(1, math.ceil(self.rate / rate - 1e-9))

    @property
    def used(self) -> float:
        """Share of the effective rate of all planned replicas."""
        return self.rate / (self.replicas * self.capacity.effective)

    def as_json(self) -> Values:
        """All figures by the names of docs/contracts.md."""
        capacity, deployment = self.capacity, self.capacity.deployment
        reserved, size = capacity.reservation, deployment.gpus
        each = self.rate / self.replicas
        return {
            "rate": self.rate,
            "g": _number(capacity.held),
            "ceiling_requests_per_second": capacity.ceiling,
            "reservation_requests_per_second": reserved,
            "delta": capacity.delta,
            "effective_requests_per_second": capacity.effective,
            "utilisation": self.utilisation,
            "gpus": self._replicas(capacity.effective * self.utilisation) * size,
            "gpus_exact": self.rate / (capacity.effective * self.utilisation) * size,
            "gpus_reservation": None if reserved is None else self._replicas(reserved * self.utilisation) * size,
            "stable": self.rate < capacity.effective * self.gpus / size,
            "batch_at_saturation": capacity.batch,
            "binding": capacity.binding,
            "step_seconds": capacity.step(capacity.batch),
            "kv_tokens": None if capacity.tokens is None else _number(capacity.tokens),
            "tensor_parallel": size,
            "batch": capacity.batch_at(each),
            "prompt_tokens": capacity.read,
            "output_tokens": capacity.written,
            **capacity.times(each),
            "slo": self._slo(),
            **self._money(),
            "sensitivity": capacity.sensitivity(),
            "by_utilisation": [self._at(share) for share in _CURVE],
            "notes": list(self.notes),
        }

    def _slo(self) -> Values | None:
        if self.objective is None:
            return None
        good, replicas = self.capacity.goodput(self.objective), self._for_objective
        return {
            "ttft": self.objective.ttft,
            "tpot": self.objective.tpot,
            "goodput_requests_per_second": good,
            "gpus": None if replicas is None else replicas * self.capacity.deployment.gpus,
        }

    def _money(self) -> Values:
        """Dollars and watts of the planned GPUs; None where no price or no power is known."""
        gpus = self.replicas * self.capacity.deployment.gpus
        hour, watts = self.capacity.deployment.gpu_hour, self.capacity.deployment.watts
        answers = self.rate * 3600
        dollars = None if hour is None else hour * gpus
        # Board power times utilisation: an idle GPU draws more than nothing, a busy one often less than its limit.
        power = None if watts is None else watts * gpus * min(1.0, self.used)
        return {
            "usd_per_hour": dollars,
            "usd_per_answer": None if dollars is None else dollars / answers,
            "usd_per_million_tokens": None if dollars is None else dollars / answers / self._wanted * 1e6,
            "watts": power,
            "joules_per_answer": None if power is None else power / self.rate,
            "watts_source": None if power is None else "modelled",
        }

    @property
    def _wanted(self) -> float:
        """Output tokens of an answer that are used."""
        return self.capacity.footprint.mean(self.capacity.footprint.wanted)

    def _at(self, share: float) -> Values:
        """One replica at a share of its effective rate."""
        rate = share * self.capacity.effective
        hour = self.capacity.deployment.gpu_hour
        dollars = None if hour is None else hour * self.capacity.deployment.gpus / 3600
        return {
            "utilisation": share,
            "requests_per_second": rate,
            "tpot": self.capacity.step(self.capacity.batch_at(rate)),
            "usd_per_answer": None if dollars is None else dollars / rate,
            "usd_per_million_tokens": None if dollars is None else dollars / (rate * self._wanted) * 1e6,
        }


def _number(value: float) -> float | int:
    """Without a fraction where there is none."""
    return int(value) if value == int(value) else value
