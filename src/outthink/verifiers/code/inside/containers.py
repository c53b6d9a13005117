"""Lists and other containers that belong to both sides: what one does to them, the other is told of.

Knows: which of them changed, which the tested code holds on to after a call, and where both sides have the same
numbers for them. Does not know how values cross.
"""

from __future__ import annotations

import struct
import sys
from operator import is_

from outthink.verifiers.code.inside.values import Value
from outthink.verifiers.code.inside.wire import Malformed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LENGTH = struct.Struct("<I")
_MOST, _MOST_ITEMS = 200, 2000  # containers and items that are looked through at every call


def state(containers: Sequence[Value]) -> list[tuple[Value, ...]]:
    """What each container holds now."""
    return [_held(container) for container in containers]


def _held(container: Value) -> tuple[Value, ...]:
    if isinstance(container, dict):
        return (*container, *container.values())
    return (bytes(container),) if isinstance(container, bytearray) else tuple(container)


def changes(containers: Sequence[Value], before: Sequence[tuple[Value, ...]]) -> list[tuple[int, tuple[Value, ...]]]:
    """(number, what it holds now) of the containers that no longer hold the same objects."""
    changed = []
    for number, (container, was) in enumerate(zip(containers, before, strict=True)):
        now = _held(container)
        same = now == was if isinstance(container, bytearray) else len(now) == len(was) and all(map(is_, now, was))
        if not same:
            changed.append((number, now))
    return changed


def update(containers: Sequence[Value], changed: Value) -> None:
    """Make containers hold what `changes` says, whoever sent it. Raises IndexError, TypeError or ValueError."""
    for number, now in changed:
        container = containers[number]
        if isinstance(container, dict):
            half = len(now) // 2
            container.clear()
            for key, value in zip(now[:half], now[half:], strict=True):
                container[key] = value
        elif isinstance(container, list):
            container[:] = now
        elif isinstance(container, bytearray):
            (container[:],) = now
        else:
            container.clear()
            add = container.add if isinstance(container, set) else container.append
            for item in now:
                add(item)


class Shared:
    """Containers that both sides hold on to, in the same order on each: what one changes, the other is told of.

    Only so many: they are looked through at every call.
    """

    def __init__(self) -> None:
        self.containers: list[Value] = []
        self._before: list[tuple[Value, ...]] = []

    def changed(self) -> list[tuple[int, tuple[Value, ...]]]:
        """What was changed here since the last time."""
        return changes(self.containers, self._before) if self.containers else []

    def add(self, found: Sequence[Value], kept: Sequence[int]) -> None:
        """Hold on to some of the containers of a call. Raises IndexError, TypeError or Malformed for odd numbers."""
        if len(self.containers) + len(kept) > _MOST:
            raise Malformed("too many containers are held on to")
        self.containers += [found[number] for number in kept]
        self._before = state(self.containers)

    def room_for(self, found: Sequence[Value], kept: Sequence[int]) -> list[int]:
        """The first of the numbers for which there is room."""
        left = _MOST_ITEMS - sum(map(len, self.containers))
        chosen = []
        for number in kept[: _MOST - len(self.containers)]:
            left -= len(found[number])
            if left >= 0:
                chosen.append(number)
        return chosen


def numbers(kept: Sequence[int]) -> bytes:
    """Numbers of containers in front of a reply."""
    return struct.pack(f"<I{len(kept)}I", len(kept), *kept)


def numbers_of(data: bytes) -> tuple[list[int], bytes]:
    """The numbers, and the reply. Raises struct.error for what is none."""
    (count,) = _LENGTH.unpack_from(data, 0)
    end = 4 * (count + 1)
    return list(struct.unpack_from(f"<{count}I", data, 4)), data[end:]


def held_elsewhere(found: list[Value], first: int) -> list[int]:
    """Numbers of the containers, from the first on, that the program holds on to, with what they contain."""
    inside: dict[int, list[int]] = {}
    places = {id(container): number for number, container in enumerate(found)}
    for number, container in enumerate(found):
        held = _held(container)
        within = [places[id(item)] for item in held if id(item) in places]
        if within:
            inside[number] = within
    counts = [0] * len(found)
    for within in inside.values():
        for number in within:
            counts[number] += 1
    container, held = None, ()
    # Beside each other only the list refers to them, and the argument that is counted.
    waiting = [number for number in range(first, len(found)) if sys.getrefcount(found[number]) > counts[number] + 2]
    kept: set[int] = set()
    while waiting:
        number = waiting.pop()
        if number >= first and number not in kept:
            kept.add(number)
            waiting += inside.get(number, ())
    return sorted(kept)
