"""Where tokens come from, each engine behind one small protocol. Does not know sessions or strategies."""
