"""Verifiers: how a candidate is judged. Each behind one small protocol, each charged to the ledger.

Those which need an extra or a tool of their own are imported from their modules: `code`, `schema`,
`reward_model`, `remote`.
"""

from outthink.verifiers.checks import ConfidenceVerifier, ExactVerifier, FunctionVerifier
from outthink.verifiers.judge import JudgeVerifier
from outthink.verifiers.protocol import Score, Verifier

__all__ = [
    "ConfidenceVerifier",
    "ExactVerifier",
    "FunctionVerifier",
    "JudgeVerifier",
    "Score",
    "Verifier",
]
