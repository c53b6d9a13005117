"""Protocols whose members have defaults: what an implementation may offer is written down once, with what holds else.

Knows: a property that a subclass or an instance may simply assign, and how a plain object that only looks like the
protocol gets the defaults of what it lacks. Does not know any protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

P = TypeVar("P")

if TYPE_CHECKING:
    offered = property
else:

    class offered:
        """A read-only property of a protocol that `self.name = value` and `name = value` may replace.

        A `property` is a data descriptor: an implementation that inherits one could not assign the name.
        """

        def __init__(self, default):
            self._default, self.__doc__ = default, default.__doc__

        def __get__(self, instance, owner=None):
            return self if instance is None else self._default(instance)


class _WithDefaults:
    """A plain object seen through a protocol: its own attributes first, else the protocol's defaults."""

    def __init__(self, plain: object, defaults: dict[str, Any]) -> None:
        self._plain, self._defaults = plain, defaults

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._plain, name)
        except AttributeError:
            if (default := self._defaults.get(name)) is None:
                raise
            return default.__get__(self, type(self))  # bound to this: a default may read what the plain object has

    def __repr__(self) -> str:
        return repr(self._plain)


def complete(plain: object, protocol: Callable[..., P]) -> P:
    """An object as the whole protocol: as it is where it subclasses it, else with the defaults of what it lacks."""
    # By its ancestors: isinstance raises TypeError for a protocol that is not runtime-checkable.
    if isinstance(plain, _WithDefaults) or protocol in type(plain).__mro__:
        return cast(P, plain)
    return cast(P, _WithDefaults(plain, vars(protocol)))
