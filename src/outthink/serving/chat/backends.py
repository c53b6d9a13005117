"""What all requests share of the backends: the pool, the client, facts about servers, turns and prices.

Nothing in here comes from a client, so nothing of one can reach another.
"""

from __future__ import annotations

from collections.abc import Mapping

from outthink.controller.policy.artefact import Policy
from outthink.economics.tariff import Tariff
from outthink.engines.openai.facts import Facts
from outthink.serving.accounting import Tariffs
from outthink.serving.chat.turns import Turns
from outthink.serving.limits import Limits
from outthink.serving.protocols import NoBackend, Pool, Wire


class Backends:
    """Args:
    calls: places on the backends of a model, by its name; others have `limits.calls`.
    """

    def __init__(
        self,
        pool: Pool,
        wire: Wire,
        limits: Limits,
        tariffs: Tariffs,
        policy: Policy | None = None,
        calls: Mapping[str, int] | None = None,
    ) -> None:
        self.pool, self.wire, self.limits, self.policy = pool, wire, limits, policy
        self._tariffs, self._calls = tariffs, dict(calls or {})
        self._facts: dict[str, Facts] = {}
        self._turns: dict[str, Turns] = {}

    def facts(self, model: str) -> Facts:
        """What refusals and replies have shown of a model's servers."""
        return self._facts.setdefault(model, Facts())

    def turns(self, model: str) -> Turns:
        """The queue for a model."""
        if model not in self._turns:
            self._turns[model] = Turns(self._calls.get(model, self.limits.calls))
        return self._turns[model]

    def tariff(self, model: str) -> Tariff:
        """What a model's calls cost."""
        try:
            with self.pool.choose(model) as lease:
                return self._tariffs.of(model, lease.url)
        except NoBackend:
            return self._tariffs.of(model, "")

    def unavailable(self, model: str) -> bool:
        """Whether no backend of a model can be asked now."""
        try:
            with self.pool.choose(model):
                return False
        except NoBackend:
            return True
