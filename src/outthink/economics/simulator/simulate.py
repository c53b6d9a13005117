"""Runs a workload through simulated replicas of a continuous-batching server, and says how it went.

Knows: a server's rules, and how times and counts of a run are read. Does not know how an iteration goes (`replica`,
`groups`: compiled), nor where lengths and the time of a step come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra
from outthink.economics.step_profile import StepProfile
from outthink.economics.workload import Numbers, Workload

if TYPE_CHECKING:
    from outthink.economics.simulator.tables import Records, World

Router = Literal["round-robin", "least-loaded", "prefix-aware"]
ROUTERS: tuple[Router, ...] = ("round-robin", "least-loaded", "prefix-aware")
_UNLIMITED = 1 << 40
_TABLE = 1 << 16
"""Tokens in a step up to which its cost is looked up; beyond, it goes on as straight as it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRules:
    """A continuous-batching server, and how many replicas of it there are.

    Args:
        memory: for the key-value cache of one replica, in bytes (in tokens where `full` is 1).
        profile: seconds of one iteration.
        full: bytes of the cache of one token in layers that keep all of it.
        windowed, window: bytes of one token in layers that keep the last `window` tokens of a call.
        block: tokens of a page of memory; pages are taken whole.
        chunk: tokens of a prompt read in one iteration at most; None takes the profile's.
        batch_tokens: tokens computed in one iteration at most, None for no limit.
        sequences: calls inside at once, None for no limit.
        preempt: whether a call that loses its memory keeps its tokens and reads them again, or begins anew.
        scheduling: calls in the order in which they come, or those of a group that has begun before groups that
            have not, as with a priority by the time of the group's arrival.
        replicas, router: how many there are and how a call finds one.
        judge: tokens a second that a verifier reads; None takes the profile's.
    """

    memory: float
    profile: StepProfile
    full: int = 1
    windowed: int = 0
    window: int = 0
    block: int = 1
    chunk: int | None = None
    batch_tokens: int | None = None
    sequences: int | None = None
    preempt: Literal["keep", "restart"] = "keep"
    scheduling: Literal["fcfs", "priority"] = "fcfs"
    replicas: int = 1
    router: Router = "round-robin"
    judge: float | None = None

    def __post_init__(self) -> None:
        counts: dict[str, float | None] = {
            "block": self.block,
            "replicas": self.replicas,
            "full": self.full,
            "chunk": self.chunk,
        }
        counts |= {"batch_tokens": self.batch_tokens, "sequences": self.sequences, "memory": self.memory}
        for name, value in counts.items():
            if value is not None and not value >= 1:
                raise BadInput(name, value, "is below 1", "give a number from 1, or leave it out")
        if self.windowed < 0 or (self.windowed and self.window < 1):
            raise BadInput("window", self.window, "is below 1", "give the tokens that a windowed layer keeps")

    def need(self, workload: Workload) -> None:
        """Raise BadInput where a single call does not fit into the memory of one replica."""
        tokens = workload.prompt + workload.output
        blocks = -(-tokens // self.block) * self.block
        held = self.full * blocks
        if self.windowed:
            held = held + self.windowed * (-(-np.minimum(tokens, self.window) // self.block) * self.block)
        at = int(held.argmax())
        if held[at] > self.memory:
            longest = (
                f"a call of {int(workload.prompt[at]):,} + {int(workload.output[at]):,} tokens takes {int(held[at]):,}"
            )
            remedy = "give more memory, or limit the lengths"
            raise BadInput("memory for the cache", int(self.memory), f"is less than one call needs ({longest})", remedy)


class Spread(NamedTuple):
    """Mean, median and 95th percentile; NaN of nothing."""

    mean: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: Numbers) -> Spread:
        """Of so many values."""
        if not values.size:
            return cls(float("nan"), float("nan"), float("nan"))
        return cls(float(values.mean()), float(np.median(values)), float(np.percentile(values, 95)))


@dataclass(frozen=True, slots=True, eq=False)
class SimulationRun:
    """What has happened. Times are seconds from the start.

    Args:
        end: time of the last event.
        calls, stages, replicas: records by the fields of `tables`.
        queued_seconds, inside_seconds: calls waiting, and calls waiting or inside, summed over time.
    """

    workload: Workload
    end: float
    calls: Records
    stages: Records
    replicas: Records
    queued_seconds: float
    inside_seconds: float

    @property
    def opened(self) -> Numbers:
        """When each group arrived, NaN for those that did not."""
        return _known(self.stages["opened"][self.workload.first_stages])

    @property
    def closed(self) -> Numbers:
        """When each group had all that it needs, NaN for those that are not done."""
        done = _known(self.stages["closed"])
        closed = np.zeros(len(self.workload))
        np.maximum.at(closed, self.workload.group, np.where(np.isnan(done), np.inf, done))
        return np.where(np.isinf(closed), np.nan, closed)

    @property
    def e2e(self) -> Numbers:
        """Seconds from arrival to the answer, of each group."""
        return self.closed - self.opened

    @property
    def ttft(self) -> Numbers:
        """Seconds to the first token of the answer: that of a lone call, and the end of what several decide on."""
        first = _known(self.calls["first"][self.workload.starts[self.workload.first_stages]]) - self.opened
        lone = np.bincount(self.workload.group[self.workload.stage], minlength=len(self.workload)) == 1
        return np.where(lone, first, self.e2e)

    @property
    def pace(self) -> Numbers:
        """Seconds a further token of each call, NaN of those that were not taken or have only one."""
        done = (self.calls["state"] == _DELIVERED) & (self.calls["output"] > 1)
        further = np.where(done, self.calls["output"] - 1, 1)
        return np.where(done, (self.calls["finished"] - self.calls["first"]) / further, np.nan)

    @property
    def tpot(self) -> Numbers:
        """Seconds a further token, of each call that was taken and has more than one."""
        pace = self.pace
        return pace[~np.isnan(pace)]

    def meets(self, ttft: float | None = None, tpot: float | None = None) -> NDArray[np.bool_]:
        """Whether each group kept targets of latency, in seconds; one that is not done did not."""
        met = ~np.isnan(self.closed)
        if ttft is not None:
            met &= self.ttft <= ttft
        if tpot is not None:
            slow = self.pace > tpot
            met &= np.bincount(self.workload.group[self.workload.stage], slow, met.size) == 0
        return np.asarray(met)

    def throughput(self, begin: float = 0.0, end: float | None = None) -> float:
        """Groups that are done a second between two times."""
        closed, last = self.closed, self.end if end is None else end
        return float(((closed > begin) & (closed <= last)).sum() / (last - begin)) if last > begin else 0.0

    @property
    def mean_queue(self) -> float:
        """Calls waiting, on average over time."""
        return self.queued_seconds / self.end if self.end else 0.0

    @property
    def call_iterations(self) -> int:
        """Iterations summed over the calls inside: what the simulator has worked through."""
        return int(self.replicas["call_steps"].sum())


_DELIVERED = 5


def _known(times: Numbers) -> Numbers:
    return np.where(times < 0, np.nan, times)


def simulate(workload: Workload, rules: ServerRules, *, until: float = float("inf")) -> SimulationRun:
    """Serve a workload from an empty server until everything is done, or up to a time.

    Raises BadInput where the extra `plan` is missing, a group has no time of arrival, or a call can never fit.
    """
    need_extra("plan", "simulator", "numba")
    from outthink.economics.simulator.groups import run

    workload.checked()
    rules.need(workload)
    world = _world(workload, rules)
    run(world, rules.profile.table(_TABLE), until)
    state = world.rules[0]
    return SimulationRun(
        workload,
        float(state["now"]),
        world.calls,
        world.stages,
        world.replicas,
        float(state["queued_seconds"]),
        float(state["inside_seconds"]),
    )


def _world(workload: Workload, rules: ServerRules) -> World:
    """All records and lists of a run that has not begun."""
    from outthink.economics.simulator import tables

    first = workload.first_stages
    times = workload.arrival[first]
    if not np.isfinite(times).all():
        raise BadInput("arrival", float("nan"), "is missing", "give each group a time of arrival")
    calls, stages = _calls(workload, rules), _stages(workload)
    stages["arriving"][: first.size] = first[np.argsort(times, kind="stable")]
    replicas, priorities = rules.replicas, int(calls["priority"].max()) + 1
    servers = np.zeros(replicas, tables.REPLICA)
    servers["clock"] = np.inf
    prefixes = _prefixes(calls, len(workload), rules)
    # A slot of the ring is met again only after the longest time that a call can be due in.
    ring = 1 << (max(int(workload.output.max()), rules.window) + 2).bit_length()
    sizes = (replicas * priorities, replicas * priorities, replicas, replicas, replicas * ring, 1, 1)
    places = 2 * calls.size + prefixes.size
    lists = ("queues", "active", "unused", "reading", "rings", "ended", "judging")
    heads = dict(zip(lists, places + np.cumsum((0, *sizes)), strict=False))
    state = np.zeros(1, tables.RULES)
    numbers = {"priorities": priorities, "ring": ring, "calls": calls.size, "groups": first.size}
    for name, value in (_settings(rules) | numbers | heads).items():
        state[name] = value
    links = np.zeros(places + sum(sizes), tables.LINK)
    links["next"] = links["previous"] = np.arange(links.size)
    phases = np.zeros(2 * replicas * rules.block, np.int64)
    return tables.World(state, calls, stages, servers, prefixes, links, phases)


def _settings(rules: ServerRules) -> dict[str, float]:
    """The server as the compiled code reads it."""
    profile = rules.profile
    return {
        "replicas": rules.replicas,
        "memory": min(rules.memory, 1 << 60),
        "block": rules.block,
        "full": rules.full,
        "windowed": rules.windowed,
        "window": rules.window,
        "chunk": rules.chunk or profile.chunk,
        "batch_tokens": rules.batch_tokens or _UNLIMITED,
        "sequences": rules.sequences or _UNLIMITED,
        "keep": rules.preempt == "keep",
        "router": ROUTERS.index(rules.router) if rules.replicas > 1 else 0,
        "group_first": rules.scheduling == "priority",
        "turn": -1,
        "judge": rules.judge or profile.judge,
        "per_sequence": profile.per_sequence,
        "per_context": profile.per_context,
        "per_prefill": profile.per_prefill,
    }


def _prefixes(calls: Records, groups: int, rules: ServerRules) -> Records:
    """The shared prompt of each group on each replica, none read yet."""
    from outthink.economics.simulator import tables

    sharing = bool(calls["shared"].any())
    prefixes = np.zeros(groups * rules.replicas if sharing else 0, tables.PREFIX)
    prefixes["owner"] = tables.NONE
    if sharing:
        size = calls["shared"] * rules.full
        if rules.windowed:
            size += rules.windowed * (-(-np.minimum(calls["shared"], rules.window) // rules.block) * rules.block)
        for replica in range(rules.replicas):
            np.maximum.at(prefixes["size"], calls["prefix"] * rules.replicas + replica, size)
    return prefixes


def _calls(workload: Workload, rules: ServerRules) -> Records:
    from outthink.economics.simulator import tables

    calls = np.zeros(workload.stage.size, tables.CALL)
    calls["stage"], calls["prompt"], calls["output"] = workload.stage, workload.prompt, workload.output
    calls["cached"], calls["verifier"] = workload.cached, workload.verifier
    calls["prefix"] = group = workload.group[workload.stage]
    common = np.zeros(len(workload), np.int64)
    np.maximum.at(common, group, workload.shared)
    # A call that has less in common with its group reads all of it. The last page of a shared prompt is each call's
    # own: it goes on in it.
    calls["shared"] = np.where(workload.shared < common[group], 0, workload.shared) // rules.block * rules.block
    # With priority scheduling each priority has two queues: what has begun, and what is new.
    twofold = rules.scheduling == "priority"
    calls["priority"] = workload.priority[workload.stage] * (1 + twofold) + twofold
    for name in ("launched", "admitted", "first", "finished"):
        calls[name] = -1.0
    return calls


def _stages(workload: Workload) -> Records:
    from outthink.economics.simulator import tables

    stages = np.zeros(workload.group.size, tables.STAGE)
    # A group is known by its first stage, where what is counted for all its stages stands.
    stages["group"] = workload.first_stages[workload.group]
    stages["start"], stages["count"] = workload.starts, workload.sizes
    stages["ahead"], stages["rule"], stages["need"] = workload.ahead, workload.rule, workload.need
    stages["arrival"] = workload.arrival
    stages["first_after"] = stages["next_after"] = stages["home"] = tables.NONE
    for stage in np.flatnonzero(workload.after >= 0)[::-1]:
        before = workload.after[stage]
        stages["next_after"][stage], stages["first_after"][before] = stages["first_after"][before], stage
    stages["left"][workload.first_stages] = np.bincount(workload.group, minlength=len(workload))
    stages["opened"] = stages["closed"] = -1.0
    return stages
