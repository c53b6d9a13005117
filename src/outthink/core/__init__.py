"""Values: messages, samples, answers, budgets, entries, receipts. Frozen, no I/O, the standard library only."""

__version__ = "0.1.0"
