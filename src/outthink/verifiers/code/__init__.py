"""Code against tests, run where it can hurt nothing."""

from outthink.verifiers.code.sandbox import CodeLimits, CodeProblem, CodeSandbox, CodeVerdict
from outthink.verifiers.code.verifier import CodeVerifier, check_all

__all__ = [
    "CodeLimits",
    "CodeProblem",
    "CodeSandbox",
    "CodeVerdict",
    "CodeVerifier",
    "check_all",
]
