"""Difficulty before any token is decoded: how likely each model is right, and how much it will write.

Applying it needs the standard library only. Training is in `outthink.evaluation.difficulty`.
"""

from outthink.controller.difficulty.artefact import load, of, plain
from outthink.controller.difficulty.head import Difficulty, Expected, Forecast
from outthink.controller.difficulty.probe import Probe

__all__ = ["Difficulty", "Expected", "Forecast", "Probe", "load", "of", "plain"]
