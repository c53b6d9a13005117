"""A continuous-batching server by the letter of its rules, one call at a time: what the compiled one is compared with.

Each iteration looks at every call and counts memory from nothing; there are no sums that are kept up to date.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from outthink.economics.simulator.simulate import ServerRules
from outthink.economics.workload import LAUNCHED, Workload

NEW, QUEUED, READING, WRITING, FINISHED, DELIVERED, CANCELLED = range(7)
UNLIMITED = 1 << 60


@dataclass(eq=False)
class NaiveCall:
    """`cache` tokens lie in memory (None while a sibling reads what they share), `generated` ones are written."""

    number: int
    group: int
    stage: NaiveStage
    priority: int
    prompt: int
    shared: int
    cached: int
    output: int
    verifier: int
    state: int = NEW
    server: NaiveServer | None = None
    cache: int | None = None
    target: int = 0
    generated: int = 0
    launched: float = -1.0
    admitted: float = -1.0
    first: float = -1.0
    finished: float = -1.0


@dataclass(eq=False)
class NaiveStage:
    group: int
    after: int
    ahead: int
    rule: int
    need: int
    calls: list[NaiveCall] = field(default_factory=list)
    opened: float = -1.0
    closed: float = -1.0


@dataclass(eq=False)
class NaiveServer:
    """One replica. `there` says since which iteration the shared prompt of a group is read, oldest unused first."""

    rules: ServerRules
    costs: list[float]
    now: float | None = None
    queue: list[NaiveCall] = field(default_factory=list)
    inside: list[NaiveCall] = field(default_factory=list)
    there: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    iterations: int = 0
    preemptions: int = 0
    wasted: int = 0
    read: int = 0
    written: int = 0
    busy: float = 0.0

    @property
    def chunk(self) -> int:
        return self.rules.chunk or self.rules.profile.chunk

    @property
    def budget(self) -> int:
        return self.rules.batch_tokens or UNLIMITED

    def bytes(self, tokens: int) -> int:
        rules = self.rules
        pages = -(-tokens // rules.block)
        windowed = -(-min(tokens, rules.window) // rules.block) if rules.windowed else 0
        return rules.block * (rules.full * pages + rules.windowed * windowed)

    def users(self, group: int) -> list[NaiveCall]:
        return [call for call in self.inside if call.group == group and call.shared]

    def used(self) -> int:
        """What calls inside hold: their own, and once a group the shared prompt that is read."""
        total = 0
        for call in self.inside:
            total += self.bytes(call.cache or 0)
            if call.cache is not None and call.shared and call.group in self.there:
                total -= self.bytes(call.shared)
        return total + sum(self.bytes(self.sizes[group]) for group in self.there if self.users(group))

    def unused(self) -> list[int]:
        """Groups whose shared prompt is kept for nobody."""
        return [group for group in self.there if not self.users(group)]

    def held(self) -> int:
        return self.used() + sum(self.bytes(self.sizes[group]) for group in self.unused())

    def leave(self, call: NaiveCall) -> None:
        self.inside.remove(call)
        call.cache = None
        if call.shared and call.group in self.there and not self.users(call.group):
            self.there[call.group] = self.there.pop(call.group)  # the newest of the unused

    # The parts of an iteration.

    def start(self, call: NaiveCall) -> None:
        """Where it begins to read: behind what is there, or at its first token; None while a sibling reads."""
        if not call.shared:
            call.cache = 0
        elif call.group in self.there:
            call.cache = max(call.shared, call.cached)
            call.cached = 0
        elif all(user is call or user.cache is None for user in self.users(call.group)):
            call.cache = call.cached = 0

    def next_chunk(self, call: NaiveCall, left: int) -> int:
        """Tokens it reads now; one whose prompt is all there still has its last token computed."""
        if call.cache is None:
            return 0
        return max(1, min(call.target - call.cache, self.chunk, left))

    def admit(self) -> None:
        left = self.budget - sum(call.state == WRITING for call in self.inside)
        for call in [call for call in self.inside if call.state == READING]:
            if left > 0:
                if call.cache is None:
                    self.start(call)
                left -= self.next_chunk(call, left)
        promised = 0
        for call in sorted(self.queue, key=lambda call: call.priority):
            if len(self.inside) >= (self.rules.sequences or UNLIMITED) or left <= 0:
                return
            there = bool(call.shared) and (call.group in self.there or bool(self.users(call.group)))
            known = max(call.shared, call.cached) if there else 0
            chunk = min(call.target - known, self.chunk, left)
            own = self.bytes(known + chunk) - (self.bytes(call.shared) if there else 0)
            prompt = self.bytes(call.shared) if there and call.group in self.unused() else 0
            if self.used() + promised + prompt + own > self.rules.memory:
                return
            self.queue.remove(call)
            before = self.used() + prompt
            self.inside.append(call)
            call.state = READING
            if call.admitted < 0:
                assert self.now is not None
                call.admitted = self.now
            self.start(call)
            promised += own - (self.used() - before)
            left -= self.next_chunk(call, left)

    def grow(self) -> float:
        """One token for each that writes, the next chunk for each that reads; returns the seconds that it takes."""
        self.iterations += 1
        writing = [call for call in self.inside if call.state == WRITING]
        for call in writing:
            assert call.cache is not None
            call.cache += 1
            call.generated += 1
        left, read, sequences = self.budget - len(writing), 0, len(self.inside)
        contexts, within = sum(call.cache or 0 for call in writing), 0
        if self.rules.windowed:
            within = sum(min(call.cache or 0, self.rules.window) for call in writing)
        for call in [call for call in self.inside if call.state == READING]:
            if left <= 0:
                break
            if call.cache is None:
                before = [group for group in self.there if self.there[group] < self.iterations]
                if call.group in before or call.group not in self.there:
                    self.start(call)
            if call.cache is None:
                continue
            taken = self.next_chunk(call, left)
            left, read = left - taken, read + taken
            call.cache = min(call.target, call.cache + taken)
            if call.shared and call.cache >= call.shared and call.group not in self.there:
                self.there[call.group], self.sizes[call.group] = self.iterations, call.shared
            if call.cache == call.target:
                call.state = WRITING
        self.read += read
        self.written += len(writing)
        profile, full, windowed = self.rules.profile, self.rules.full, self.rules.windowed
        attended = Fraction(full * contexts + windowed * within, full + windowed) if windowed else contexts
        seconds = self.costs[len(writing) + read] + profile.per_sequence * sequences
        return seconds + profile.per_context * float(attended) + profile.per_prefill * read

    def make_room(self) -> None:
        while self.held() > self.rules.memory:
            if unused := self.unused():
                del self.there[unused[0]]
                continue
            last = max(call.priority for call in self.inside)
            call = [call for call in self.inside if call.priority == last][-1]
            self.leave(call)
            self.preemptions += 1
            if self.rules.preempt == "restart":
                self.wasted += call.generated
                call.generated = 0
            call.target = call.prompt + call.generated
            call.state = QUEUED
            self.queue.insert(0, call)

    def begin(self) -> None:
        assert self.now is not None
        self.admit()
        if not self.inside:
            self.now = None
            return
        seconds = self.grow()
        self.make_room()
        self.busy += seconds
        self.now += seconds


class NaiveRun:
    """A workload served to its end, or to the last event up to a time."""

    def __init__(self, workload: Workload, rules: ServerRules, until: float = float("inf")) -> None:
        self.rules, self.now, self.turn = rules, 0.0, -1
        costs = rules.profile.table(1000).tolist()
        self.servers = [NaiveServer(rules, costs) for _ in range(rules.replicas)]
        columns = zip(workload.group, workload.after, workload.ahead, workload.rule, workload.need, strict=True)
        self.stages = [NaiveStage(*map(int, row)) for row in columns]
        self.calls: list[NaiveCall] = []
        self.judged: list[tuple[float, int]] = []
        self.homes: dict[int, NaiveServer] = {}
        self.arrived: dict[int, float] = {}
        self.queued_seconds = self.inside_seconds = 0.0
        common = [max(workload.shared[workload.group[workload.stage] == group]) for group in range(len(workload))]
        for number, at in enumerate(workload.stage):
            stage = self.stages[at]
            lengths = (workload.prompt, workload.shared, workload.cached, workload.output, workload.verifier)
            prompt, shared, cached, output, verifier = (int(column[number]) for column in lengths)
            shared = shared // rules.block * rules.block if shared == common[stage.group] else 0
            priority = int(workload.priority[at])
            call = NaiveCall(number, stage.group, stage, priority, prompt, shared, cached, output, verifier)
            stage.calls.append(call)
            self.calls.append(call)
        first = workload.first_stages
        self.coming = sorted((float(workload.arrival[at]), int(at)) for at in first)
        while self.event(until):
            pass

    def event(self, until: float) -> bool:
        """The next thing that happens; of several at one time arrivals, then verifiers, then iterations."""
        times = [(server.now, 2, at) for at, server in enumerate(self.servers) if server.now is not None]
        times += [(time, 1, number) for time, number in self.judged]
        times += [(time, 0, stage) for time, stage in self.coming[:1]]
        if not times or min(times)[0] > until:
            return False
        now, kind, at = min(times)
        for server in self.servers:
            self.queued_seconds += len(server.queue) * (now - self.now)
            self.inside_seconds += (len(server.queue) + len(server.inside)) * (now - self.now)
        self.now = now
        if kind == 0:
            self.coming.pop(0)
            self.arrived[self.stages[at].group] = now
            self.open(self.stages[at])
        elif kind == 1:
            self.judged.remove((now, at))
            self.deliver(self.calls[at])
        else:
            self.end(self.servers[at])
            self.servers[at].begin()
        return True

    def end(self, server: NaiveServer) -> None:
        """First tokens and finished calls are noted, those leave, and their stages go on."""
        done = []
        for call in self.calls:
            if call.server is server and call.state in (QUEUED, READING, WRITING) and call.generated:
                call.first = self.now if call.first < 0 else call.first
                if call.generated == call.output:
                    done.append(call)
        for call in done:
            server.queue.remove(call) if call.state == QUEUED else server.leave(call)
            call.state, call.finished = FINISHED, self.now
        for call in done:
            if call.stage.closed >= 0:
                continue
            if call.verifier:
                speed = self.rules.judge or self.rules.profile.judge
                self.judged.append((self.now + call.verifier / speed, call.number))
            else:
                self.deliver(call)
        for call in done:
            if call.stage.closed < 0:
                self.refill(call.stage)

    def open(self, stage: NaiveStage) -> None:
        stage.opened = self.now
        self.refill(stage)

    def refill(self, stage: NaiveStage) -> None:
        for call in stage.calls:
            flying = sum(other.state in (QUEUED, READING, WRITING) for other in stage.calls)
            if call.state == NEW and flying < stage.ahead:
                call.server = server = self.route(call)
                call.state, call.launched, call.target = QUEUED, self.now, call.prompt
                if self.rules.scheduling == "priority":  # what has begun goes before what is new
                    begun = self.now > self.arrived[call.group]
                    call.priority = 2 * call.priority + (not begun)
                server.queue.append(call)
                server.now = self.now if server.now is None else server.now

    def route(self, call: NaiveCall) -> NaiveServer:
        self.turn = (self.turn + 1) % len(self.servers)
        if self.rules.router == "round-robin":
            return self.servers[self.turn]
        if self.rules.router == "prefix-aware" and call.shared and call.group in self.homes:
            return self.homes[call.group]
        best = min(self.servers, key=lambda server: len(server.queue) + len(server.inside))
        if call.shared:
            self.homes[call.group] = best
        return best

    def deliver(self, call: NaiveCall) -> None:
        stage = call.stage
        if stage.closed >= 0:
            return
        call.state = DELIVERED
        wanted = stage.calls[: stage.need] if stage.rule == LAUNCHED else stage.calls
        taken = [each for each in wanted if each.state == DELIVERED]
        if len(taken) < stage.need:
            return
        stage.closed = self.now
        for each in stage.calls:
            if each.state != NEW and each not in taken:
                self.cancel(each)
        group = [each for each in self.stages if each.group == stage.group]
        if all(each.closed >= 0 for each in group):
            for server in self.servers:
                if not server.users(stage.group):
                    server.there.pop(stage.group, None)
        for each in self.stages:
            if each.after >= 0 and self.stages[each.after] is stage:
                self.open(each)

    def cancel(self, call: NaiveCall) -> None:
        server = call.server
        assert server is not None
        server.wasted += call.generated
        if call.state == QUEUED:
            server.queue.remove(call)
        elif call.state in (READING, WRITING):
            server.leave(call)
        else:
            return
        call.state, call.finished = CANCELLED, self.now
