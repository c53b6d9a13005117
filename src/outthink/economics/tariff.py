"""What calls to one model cost: dollars, joules and FLOPs in one object.

Knows which of the three are known, and whose count of parameters is believed. Does not know the calls, the budget or
the ledger, and never puts 0 in place of what is unknown.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Literal, Protocol

from outthink.core.errors import BadInput
from outthink.core.request import need_amount
from outthink.economics.price import Pricing, lookup


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules per token processed (`prompt`) and generated (`completion`), bounds from above."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            need_amount(f"energy {name}", value, "is not an energy", "give joules per token")

    @classmethod
    def parse(cls, text: str) -> Energy:
        """Read `PROMPT,COMPLETION` joules a token; BadInput on anything else."""
        try:
            prompt, completion = (float(part) for part in text.split(","))
        except ValueError:
            raise BadInput("energy", text, "is not two numbers", "give joules a token, for example 0.01,0.3") from None
        return cls(prompt, completion)

    def cost(self, prompt: int, cached: int, completion: int) -> float:
        """Joules of a call; prompt tokens read from the prefix cache are not processed again."""
        return max(prompt - cached, 0) * self.prompt + completion * self.completion

    def bound(self, prompt: int, completion: int) -> float:
        """Joules at most: nothing of the prompt comes from the cache."""
        return self.cost(prompt, 0, completion)


# A name that is not listed is unknown, never a guess from the size in its name.

# Output head included and a tied embedding counted once (docs/contracts.md, Counting), summed over the
# tensors of the GGUF files. The size must stand alone: 1.5b is not the end of 11.5b.
_ACTIVE = {
    r"smollm2[-_:. ]?135m": 134_515_008,
    r"qwen2[._]5[-_:. ]?coder[-_:. ]?0[._]5b": 494_032_768,
    r"qwen2[._]5[-_:. ]?coder[-_:. ]?1[._]5b": 1_543_714_304,
}
_PATTERNS = [(re.compile(rf"(?<![a-z0-9]){name}(?![a-z0-9])"), count) for name, count in _ACTIVE.items()]


@lru_cache(256)
def active_parameters(model: str) -> int | None:
    """Weights read per token; accepts trace stems, GGUF files, hub ids and Ollama names in any case.

    Only the last part of a path counts, so a folder named after a model does not lend its size to
    the files inside. None for a model that is not listed.
    """
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower()
    return next((count for pattern, count in _PATTERNS if pattern.search(name)), None)


Source = Literal["given", "alias", "file", "name", "server"]
"""Where a count of parameters comes from, the most trusted first (docs/contracts.md, Counting)."""


class Priced(Protocol):
    """What of an engine decides about its costs."""

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def url(self) -> str | None:
        """Address of the server, None for a local engine."""
        ...

    @property
    def parameters(self) -> int | None:
        """Weights read per token, None if unknown."""
        ...

    @property
    def parameters_told(self) -> bool:
        """Whether `parameters` is what a server says, and not what was read from the model's file."""
        ...


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices of one model; every None makes its quantity unknown.

    In all methods `prompt` includes the `cached` tokens, and `generated` tokens are those of the
    completion and of what was cancelled. `source` says where `parameters` come from.
    """

    model: str
    price: Pricing | None = None
    energy: Energy | None = None
    parameters: int | None = None
    source: Source | None = None

    @classmethod
    def of(
        cls,
        model: str,
        *,
        url: str | None = None,
        price: Pricing | None = None,
        energy: Energy | None = None,
    ) -> Tariff:
        """What is known about a model by its name.

        A price given by the user wins. Published prices need the server's URL: a name alone does
        not tell who sends the invoice, and a local engine sends none.
        """
        if price is None and url is not None:
            price = lookup(model, url)
        parameters = active_parameters(model)
        return cls(model, price, energy, parameters, None if parameters is None else "name")

    @classmethod
    def of_engine(
        cls,
        engine: Priced,
        *,
        price: Pricing | None = None,
        energy: Energy | None = None,
        parameters: int | None = None,
        source: Source = "given",
    ) -> Tariff:
        """What is known about an engine's model.

        The count of parameters that the user gives, by a flag or an alias (`source`), wins over the one in the
        model's file, that over the one of a known name, and that over what a server tells.
        """
        tariff = cls.of(engine.model, url=engine.url, price=price, energy=energy)
        if parameters is not None:
            return replace(tariff, parameters=parameters, source=source)
        told = engine.parameters
        if told is not None and not engine.parameters_told:
            return replace(tariff, parameters=told, source="file")
        if told is not None and tariff.parameters is None:
            return replace(tariff, parameters=told, source="server")
        return tariff

    @property
    def notes(self) -> tuple[str, ...]:
        """What a receipt should say of its figures: that the FLOPs rest on a server's word."""
        if self.source != "server":
            return ()
        return (f"flops count the {self.parameters:,} parameters that the server of {self.model} tells",)

    def usd_bound(self, prompt: int, generated: int) -> float | None:
        """Dollars that a call within these counts cannot exceed."""
        return None if self.price is None else self.price.bound(prompt, generated)

    def joules_bound(self, prompt: int, generated: int) -> float | None:
        """Joules that a call within these counts cannot exceed."""
        return None if self.energy is None else self.energy.bound(prompt, generated)

    def charge(self, prompt: int, cached: int, generated: int) -> tuple[float | None, float | None, float | None]:
        """FLOPs (2 x parameters x tokens, cached ones left out), dollars and joules of a call; None where unknown."""
        parameters, price, energy = self.parameters, self.price, self.energy
        return (
            None if parameters is None else 2.0 * parameters * (prompt - cached + generated),
            None if price is None else price.cost(prompt, cached, generated),
            None if energy is None else energy.cost(prompt, cached, generated),
        )
