"""The backends by the models they serve: which are well, which is asked next, and which rest for a while."""

from outthink.serving.pool.backend import BackendSettings, PoolSettings
from outthink.serving.pool.pool import BackendPool

__all__ = ["BackendPool", "BackendSettings", "PoolSettings"]
