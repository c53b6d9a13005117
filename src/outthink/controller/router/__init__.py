"""Difficulty before any token is decoded: which model is likely to be right, from the prompt alone.

Applying a predictor needs the standard library only. Training is in `outthink.evaluation.routing`.
"""

from outthink.controller.router.artefact import load

__all__ = ["load"]
