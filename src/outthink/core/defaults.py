"""Protocols whose members have defaults: what an implementation may offer is written down once, with what holds else.

Knows: a property that a subclass or an instance may simply assign, and how a plain object that only looks like the
protocol gets the defaults of what it lacks. Does not know any protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    offered = property
else:

    class offered:
        """A read-only property of a protocol that `self.name = value` and `name = value` may replace.

        A `property` is a data descriptor: an implementation that inherits one could not assign the name.
        """

        def __init__(self, default: Callable[[object], object]) -> None:
            self._default, self.__doc__ = default, default.__doc__

        def __get__(self, instance: object, owner: type | None = None) -> object:
            return self if instance is None else self._default(instance)


class WithDefaults:
    """A plain object seen through a protocol: its own attributes first, else the protocol's defaults."""

    def __init__(self, plain: object, protocol: type) -> None:
        self._plain, self._protocol = plain, protocol

    def __getattr__(self, name: str) -> object:
        try:
            return getattr(self._plain, name)
        except AttributeError:
            if (default := self._protocol.__dict__.get(name)) is None:
                raise
            return default.__get__(self, type(self))

    def __repr__(self) -> str:
        return repr(self._plain)
