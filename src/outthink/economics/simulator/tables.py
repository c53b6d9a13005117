"""What the compiled simulator works on: records in arrays, linked lists over one pool, and how functions are compiled.

Knows: the fields, that a server's memory is counted in bytes and in whole blocks, and where compiled code is kept. Does
not know what happens to a call. Importing it needs the extra `plan`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from outthink.core.paths import cache_dir

numba: Any = import_module("numba")  # its own types know half of what it does
F = TypeVar("F")
Records = NDArray[np.void]
Counts = NDArray[np.int64]
Seconds = NDArray[np.float64]


def _source() -> str:
    """A digest of what is compiled: numba looks at the file of the entry alone, and that one is rarely edited."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


@contextmanager
def kept_in_cache() -> Iterator[None]:
    """Functions decorated inside keep their machine code in this user's cache folder; others stay where they are."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(cache_dir() / "compiled" / _source())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
# Counting references to arrays that nobody frees takes three quarters of the time. The option has no public name, so
# an edition of numba without it compiles the same code, which then runs at a quarter of the speed.
try:
    numba.njit(_nrt=False)
except (KeyError, TypeError):  # pragma: no cover - not with the editions that exist
    pass
else:
    _OPTIONS["_nrt"] = False

# Without the wrappers that only Python needs, compiling takes half as long.
inner: Callable[[F], F] = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)
"""Compiles a function that other compiled functions call."""
entry: Callable[[F], F] = numba.njit(cache=True, **_OPTIONS)
"""Compiles a function that Python calls."""

NEW, QUEUED, READING, WRITING, FINISHED, DELIVERED, CANCELLED = range(7)
"""States of a call."""
NONE = -1
"""No item, no replica, no owner."""
ROUND_ROBIN, LEAST_LOADED, PREFIX_AWARE = range(3)
"""How a call finds its replica."""


def _record(**kinds: str) -> np.dtype[np.void]:
    """A record of named fields, by type: `i8="a b", f8="c"`."""
    return np.dtype([(name, kind) for kind, names in kinds.items() for name in names.split()])


RULES = _record(
    i8="replicas priorities memory block full windowed window chunk batch_tokens sequences keep router group_first"
    " ring calls queues active unused reading rings ended judging groups coming turn",
    f8="judge per_sequence per_context per_prefill now queued_seconds inside_seconds",
)
"""The server, and how far the run is. `memory` in bytes a replica; a token takes `full` bytes and, up to `window`
tokens of its call, `windowed` more; `ring` is a power of two above the longest output and the window. `queues`,
`active`, `unused`, `reading`, `rings`, `ended` and `judging` are the first heads of their lists."""

CALL = _record(
    i8="stage prefix priority prompt shared cached output verifier state replica computed target generated begin due",
    f8="launched admitted first finished judged",
)
"""`shared` tokens of the prompt lie in memory once a group; `cached` of them an earlier call of the group has left.
`computed` of `target` tokens are read (-1 while a sibling reads them); `generated` are kept from before a preemption;
`begin` is the iteration after which it writes, `due` the one in which something happens to it. `judged`
is the time until which a verifier reads it."""

REPLICA = _record(
    f8="clock busy contexts_sum",
    i8="steps used idle active queued writing within contexts contexts_within fresh fresh_within"
    " preemptions wasted read written iterations call_steps",
)
"""`used` bytes are referenced, `idle` ones hold shared prompts that nobody uses now; `within` calls write inside their
window; `contexts` are the tokens in the caches of all that
write, `fresh` those of them whose prompt has been read in this iteration."""

PREFIX = _record(i8="users ready owner size")
"""A group's shared prompt on one replica: `ready` is the iteration from which it is read, 0 before."""

STAGE = _record(
    i8="group start count first_after next_after ahead rule need launched in_flight consumed left home arriving",
    f8="arrival opened closed",
)
"""Calls `start` to `start + count`; stages that begin behind it are a list by `first_after` and `next_after`. `left`
(stages of the group still open) and `home` (its replica) are kept in the group's first stage. `arriving` is a column
of its own: first stages in the order of their arrival."""


LINK = _record(i8="next previous")
"""A place in a circular list; a list's head is a place, too, so that nothing in it is first or last by a rule."""


class World(NamedTuple):
    """Everything of one run. Fields of records are written in place.

    Args:
        links: places of the calls as queued or active, of the calls as reading or due, of the prefixes, then heads.
        phases: by replica, full and windowed cache, and tokens modulo the block: calls that write there.
    """

    rules: Records
    calls: Records
    stages: Records
    replicas: Records
    prefixes: Records
    links: Records
    phases: Counts


@inner
def append(world: World, head: int, item: int) -> None:
    """Put an item last into a list."""
    links = world.links
    last = links[head].previous
    links[item].previous = last
    links[item].next = head
    links[last].next = item
    links[head].previous = item


@inner
def remove(world: World, item: int) -> None:
    """Take an item out of the list that it is in."""
    links = world.links
    before, behind = links[item].previous, links[item].next
    links[before].next = behind
    links[behind].previous = before


@inner
def bytes_of(world: World, tokens: int) -> int:
    """Memory that the cache of so many tokens takes, in whole blocks."""
    rules = world.rules[0]
    block = rules.block
    held: int = rules.full * ((tokens + block - 1) // block * block)
    if rules.windowed > 0:
        held += rules.windowed * ((min(tokens, rules.window) + block - 1) // block * block)
    return held
