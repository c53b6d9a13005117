"""Policies: what calibration has learned, and how it is applied to a request.

Applying one imports neither numpy nor scikit-learn nor LightGBM.
"""
