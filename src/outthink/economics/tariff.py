"""What calls to one model cost: dollars, joules and FLOPs in one object.

Knows: which of the three are known. Does not know the calls, the budget or the ledger, and never
puts 0 in place of what is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from outthink.economics.catalogue import lookup
from outthink.economics.energy import Energy
from outthink.economics.parameters import active_parameters, flops
from outthink.economics.price import Pricing


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices of one model; every None makes its quantity unknown.

    In all methods `prompt` includes the `cached` tokens, and `generated` tokens are those of the
    completion and of what was cancelled.
    """

    model: str
    price: Pricing | None = None
    energy: Energy | None = None
    parameters: int | None = None

    @classmethod
    def of(
        cls, model: str, *, url: str | None = None, price: Pricing | None = None, energy: Energy | None = None
    ) -> Tariff:
        """What is known about a model.

        A price given by the user wins. Published prices need the server's URL: a name alone does
        not tell who sends the invoice, and a local engine sends none.
        """
        if price is None and url is not None:
            price = lookup(model, url)
        return cls(model, price, energy, active_parameters(model))

    def usd(self, prompt: int, cached: int, generated: int) -> float | None:
        """Dollars of a call."""
        return None if self.price is None else self.price.cost(prompt, cached, generated)

    def usd_bound(self, prompt: int, generated: int) -> float | None:
        """Dollars that a call within these counts cannot exceed."""
        return None if self.price is None else self.price.bound(prompt, generated)

    def joules(self, prompt: int, cached: int, generated: int) -> float | None:
        """Joules of a call."""
        return None if self.energy is None else self.energy.cost(prompt, cached, generated)

    def joules_bound(self, prompt: int, generated: int) -> float | None:
        """Joules that a call within these counts cannot exceed."""
        return None if self.energy is None else self.energy.bound(prompt, generated)

    def flops(self, prompt: int, cached: int, generated: int) -> float | None:
        """2 x parameters x (prompt tokens not read from the cache + generated tokens)."""
        if self.parameters is None:
            return None
        return flops(self.parameters, max(prompt - cached, 0) + generated)

    def charge(self, prompt: int, cached: int, generated: int) -> tuple[float | None, float | None, float | None]:
        """FLOPs, dollars and joules of a call, each None where unknown."""
        parameters, price, energy = self.parameters, self.price, self.energy
        return (
            None if parameters is None else 2.0 * parameters * (prompt - cached + generated),
            None if price is None else price.cost(prompt, cached, generated),
            None if energy is None else energy.cost(prompt, cached, generated),
        )
