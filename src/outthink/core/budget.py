"""The ceiling of one request in four currencies.

Knows: names, validation and how two ceilings combine. Does not know what anything costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from outthink.core.errors import BadInput

Currency = Literal["tokens", "seconds", "usd", "joules"]
CURRENCIES: tuple[Currency, ...] = ("tokens", "seconds", "usd", "joules")
_ALIASES = {"dollars": "usd"}
_REMEDY = f"use any of {', '.join(CURRENCIES)}, for example tokens=4000,seconds=20"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Ceilings for a whole request; None leaves a currency unlimited.

    tokens count prompt + completion + cancelled; seconds are wall-clock from the start of the
    request; usd and joules need an engine that can account for them.
    """

    tokens: int | None = None
    seconds: float | None = None
    usd: float | None = None
    joules: float | None = None

    def __post_init__(self) -> None:
        for name in CURRENCIES:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise BadInput(f"budget {name}", value, "is not a positive number", "give more than 0 or leave it out")
            if name == "tokens":
                if value != int(value):
                    raise BadInput("budget tokens", value, "is not a whole number", "round it")
                object.__setattr__(self, name, int(value))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `tokens=4000,seconds=20`; BadInput names an unknown currency or a bad number."""
        values: dict[str, float] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, sign, number = part.partition("=")
            name = _ALIASES.get(name.strip(), name.strip())
            if not sign or name not in CURRENCIES:
                raise BadInput("budget", part, "names no known currency", _REMEDY)
            if name in values:
                raise BadInput("budget", part, "names a currency twice", "give each one once")
            try:
                values[name] = float(number)
            except ValueError:
                raise BadInput(f"budget {name}", number, "is not a number", _REMEDY) from None
        if not values:
            raise BadInput("budget", text, "is empty", _REMEDY)
        return cls(**values)  # type: ignore[arg-type]

    def get(self, currency: Currency) -> float | None:
        """The ceiling in one currency, None if there is none."""
        value: float | None = getattr(self, currency)
        return value

    @property
    def limited(self) -> tuple[Currency, ...]:
        """The currencies that have a ceiling."""
        return tuple(name for name in CURRENCIES if getattr(self, name) is not None)
