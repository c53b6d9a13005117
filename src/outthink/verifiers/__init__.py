"""Verifiers: how a candidate is judged. Each behind one small protocol, each charged to the ledger."""

from outthink.verifiers.function import FunctionVerifier
from outthink.verifiers.protocol import Score, Verifier

__all__ = ["FunctionVerifier", "Score", "Verifier"]
