"""The backends by the models they serve: which are well, which is asked next, and which rest for a while."""

from outthink.serving.pool.pool import BackendPool
from outthink.serving.pool.settings import BackendSettings, PoolSettings

__all__ = ["BackendPool", "BackendSettings", "PoolSettings"]
