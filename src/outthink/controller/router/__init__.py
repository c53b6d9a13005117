"""Difficulty before any token is decoded: which model is likely to be right, from the prompt alone.

Applying a router needs the standard library only. Training is in `outthink.evaluation.routing`.
"""

from outthink.controller.router.folder import load, load_choice

__all__ = ["load", "load_choice"]
