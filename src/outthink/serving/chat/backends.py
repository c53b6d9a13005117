"""What all requests share of the backends: the pool, the client, facts about servers, turns and prices.

Nothing in here comes from a client, so nothing of one can reach another.
"""

from __future__ import annotations

from outthink.economics.tariff import Tariff
from outthink.engines.openai.facts import Facts
from outthink.serving.accounting import Tariffs
from outthink.serving.chat.turns import Turns
from outthink.serving.limits import Limits
from outthink.serving.policies import Policies
from outthink.serving.protocols import NoBackend, Pool, Wire


class Backends:
    """One proxy's, for every model that its pool serves."""

    def __init__(
        self,
        pool: Pool,
        wire: Wire,
        limits: Limits,
        tariffs: Tariffs,
        policies: Policies | None = None,
    ) -> None:
        self.pool, self.wire, self.limits, self.policies = pool, wire, limits, policies or Policies()
        self._tariffs = tariffs
        self._facts: dict[str, Facts] = {}
        self._turns: dict[str, Turns] = {}

    def facts(self, model: str) -> Facts:
        """What refusals and replies have shown of a model's servers."""
        return self._facts.setdefault(model, Facts())

    def turns(self, model: str) -> Turns:
        """The queue for a model; it has as many places as its backends, or `limits.calls` where they do not say."""
        found = self._turns.get(model)
        if found is None:
            pool, most = self.pool, self.limits.calls
            found = self._turns[model] = Turns(lambda: pool.places(model) or most)
        return found

    def tariff(self, model: str) -> Tariff:
        """What a model's calls cost."""
        try:
            return self._tariffs.of(model, self.pool.choose(model, brief=True).url)
        except NoBackend:
            return self._tariffs.of(model, "")

    def unavailable(self, model: str) -> bool:
        """Whether no backend of a model can be asked now, or as soon as it has a place."""
        try:
            self.pool.choose(model, brief=True)
        except NoBackend:
            return True
        return False
