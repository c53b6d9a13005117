"""The only room with concurrency: streams, budget, cache and ledger. Does not know any strategy or engine."""
