"""Continuous-batching servers, simulated: compiled over arrays."""
