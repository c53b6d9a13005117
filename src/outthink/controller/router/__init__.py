"""Difficulty before any token is decoded: which model is likely to be right, from the prompt alone.

Applying a router needs the standard library only. Training is in `outthink.evaluation.routing`.
"""

from outthink.controller.router.artefact import load, load_choice, read_card, trained_on
from outthink.controller.router.choice import Choice, Chosen
from outthink.controller.router.model import Belief, Router, TextModel

__all__ = ["Belief", "Choice", "Chosen", "Router", "TextModel", "load", "load_choice", "read_card", "trained_on"]
