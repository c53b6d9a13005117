"""The dashboard at `/`: live requests, spend, the policy's frontier, and every request's story."""

from outthink.serving.dashboard.headroom import HourlyHeadroom
from outthink.serving.dashboard.routes import attach

__all__ = ["HourlyHeadroom", "attach"]
