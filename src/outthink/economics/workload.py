"""What a server is asked for: calls in stages, stages in groups, groups with an arrival.

Knows: that the calls of a group share a prompt, are launched in order with so many in flight, and stop when enough of
them are there; how lengths are distributed. Does not know files, time a step takes, or strategies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from typing import Self

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]
LAUNCHED, ANY = range(2)
"""Rules of a stage: it ends with its first `need` calls in launch order, or with any `need` of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """Columns over calls, in launch order stage by stage, and over stages, group by group.

    Args:
        stage: of each call, not decreasing.
        prompt: tokens to read, what is continued included.
        shared: tokens of the prompt that lie in memory once for all calls of the group.
        cached: tokens of the prompt that an earlier call of the group has left in the cache.
        output: tokens that the call writes if it is not cancelled, at least 1.
        verifier: tokens that judging it takes, 0 without.
        group: of each stage, not decreasing, numbered from 0.
        arrival: seconds, of a group's first stage; what later stages have there is not used.
        after: number of the stage whose end begins this one, -1 for the first of a group.
        ahead: calls in flight at most.
        rule: LAUNCHED or ANY.
        need: calls that end the stage.
        priority: 0 is served first.
        weight: of each group, how often it stands for a request; 1 without.
    """

    stage: Counts
    prompt: Counts
    shared: Counts
    cached: Counts
    output: Counts
    verifier: Counts
    group: Counts
    arrival: Numbers
    after: Counts
    ahead: Counts
    rule: Counts
    need: Counts
    priority: Counts
    weight: Numbers

    @classmethod
    def of_calls(
        cls,
        prompt: ArrayLike,
        output: ArrayLike,
        arrival: ArrayLike | None = None,
        *,
        stage: ArrayLike | None = None,
        ahead: ArrayLike | None = None,
        need: ArrayLike | None = None,
        rule: ArrayLike = LAUNCHED,
        priority: ArrayLike = 0,
        verifier: ArrayLike = 0,
        weight: ArrayLike = 1.0,
    ) -> Self:
        """Groups of one stage: independent calls, or by `stage` several with one prompt.

        Args:
            prompt, output, verifier: of each call.
            arrival, ahead, need, rule, priority, weight: of each stage, or one for all. Without `ahead` all calls
                of a stage are in flight at once, without `need` all are waited for.
        """
        prompts, outputs = np.asarray(prompt, np.int64), np.asarray(output, np.int64)
        calls = prompts.size
        stages = np.arange(calls) if stage is None else np.asarray(stage, np.int64)
        count = int(stages[-1]) + 1 if calls else 0
        sizes = np.bincount(stages, minlength=count)
        several = sizes[stages] > 1

        def column(values: ArrayLike | None, default: ArrayLike, size: int) -> Counts:
            return np.broadcast_to(np.asarray(default if values is None else values, np.int64), size).copy()

        return cls(
            stage=stages,
            prompt=prompts,
            shared=np.where(several, prompts, 0),
            cached=np.zeros(calls, np.int64),
            output=outputs,
            verifier=column(verifier, 0, calls),
            group=np.arange(count),
            arrival=np.broadcast_to(np.asarray(0.0 if arrival is None else arrival, np.float64), count).copy(),
            after=np.full(count, -1),
            ahead=np.minimum(column(ahead, sizes, count), sizes),
            rule=column(rule, LAUNCHED, count),
            need=np.minimum(column(need, sizes, count), sizes),
            priority=column(priority, 0, count),
            weight=np.broadcast_to(np.asarray(weight, np.float64), count).copy(),
        )

    @classmethod
    def of_columns(cls, calls: Mapping[str, Counts], stages: Mapping[str, Counts]) -> Self:
        """Groups of several stages.

        Args:
            calls: `group`, `stage` (place in its group), `prompt`, `shared` (with other calls of the group), `output`
                and `verifier` of each call, in launch order stage by stage, group by group.
            stages: `group`, `after` (place in its group, -1 for none), `ahead`, `rule` and `need` of each.
        """
        group = stages["group"]
        count = int(group[-1]) + 1 if group.size else 0
        first = np.searchsorted(group, np.arange(count))
        stage = first[calls["group"]] + calls["stage"]
        # What the calls of the first stage share stays in memory; what later ones share beyond it is only cached.
        common = np.zeros(count, np.int64)
        np.maximum.at(common, calls["group"], np.where(calls["stage"] == 0, calls["shared"], 0))
        shared = np.minimum(calls["shared"], common[calls["group"]])
        sizes = np.bincount(stage, minlength=group.size)
        return cls(
            stage=stage,
            prompt=calls["prompt"],
            shared=shared,
            cached=np.where((calls["stage"] > 0) & (shared > 0), calls["shared"], 0),
            output=calls["output"],
            verifier=calls["verifier"],
            group=group,
            arrival=np.zeros(group.size),
            after=np.where(stages["after"] < 0, -1, first[group] + stages["after"]),
            ahead=np.minimum(stages["ahead"], sizes),
            rule=stages["rule"],
            need=np.minimum(stages["need"], sizes),
            priority=np.zeros(group.size, np.int64),
            weight=np.ones(count),
        )

    def sampled_like(self, requests: Self, seed: int = 0) -> Self:
        """Each group with the samples of a request drawn from others: how many, how many in flight, how many needed.

        Prompts, outputs and arrivals stay its own, so every sample is as long as its one call. Raises BadInput for
        groups of several calls, or requests of several stages.
        """
        if self.stage.size > len(self) or requests.group.size > len(requests):
            remedy = "give a trace of single requests and a strategy that samples one prompt"
            raise BadInput("strategy", "several stages", "has no place in requests of a trace", remedy)
        drawn = np.random.default_rng(seed).integers(0, len(requests), len(self))
        of = np.repeat(np.arange(len(self)), requests.sizes[drawn])
        return type(self).of_calls(
            self.prompt[of],
            self.output[of],
            self.arrival,
            stage=of,
            ahead=requests.ahead[drawn],
            need=requests.need[drawn],
            rule=requests.rule[drawn],
            weight=self.weight,
        )

    def __len__(self) -> int:
        return self.weight.size

    @cached_property
    def starts(self) -> Counts:
        """The first call of each stage."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def sizes(self) -> Counts:
        """Calls of each stage."""
        return np.bincount(self.stage, minlength=self.group.size)

    @cached_property
    def stages(self) -> Counts:
        """Stages of each group."""
        return np.bincount(self.group, minlength=len(self))

    @cached_property
    def first_stages(self) -> Counts:
        """The first stage of each group."""
        return np.cumsum(self.stages) - self.stages

    def arriving(self, arrival: Numbers) -> Self:
        """The same groups at other times, one time a group."""
        times = np.full(self.group.size, np.inf)
        times[self.first_stages] = arrival
        return replace(self, arrival=times)

    def take(self, groups: Counts) -> Self:
        """These groups, in this order, as often as they are named; each counts once."""
        stages, owner = _spans(self.first_stages, self.stages, groups)
        calls, of_stage = _spans(self.starts, self.sizes, stages)
        after = self.after[stages]
        moved = np.arange(stages.size) - stages  # a stage and the one it waits for move together
        return replace(
            self,
            stage=of_stage,
            prompt=self.prompt[calls],
            shared=self.shared[calls],
            cached=self.cached[calls],
            output=self.output[calls],
            verifier=self.verifier[calls],
            group=owner,
            arrival=self.arrival[stages],
            after=np.where(after < 0, -1, after + moved),
            ahead=self.ahead[stages],
            rule=self.rule[stages],
            need=self.need[stages],
            priority=self.priority[stages],
            weight=np.ones(groups.size),
        )

    def drawn(self, count: int, rate: float, seed: int = 0) -> Self:
        """So many groups drawn by their weights, arriving at random (Poisson) at `rate` a second."""
        random = np.random.default_rng(seed)
        groups = random.choice(len(self), count, p=self.weight / self.weight.sum())
        return self.take(groups).arriving(np.cumsum(random.exponential(1 / rate, count)))

    def checked(self) -> Self:
        """The same. Raises BadInput for what no server can be asked for."""
        remedy = "give whole numbers of tokens, outputs from 1"
        for name, column, least in (("prompt_tokens", self.prompt, 1), ("output_tokens", self.output, 1)):
            if column.size and column.min() < least:
                at = int(column.argmin())
                raise BadInput(name, int(column[at]), f"is below {least} (call {at + 1})", remedy)
        if not len(self):
            raise BadInput("trace", "no rows", "holds nothing to plan for", "give at least one request")
        if self.ahead.min() < 1 or self.need.min() < 1:
            at = int(np.minimum(self.ahead, self.need).argmin())
            raise BadInput(
                "ahead and stop_after", 0, f"is below 1 (group {int(self.group[at]) + 1})", "give counts from 1"
            )
        return self


def _spans(starts: Counts, sizes: Counts, picked: Counts) -> tuple[Counts, Counts]:
    """Members of the picked spans, one span behind the other, and the number of the span each is in."""
    counts = sizes[picked]
    owner = np.repeat(np.arange(picked.size), counts)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return starts[picked][owner] + within, owner


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """A distribution of a number of tokens: values and their probabilities."""

    values: Counts
    chances: Numbers

    @classmethod
    def parse(cls, text: str, field: str) -> Self:
        """Read `256`, `uniform:64,512` (both ends included) or `geometric:100,600` (mean before it is cut, longest).

        Raises BadInput, which names the field, for anything else.
        """
        name, _, rest = text.partition(":")
        try:
            numbers = [int(part) for part in (rest if rest else name).split(",")]
        except ValueError:
            numbers = []
        if not rest and len(numbers) == 1:
            low = high = numbers[0]
        elif len(numbers) == 2 and name in ("uniform", "geometric"):
            low, high = numbers
        else:
            remedy = "give a whole number, uniform:LOW,HIGH or geometric:MEAN,LONGEST"
            raise BadInput(field, text, "is no length", remedy)
        if not 1 <= low <= high <= _LONGEST:
            raise BadInput(field, text, f"is not from 1 to {_LONGEST:,}, in order", "give tokens from 1")
        if name != "geometric":
            values = np.arange(low, high + 1)
            return cls(values, np.full(values.size, 1 / values.size))
        values = np.arange(1, high + 1)
        chances = (1 - 1 / low) ** (values - 1.0) / low
        chances[-1] += 1 - chances.sum()  # what would be longer is cut
        return cls(values, chances)


_LONGEST = 10_000_000
_GRID = 4_000_000
"""Pairs of lengths up to which expectations are exact; beyond, as many are drawn."""


def distributed(prompt: Lengths, output: Lengths, seed: int = 0) -> Workload:
    """Requests whose lengths are independent, each pair with its probability as weight."""
    pairs = prompt.values.size * output.values.size
    if pairs <= _GRID:
        prompts = np.repeat(prompt.values, output.values.size)
        outputs = np.tile(output.values, prompt.values.size)
        return Workload.of_calls(prompts, outputs, weight=np.outer(prompt.chances, output.chances).ravel())
    random = np.random.default_rng(seed)
    prompts = random.choice(prompt.values, _GRID // 4, p=prompt.chances)
    return Workload.of_calls(prompts, random.choice(output.values, _GRID // 4, p=output.chances))
