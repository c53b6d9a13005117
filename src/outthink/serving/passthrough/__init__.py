"""Requests that go to a backend as they are: bytes in, bytes out, counted on the way."""
