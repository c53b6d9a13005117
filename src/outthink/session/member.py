"""One model of a session's pool.

Knows: who carries out its calls, what they cost, which earlier samples of it may be reused and what
has been learned of its prompts. Does not know budgets or the other models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.economics.tariff import Tariff
from outthink.session.prompt import Prompt
from outthink.session.protocols import SampleCache
from outthink.session.runner import Runner


@dataclass(slots=True, eq=False)
class Member:
    """A model that samples can be drawn from.

    Args:
        runner: carries out its calls, on the clock of all runners of this request.
        tariff: names it and prices its calls.
        cache: its samples of earlier runs, None to reuse none.
    """

    runner: Runner
    tariff: Tariff
    cache: SampleCache | None = None
    prompts: dict[tuple[object, ...], list[Prompt]] = field(default_factory=dict)

    def prompt(self, request: Request, prefix: str | None) -> Prompt:
        """What is known of a prompt on this model, shared by all streams and branches."""
        sampling = request.sampling  # chat templates may write the kind of thinking into the prompt
        thinking = sampling.reasoning_effort, sampling.thinking_tokens
        known = self.prompts.setdefault((prefix, sampling.temperature == 0, *thinking), [])
        for prompt in known:
            if prompt.request.messages == request.messages:
                return prompt
        known.append(Prompt(request))
        return known[-1]


def by_name(members: Sequence[Member]) -> dict[str, Member]:
    """The members by their models' names; BadInput where two have the same name."""
    pool: dict[str, Member] = {}
    for member in members:
        if pool.setdefault(member.tariff.model, member) is not member:
            raise BadInput("model", member.tariff.model, "is in the pool twice", "give each model once")
    return pool
