"""Difficulty heads: learned from recorded samples, judged on held-out problems beside simple baselines.

Knows: how they are trained and judged. Does not know how they are applied (`controller.difficulty`).
"""
