"""Groups of calls over simulated replicas, compiled: arrivals, launch order, stopping, cancelling, judging, routing.

Knows when a call is launched and when a stage has what it waits for. How a replica serves calls is `replica`'s.
"""

from __future__ import annotations

import numpy as np

from outthink.economics.simulator.replica import begin_step, forget, schedule, vacate
from outthink.economics.simulator.tables import (
    CANCELLED,
    DELIVERED,
    FINISHED,
    NONE,
    PREFIX_AWARE,
    QUEUED,
    READING,
    ROUND_ROBIN,
    WRITING,
    Seconds,
    World,
    append,
    entry,
    inner,
    kept_in_cache,
    remove,
)
from outthink.economics.workload import LAUNCHED


@inner
def line_up(world: World, head: int, call: int, time: float) -> None:
    """Put a call that is no more inside into a list in the order of time, those of one time in launch order."""
    links, calls, behind = world.links, world.calls, head
    calls[call].judged = time
    while links[behind].previous != head:
        before = links[behind].previous
        if calls[before].judged < time or (calls[before].judged == time and before < call):
            break
        behind = before
    append(world, behind, call)


@inner
def route(world: World, call: int) -> int:
    """The replica of a call: in turn, the one with the fewest calls, or the one that holds its group's prompt."""
    rules, replicas = world.rules[0], world.replicas
    if rules.router == ROUND_ROBIN:
        turn: int = (rules.turn + 1) % rules.replicas
        rules.turn = turn
        return turn
    group = world.stages[world.stages[world.calls[call].stage].group]
    best: int = group.home
    if rules.router == PREFIX_AWARE and world.calls[call].shared > 0 and best != NONE:
        return best
    best = 0
    for other in range(1, rules.replicas):
        if replicas[other].active + replicas[other].queued < replicas[best].active + replicas[best].queued:
            best = other
    if world.calls[call].shared > 0:
        group.home = best
    return best


@inner
def refill(world: World, stage: int) -> None:
    """Launch what may be in flight."""
    it, rules = world.stages[stage], world.rules[0]
    while it.launched < it.count and it.in_flight < it.ahead:
        call = it.start + it.launched
        it.launched += 1
        it.in_flight += 1
        asked = world.calls[call]
        if rules.group_first > 0 and (it.launched > it.ahead or world.rules[0].now > world.stages[it.group].opened):
            asked.priority -= 1
        asked.replica = route(world, call)
        asked.target = asked.prompt
        asked.launched = rules.now
        asked.state = QUEUED
        here = world.replicas[asked.replica]
        here.queued += 1
        append(world, rules.queues + asked.replica * rules.priorities + asked.priority, call)
        if here.clock == np.inf:
            here.clock = rules.now


@inner
def cancel(world: World, call: int) -> None:
    """End a call that its stage needs no more; what it has written is wasted."""
    it = world.calls[call]
    here = world.replicas[it.replica]
    if it.state == QUEUED:
        remove(world, call)
        here.queued -= 1
        here.wasted += it.generated
    elif it.state == READING or it.state == WRITING:
        it.generated += vacate(world, call)
        here.wasted += it.generated
    else:  # it has finished, or is being judged
        here.wasted += it.output
        return
    it.state = CANCELLED
    it.finished = world.rules[0].now


@inner
def close(world: World, stage: int) -> None:
    """It has what it needs: cancel the rest, and drop a shared prompt that no stage of the group will use."""
    it = world.stages[stage]
    it.closed = world.rules[0].now
    for call in range(it.start, it.start + it.launched):
        taken = call < it.start + it.consumed if it.rule == LAUNCHED else world.calls[call].state == DELIVERED
        if not taken:
            cancel(world, call)
    group = world.stages[it.group]
    group.left -= 1
    if group.left == 0 and world.prefixes.size > 0:
        for replica in range(world.rules[0].replicas):
            place = world.calls[it.start].prefix * world.rules[0].replicas + replica
            if world.prefixes[place].ready > 0 and world.prefixes[place].users == 0:
                forget(world, replica, place)


@inner
def deliver(world: World, call: int) -> None:
    """Hand a finished call to its stage."""
    it = world.stages[world.calls[call].stage]
    if it.closed >= 0:
        return
    world.calls[call].state = DELIVERED
    if it.rule == LAUNCHED:
        while it.consumed < it.need and world.calls[it.start + it.consumed].state == DELIVERED:
            it.consumed += 1
    else:
        it.consumed += 1
    if it.consumed < it.need:
        return
    close(world, world.calls[call].stage)
    behind = it.first_after
    while behind != NONE:
        world.stages[behind].opened = world.rules[0].now
        refill(world, behind)
        behind = world.stages[behind].next_after


@inner
def leave(world: World, call: int) -> None:
    """Its last token is written: it goes, and stands in launch order among those that end now."""
    rules, it = world.rules[0], world.calls[call]
    if it.state == QUEUED:
        remove(world, rules.calls + call)
        remove(world, call)
        world.replicas[it.replica].queued -= 1
    else:
        vacate(world, call)
    it.state = FINISHED
    it.finished = rules.now
    line_up(world, rules.ended, call, rules.now)


@inner
def end_step(world: World, replica: int) -> None:
    """What the iteration that ends now has brought: first tokens and ends, and only then what follows from them."""
    rules, here, calls, stages = world.rules[0], world.replicas[replica], world.calls, world.stages
    step = here.steps
    head = rules.rings + replica * rules.ring + (step & (rules.ring - 1))
    node = world.links[head].next
    while node != head:
        call = node - rules.calls
        it = calls[call]
        if it.first < 0 and it.state != CANCELLED:
            it.first = rules.now
        written = step - it.begin if it.state == WRITING else 0
        if it.state != CANCELLED and it.generated + written == it.output:
            leave(world, call)
        elif it.state != WRITING:  # it was preempted in this iteration
            remove(world, node)
        else:
            remove(world, node)
            if rules.windowed > 0 and step == it.begin + rules.window - it.target:
                # From now on its windowed cache drops a token for each that it gains.
                here.within -= 1
                world.phases[(2 * replica + 1) * rules.block + (rules.window - step) % rules.block] -= 1
            schedule(world, call)
        node = world.links[head].next
    call = world.links[rules.ended].next
    while call != rules.ended:
        stages[calls[call].stage].in_flight -= 1
        if calls[call].verifier == 0:
            deliver(world, call)
        call = world.links[call].next
    while world.links[rules.ended].next != rules.ended:
        call = world.links[rules.ended].next
        remove(world, call)
        it = calls[call]
        if stages[it.stage].closed < 0:
            if it.verifier > 0:
                line_up(world, rules.judging, call, rules.now + it.verifier / rules.judge)
            refill(world, it.stage)


@inner
def nearest(world: World) -> int:
    """The replica whose iteration ends first."""
    replica = 0
    for other in range(1, world.rules[0].replicas):
        if world.replicas[other].clock < world.replicas[replica].clock:
            replica = other
    return replica


@inner
def wait(world: World, now: float) -> None:
    """Time goes on; what waits and what is inside is summed over it."""
    rules = world.rules[0]
    queued, active = 0, 0
    for replica in range(rules.replicas):
        queued += world.replicas[replica].queued
        active += world.replicas[replica].active
    rules.queued_seconds += queued * (now - rules.now)
    rules.inside_seconds += (queued + active) * (now - rules.now)
    rules.now = now


def _run(world: World, base: Seconds, until: float) -> None:
    """Go on until everything is done, or to the last event up to `until`.

    Args:
        base: seconds of a step by the tokens computed in it; beyond the last, as straight as it ends.
    """
    rules, stages = world.rules[0], world.stages
    while True:
        replica = nearest(world)
        now, kind = world.replicas[replica].clock, 0
        judged = world.links[rules.judging].next
        if judged != rules.judging and world.calls[judged].judged <= now:
            now, kind = world.calls[judged].judged, 1
        if rules.coming < rules.groups and stages[stages[rules.coming].arriving].arrival <= now:
            now, kind = stages[stages[rules.coming].arriving].arrival, 2
        if now > until or now == np.inf:
            return
        wait(world, now)
        if kind == 0:
            end_step(world, replica)
            begin_step(world, replica, base)
        elif kind == 1:
            remove(world, judged)
            deliver(world, judged)
        else:
            stage = stages[rules.coming].arriving
            rules.coming += 1
            stages[stage].opened = now
            refill(world, stage)


with kept_in_cache():
    run = entry(_run)
