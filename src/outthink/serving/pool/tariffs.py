"""What the backends' models cost: as their operator has stated it, else as published.

Knows: stated prices by backend, and that backends of one model may differ. Does not know calls or budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outthink.economics.price import Pricing
from outthink.economics.tariff import Energy, Tariff
from outthink.serving.pool.protocols import Pool


@dataclass(frozen=True, slots=True)
class Dearest:
    """Several prices as one that none of them exceeds; for calls whose backend is not chosen yet."""

    prices: tuple[Pricing, ...]

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars of a call at the dearest."""
        return max(price.cost(prompt, cached, completion) for price in self.prices)

    def bound(self, prompt: int, completion: int) -> float:
        """Dollars that no call can exceed; linear in the completion, as reservations need it."""
        fixed = [price.bound(prompt, 0) for price in self.prices]
        more = (price.bound(prompt, completion) - least for price, least in zip(self.prices, fixed, strict=True))
        return max(fixed) + max(more)


class Tariffs:
    """What the models cost; looked up once each."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: dict[tuple[str, str], Tariff] = {}
        self._bounds: dict[tuple[str, tuple[str, ...]], Tariff] = {}

    def of(self, model: str, url: str) -> Tariff:
        """The tariff of a model on a backend."""
        found = self._known.get((model, url))
        if found is None:
            price, energy = self._pool.stated(url)
            found = self._known[model, url] = Tariff.of(model, url=url, price=price, energy=energy)
        return found

    def bound(self, model: str) -> Tariff:
        """The tariff that holds whichever backend is chosen; unknown where that of one of them is."""
        urls = self._pool.urls(model)
        if len(urls) == 1:
            return self.of(model, urls[0])
        found = self._bounds.get((model, urls))
        if found is None:
            found = self._bounds[model, urls] = self._dearest(model, [self.of(model, url) for url in urls])
        return found

    @staticmethod
    def _dearest(model: str, tariffs: Sequence[Tariff]) -> Tariff:
        if not tariffs:
            return Tariff.of(model)
        prices = [tariff.price for tariff in tariffs if tariff.price is not None]
        energies = [tariff.energy for tariff in tariffs if tariff.energy is not None]
        price: Pricing | None = None
        energy: Energy | None = None
        if len(prices) == len(tariffs):
            price = prices[0] if len(set(prices)) == 1 else Dearest(tuple(prices))
        if len(energies) == len(tariffs):
            energy = Energy(max(one.prompt for one in energies), max(one.completion for one in energies))
        return Tariff(model, price, energy, tariffs[0].parameters)
