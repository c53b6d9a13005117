"""Routing between a weak and a strong model: training, folds, curves, controls.

Knows: how routers are trained and judged. Does not know how they are applied (`controller.router`).
"""
