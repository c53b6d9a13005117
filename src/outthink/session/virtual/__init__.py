"""Sessions on a virtual clock: simulated engines whose streams share rates, or move in steps."""
