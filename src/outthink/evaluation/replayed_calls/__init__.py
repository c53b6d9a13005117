"""Strategies as the calls they make: recorded samples replayed into rows for a simulator of a server."""
