"""Values: messages, samples, answers, budgets, entries, receipts. Frozen, no I/O, the standard library only."""

__version__ = "0.1.0"
"""The only place that states it: the build reads it here, and so does all that tells it."""
