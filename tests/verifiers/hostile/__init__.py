"""Hostile programs: what tested code might try against the host, its limits and its verdict.

Each module holds programs by name. A program replaces `{port}`, `{canary}`, `{folder}`, `{pid}` and `{socket}`
with real targets on the host; `add(1, 2)` must be 3 for the test, which none of them computes.
"""

from hostile.escapes import ESCAPES
from hostile.fakes import FAKES
from hostile.floods import FLOODS

HOSTILE = {**FLOODS, **ESCAPES, **FAKES}
