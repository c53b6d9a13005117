"""Which part of a chat answer is the code. Knows code fences; does not know Python beyond `def NAME(`."""

from __future__ import annotations

import re

# A fence that is never closed (the answer was cut) still opens a block.
_BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def extract_code(text: str, entry_point: str) -> str:
    """The first code block that defines the entry point, else the first block, else the whole text."""
    blocks = [match.group(1) for match in _BLOCK.finditer(text)]
    defines = re.compile(rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(entry_point)}\b", re.MULTILINE)
    for block in blocks:
        if defines.search(block):
            return block
    return blocks[0] if blocks else text
