"""One iteration of a replica, compiled: admission, growth, preemption.

Knows: that a call that writes gains a token in every iteration and is touched only when something happens to it. Its
next event stands in a ring by the number of the iteration, and sums over all calls grow by counts. Does not know
groups and what they wait for.
"""

from __future__ import annotations

import numpy as np

from outthink.economics.simulator.tables import (
    NONE,
    QUEUED,
    READING,
    WRITING,
    Seconds,
    World,
    append,
    bytes_of,
    inner,
    remove,
)


@inner
def note(world: World, call: int, step: int) -> None:
    """Something happens to it in that iteration of its replica."""
    rules = world.rules[0]
    append(world, rules.rings + world.calls[call].replica * rules.ring + (step & (rules.ring - 1)), rules.calls + call)


@inner
def schedule(world: World, call: int) -> None:
    """When something happens to it next: its first token, leaving the window, its end."""
    rules, it = world.rules[0], world.calls[call]
    step = world.replicas[it.replica].steps
    due = it.begin + it.output - it.generated
    if it.first < 0:
        due = min(due, step + 1)
    if rules.windowed > 0:
        leaves = it.begin + rules.window - it.target
        if step < leaves < due:
            due = leaves
    it.due = due
    note(world, call, due)


@inner
def stop_writing(world: World, call: int) -> None:
    """Take it out of the sums and the ring."""
    rules, it = world.rules[0], world.calls[call]
    here = world.replicas[it.replica]
    step = here.steps
    context = it.target + step - it.begin
    remove(world, rules.calls + call)
    here.writing -= 1
    here.contexts -= context
    phase = (context - step) % rules.block
    world.phases[2 * it.replica * rules.block + phase] -= 1
    if rules.windowed > 0:
        here.contexts_within -= min(context, rules.window)
        leaves = it.begin + rules.window - it.target
        # The iteration in which it leaves is not over before its event has been seen.
        if it.target < rules.window and (step < leaves or (step == leaves and it.due == step)):
            here.within -= 1
            world.phases[(2 * it.replica + 1) * rules.block + phase] -= 1


@inner
def vacate(world: World, call: int) -> int:
    """Take an active call out of its replica, with its memory; returns the tokens that it has written since `begin`."""
    rules, it = world.rules[0], world.calls[call]
    replica, shared = it.replica, it.shared
    here = world.replicas[replica]
    context, written = max(0, it.computed), 0
    if it.state == WRITING:
        written = here.steps - it.begin
        context = it.target + written
        stop_writing(world, call)
    else:
        remove(world, rules.calls + call)
    remove(world, call)
    here.active -= 1
    if shared == 0:
        here.used -= bytes_of(world, context)
        return written
    place = it.prefix * rules.replicas + replica
    prefix = world.prefixes[place]
    if prefix.owner == call:
        prefix.owner = NONE
        here.used -= bytes_of(world, context)
    elif context > shared:
        here.used -= bytes_of(world, context) - bytes_of(world, shared)
    prefix.users -= 1
    if prefix.users == 0 and prefix.ready > 0:
        here.used -= prefix.size
        here.idle += prefix.size
        append(world, rules.unused + replica, 2 * rules.calls + place)
    return written


@inner
def forget(world: World, replica: int, place: int) -> None:
    """Evict a shared prompt that nobody uses."""
    remove(world, 2 * world.rules[0].calls + place)
    world.replicas[replica].idle -= world.prefixes[place].size
    world.prefixes[place].ready = 0


@inner
def admit(world: World, replica: int) -> None:
    """Let in what waits, front first, while its first chunk fits beside what is resident."""
    rules, calls, here = world.rules[0], world.calls, world.replicas[replica]
    left = rules.batch_tokens - here.writing
    node = world.links[rules.reading + replica].next
    while node != rules.reading + replica and left > 0:
        it = calls[node - rules.calls]
        if it.computed == NONE:
            wake(world, node - rules.calls)
        if it.computed != NONE:
            left -= max(1, min(rules.chunk, it.target - it.computed))
        node = world.links[node].next
    held = here.used
    for priority in range(rules.priorities):
        head = rules.queues + replica * rules.priorities + priority
        call = world.links[head].next
        while call != head:
            if here.active >= rules.sequences or left <= 0:
                return
            it, beside = calls[call], 0
            if it.shared > 0:
                prefix = world.prefixes[it.prefix * rules.replicas + replica]
                if prefix.ready > 0 or prefix.owner != NONE:
                    beside = it.shared
                if prefix.ready > 0 and prefix.users == 0:
                    held += prefix.size
            known = max(beside, it.cached) if beside > 0 else 0
            need = min(it.target - known, rules.chunk, left)
            held += bytes_of(world, known + need) - bytes_of(world, beside)
            if held > rules.memory:
                return
            remove(world, call)
            here.queued -= 1
            enter(world, call)
            if it.computed != NONE:
                left -= max(1, need)
            call = world.links[head].next


@inner
def enter(world: World, call: int) -> None:
    """Give an admitted call its place; what is in the cache already need not be read."""
    rules, it = world.rules[0], world.calls[call]
    here = world.replicas[it.replica]
    it.state = READING
    if it.admitted < 0:
        it.admitted = here.clock
    append(world, rules.active + it.replica * rules.priorities + it.priority, call)
    append(world, rules.reading + it.replica, rules.calls + call)
    here.active += 1
    it.computed = 0
    if it.shared == 0:
        return
    place = it.prefix * rules.replicas + it.replica
    prefix = world.prefixes[place]
    if prefix.users == 0 and prefix.ready > 0:
        remove(world, 2 * rules.calls + place)
        here.idle -= prefix.size
        here.used += prefix.size
    prefix.users += 1
    it.computed = NONE
    wake(world, call)


@inner
def wake(world: World, call: int) -> None:
    """Begin behind a shared prompt that is there and what an earlier call has left, or read it if nobody does."""
    rules, it = world.rules[0], world.calls[call]
    prefix = world.prefixes[it.prefix * rules.replicas + it.replica]
    if prefix.ready > 0:
        it.computed = max(it.shared, it.cached)
        world.replicas[it.replica].used += bytes_of(world, it.computed) - bytes_of(world, it.shared)
    elif prefix.owner == NONE:
        prefix.owner = call
        it.computed = 0
    else:
        return
    it.cached = 0  # after a preemption only the shared prompt is still there


@inner
def grow(world: World, replica: int) -> int:
    """One token for each that writes, a chunk for each that reads; returns the tokens read."""
    rules, here = world.rules[0], world.replicas[replica]
    block, step = rules.block, here.steps
    phase = (-step) % block
    here.used += rules.full * block * world.phases[2 * replica * rules.block + phase]
    if rules.windowed > 0:
        here.used += rules.windowed * block * world.phases[(2 * replica + 1) * rules.block + phase]
        here.contexts_within += here.within
    here.contexts += here.writing
    here.steps = step + 1
    here.written += here.writing
    written_to, written_within = here.contexts, here.contexts_within
    left, read = rules.batch_tokens - here.writing, 0
    node = world.links[rules.reading + replica].next
    while node != rules.reading + replica and left > 0:
        behind = world.links[node].next
        taken = read_on(world, node - rules.calls, left)
        left -= taken
        read += taken
        node = behind
    here.read += read
    here.fresh, here.fresh_within = here.contexts - written_to, here.contexts_within - written_within
    return read


@inner
def read_on(world: World, call: int, left: int) -> int:
    """The next chunk of a prompt, of at most `left` tokens; siblings wait until the prompt they share is read."""
    rules, it = world.rules[0], world.calls[call]
    here, shared, place = world.replicas[it.replica], it.shared, 0
    if shared > 0:
        place = it.prefix * rules.replicas + it.replica
        if it.computed == NONE:
            if world.prefixes[place].ready < here.steps:  # not in the iteration in which it is read
                wake(world, call)
            if it.computed == NONE:
                return 0
    computed, target = it.computed, it.target
    taken = min(target - computed, rules.chunk, left)
    here.used += bytes_of(world, computed + taken) - bytes_of(world, computed)
    it.computed = computed + taken
    if shared > 0 and computed + taken >= shared:
        prefix = world.prefixes[place]
        if prefix.owner == call:
            prefix.owner = NONE
            prefix.ready = here.steps
    if computed + taken == target:
        begin_writing(world, call)
    computed_now: int = max(1, taken)
    return computed_now


@inner
def begin_writing(world: World, call: int) -> None:
    """Its prompt is read: from the next iteration on it gains a token in each."""
    rules, it = world.rules[0], world.calls[call]
    here, context, block = world.replicas[it.replica], it.target, rules.block
    remove(world, rules.calls + call)
    it.state, it.begin = WRITING, here.steps
    here.writing += 1
    here.contexts += context
    phase = (context - here.steps) % block
    world.phases[2 * it.replica * block + phase] += 1
    if rules.windowed > 0:
        here.contexts_within += min(context, rules.window)
        if context < rules.window:
            here.within += 1
            world.phases[(2 * it.replica + 1) * block + phase] += 1
    schedule(world, call)


@inner
def make_room(world: World, replica: int) -> None:
    """Give up first what nobody uses, then the newest of the last priority, which goes back to the front."""
    rules, here = world.rules[0], world.replicas[replica]
    while here.used + here.idle > rules.memory:
        oldest = world.links[rules.unused + replica].next
        if oldest != rules.unused + replica:
            forget(world, replica, oldest - 2 * rules.calls)
            continue
        head = rules.active + (replica + 1) * rules.priorities - 1
        while world.links[head].previous == head:
            head -= 1
        newest = world.links[head].previous
        it = world.calls[newest]
        written = vacate(world, newest)
        here.preemptions += 1
        if rules.keep > 0:
            it.generated += written
            if written > 0 and (it.first < 0 or it.generated == it.output):
                # What it has written in this iteration is there all the same, and counts when the iteration ends.
                note(world, newest, here.steps)
        else:
            here.wasted += it.generated + written
            it.generated = 0
        it.target = it.prompt + it.generated
        it.state = QUEUED
        here.queued += 1
        first = world.links[rules.queues + replica * rules.priorities + it.priority].next
        append(world, first, newest)  # before the first one that waits


@inner
def begin_step(world: World, replica: int, base: Seconds) -> None:
    """Admit, grow, make room, and say when this iteration ends."""
    rules, here = world.rules[0], world.replicas[replica]
    if here.queued:
        admit(world, replica)
    if here.active == 0:
        here.clock = np.inf
        return
    tokens, inside = here.writing, here.active
    read = grow(world, replica)
    # The cost is that of what was computed: a call that ends reading now writes only in the next iteration.
    contexts = float(here.contexts - here.fresh)
    if rules.windowed > 0:
        within = here.contexts_within - here.fresh_within
        contexts = (rules.full * contexts + rules.windowed * within) / (rules.full + rules.windowed)
    tokens += read
    if here.used + here.idle > rules.memory:
        make_room(world, replica)
    last = base.size - 1
    seconds = base[min(tokens, last)] + max(0, tokens - last) * (base[last] - base[last - 1])
    seconds += rules.per_sequence * inside + rules.per_context * contexts + rules.per_prefill * read
    here.iterations += 1
    here.call_steps += inside
    here.busy += seconds
    here.contexts_sum += contexts
    here.clock += seconds
