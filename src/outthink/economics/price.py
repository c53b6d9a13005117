"""What a provider charges for tokens: as the user states it, or as published in the snapshot of genai-prices.

Knows dollars per million tokens, and a published price with all its tiers and times of day. Does not touch the network:
what the installed snapshot lacks is unknown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from outthink.core.errors import BadInput
from outthink.core.request import need_amount

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider


_REMEDY = "give dollars per million tokens as IN,OUT, for example 0.15,0.60"


class Pricing(Protocol):
    """Anything that can put a price on a call."""

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars of a call whose prompt (cached part included) and completion are known."""
        ...

    def bound(self, prompt: int, completion: int) -> float:
        """Dollars that no call within these token counts can exceed."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens; without `cached_input`, prompt tokens read from a cache cost the full price."""

    input: float
    output: float
    cached_input: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None or name != "cached_input":
                need_amount(f"price {name}", value, "is not a price", _REMEDY)

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read `IN,OUT` or `IN,OUT,CACHED`; BadInput on anything else."""
        parts = [part.strip() for part in text.split(",")]
        if len(parts) not in (2, 3):
            raise BadInput("price", text, "does not hold two numbers", _REMEDY)
        try:
            return cls(*(float(part) for part in parts))
        except ValueError as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput("price", text, "is not numeric", _REMEDY) from None

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars of a call; `cached` is the part of `prompt` that was read from the prefix cache."""
        cached = min(cached, prompt)
        cached_input = self.input if self.cached_input is None else self.cached_input
        return ((prompt - cached) * self.input + cached * cached_input + completion * self.output) / 1e6

    def bound(self, prompt: int, completion: int) -> float:
        """Dollars at most: nothing, or everything, of the prompt may come from the cache."""
        return max(self.cost(prompt, cached, completion) for cached in (0, prompt))


# Published prices.


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class CataloguePrice:
    """The price list of one model at one provider; equal in use to `Price`."""

    provider: Provider = field(repr=False)  # holds every model of the provider
    model: ModelInfo

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Dollars of a call that is settled now."""
        return self._at(_now(), prompt, min(cached, prompt), completion)

    def bound(self, prompt: int, completion: int) -> float:
        """Dollars that a call settled within the next day cannot exceed.

        Some providers double their price by day, so a reservation made just before must hold
        after. At one moment the cost is linear in cached and completion tokens and jumps in the
        prompt only where a tier begins, so its maximum lies at one of these corners.
        """
        return max(
            self._at(moment, size, cached, completion)
            for moment in self._moments()
            for size in self._corners(moment, prompt)
            for cached in (0, size)
        )

    def _at(self, moment: datetime, prompt: int, cached: int, completion: int) -> float:
        from genai_prices import Usage

        usage = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
        return float(self.model.calc_price(usage, self.provider, genai_request_timestamp=moment).total_price)

    def _corners(self, moment: datetime, prompt: int) -> set[int]:
        from genai_prices.types import TieredPrices

        prices = self.model.get_prices(moment)
        # What a text call meets; the catalogue's other units (audio, pages) never apply.
        of_text = (prices.input_mtok, prices.cache_read_mtok, prices.output_mtok)
        tiers = [tier for price in of_text if isinstance(price, TieredPrices) for tier in price.tiers]
        return {prompt} | {tier.start for tier in tiers if tier.start < prompt}

    def _moments(self) -> list[datetime]:
        """Now, and every time until this hour tomorrow at which another price may begin."""
        from genai_prices.types import ModelPrice, StartDateConstraint, TimeOfDateConstraint

        now = _now()
        moments = [now]
        if isinstance(self.model.prices, ModelPrice):
            return moments
        days = (now.date(), now.date() + timedelta(days=1))
        for price in self.model.prices:
            rule = price.constraint
            if isinstance(rule, StartDateConstraint) and rule.start_date == days[1]:
                moments.append(datetime.combine(days[1], time(), tzinfo=UTC))
            elif isinstance(rule, TimeOfDateConstraint):
                # Times that have passed today come again tomorrow; in a bound from above they do no harm.
                edges = (datetime.combine(day, at) for day in days for at in (rule.start_time, rule.end_time))
                moments.extend(edge if edge.tzinfo else edge.replace(tzinfo=UTC) for edge in edges)
        return moments


@lru_cache(maxsize=256)
def lookup(model: str, url: str | None = None) -> CataloguePrice | None:
    """Find the published price of a model.

    Args:
        model: the name as sent to the server.
        url: the server's base URL, which decides the provider; without it the name alone does.

    Returns:
        None where the provider or model is unknown, or has no price for tokens in and out (the
        catalogue also lists models without one, and unknown is not free).
    """
    # Loaded on first use: `import outthink` has to stay quick, and local engines have no price to look up.
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import ModelPrice

    try:
        provider, info = get_snapshot().find_provider_model(model, None, None, url)
    except LookupError:
        return None
    prices = [info.prices] if isinstance(info.prices, ModelPrice) else [item.prices for item in info.prices]
    if not prices or not all(price.input_mtok is not None and price.output_mtok is not None for price in prices):
        return None
    return CataloguePrice(provider, info)
