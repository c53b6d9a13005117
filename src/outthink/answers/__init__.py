"""Reading answers: extraction, canonical form, equivalence and grading.

Knows what counts as the answer of a completion. Does not know strategies, engines or budgets.
Importing it loads neither sympy nor math-verify: these live in a worker process of their own.
"""

from outthink.answers.reader import LocalReader, canonical_key, grade, grade_many, read_sync, reader_for
from outthink.answers.reading import Reading
from outthink.core.text import visible

__all__ = [
    "LocalReader",
    "Reading",
    "canonical_key",
    "grade",
    "grade_many",
    "read_sync",
    "reader_for",
    "visible",
]
