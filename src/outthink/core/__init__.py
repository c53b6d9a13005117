"""Values: messages, samples, answers, budgets, entries, receipts. Frozen, no I/O, the standard library only."""
