"""The keys in memory, so that a request is authorised without a look at the database.

Knows: which secret opens what, as of the last look. A look every few seconds makes a revoked key
useless; while the database is gone, the keys that were known go on working.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from outthink.serving.keys import StoredKey, Terms, digest
from outthink.serving.protocols import Key

_ANYONE = Key("anyone", admin=True)


class Ring:
    """Keys by the digest of their secret.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._keys: dict[str, tuple[Key, float | None]] = {}
        self._terms: Mapping[str, Terms] = MappingProxyType({})
        self.guarded = False

    def put(self, stored: Mapping[str, StoredKey]) -> None:
        """Know these keys and no others. Once there has been a key, there is no way back to none."""
        self._keys = {secret: (_key(one), one.terms.expires) for secret, one in stored.items() if one.revoked is None}
        self._terms = {one.id: one.terms for one in stored.values()}
        self.guarded = self.guarded or bool(stored)

    def find(self, bearer: str | None) -> Key | None:
        """The key of a secret; None if there is none, or it has expired."""
        if not self.guarded:
            return _ANYONE
        if not bearer:
            return None
        found = self._keys.get(digest(bearer))
        if found is None:
            return None
        key, expires = found
        return None if expires is not None and self._clock() >= expires else key

    def terms(self, key_id: str) -> Terms | None:
        """What a key may do, revoked or not."""
        return self._terms.get(key_id)


def _key(stored: StoredKey) -> Key:
    terms = stored.terms
    return Key(stored.id, stored.name, terms.admin, terms.limited, terms.ceiling, terms.strategy, terms.models)
