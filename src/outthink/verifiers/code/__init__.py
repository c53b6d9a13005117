"""Code against tests, run where it can hurt nothing."""

from outthink.verifiers.code.extract import extract_code
from outthink.verifiers.code.problem import CodeProblem
from outthink.verifiers.code.sandbox import CodeLimits, CodeSandbox, CodeVerdict
from outthink.verifiers.code.verifier import CodeVerifier, check_all, check_code

__all__ = [
    "CodeLimits",
    "CodeProblem",
    "CodeSandbox",
    "CodeVerdict",
    "CodeVerifier",
    "check_all",
    "check_code",
    "extract_code",
]
