"""Learning from feedback: Thompson sampling among calibrated arms, from an append-only log."""

from outthink.controller.online.arms import Arm, Posterior, Settings
from outthink.controller.online.learner import Learner

__all__ = ["Arm", "Learner", "Posterior", "Settings"]
