"""Learning from feedback: Thompson sampling among calibrated arms, from an append-only log."""

from outthink.controller.online.arm import Arm
from outthink.controller.online.learner import ArmBelief, Choice, Learner
from outthink.controller.online.log import Line, Log
from outthink.controller.online.posterior import Posterior, Settings

__all__ = ["Arm", "ArmBelief", "Choice", "Learner", "Line", "Log", "Posterior", "Settings"]
