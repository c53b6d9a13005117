"""What all requests share of the backends: the pool, the client, facts about servers, turns and prices.

Nothing in here comes from a client, so nothing of one can reach another.
"""

from __future__ import annotations

from time import monotonic

from outthink.core.paths import cache_dir
from outthink.core.request import Budget
from outthink.economics.tariff import Tariff
from outthink.engines.openai.facts import Facts, file_for, recall
from outthink.http.server import Address
from outthink.serving.backend_protocols import NoBackend, Pool, Wire
from outthink.serving.chat.joint import Joint
from outthink.serving.chat.turns import Turns
from outthink.serving.failure import unknown_cost
from outthink.serving.limits import Limits
from outthink.serving.policies import Policies
from outthink.serving.tariffs import Tariffs

_FRESH = 60.0
"""Seconds after which it is looked up again what `outthink doctor` has found out."""


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
        self._counting: dict[str, tuple[float, bool]] = {}
        self._disproved: set[str] = set()

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

    def joint(self, model: str) -> Joint | None:
        """Shares calls between samples, where `doctor` has seen every backend of a model count all `n` choices.

        Not where a backend takes only so many calls: a shared one would be more than it seems.
        """
        if model in self._disproved or self.pool.places(model) is not None:
            return None
        looked, counting = self._counting.get(model, (0.0, False))
        if (now := monotonic()) >= looked:
            folder, urls = cache_dir() / "servers", self.pool.urls(model)
            known = [recall(file_for(folder, Address.parse(url).base, model)) for url in urls]
            counting = bool(known) and all(facts.n and facts.usage_sums for facts in known)
            self._counting[model] = now + _FRESH, counting
        return Joint(lambda: self._disproved.add(model)) if counting else None

    def tariff(self, model: str) -> Tariff:
        """What a model's calls cost, at the dearest of its backends where they differ."""
        return self._tariffs.bound(model)

    def check_budget(self, model: str, budget: Budget) -> None:
        """Refuse a budget in a currency that nobody can count for a model. Raises Failure."""
        tariff = self.tariff(model)
        if budget.usd is not None and tariff.price is None:
            raise unknown_cost("outthink.budget", model, "dollars", "the budget limits them")
        if budget.joules is not None and tariff.energy is None:
            raise unknown_cost("outthink.budget", model, "joules", "the budget limits them")

    def trouble(self, model: str) -> NoBackend | None:
        """Why no backend of a model can be asked now, or as soon as it has a place; None if one can."""
        try:
            self.pool.choose(model, brief=True)
        except NoBackend as error:
            return error
        return None
