"""Which backend a prompt prefers: the highest of one random number per pair, weighted.

Knows hashes and weights. Losing a backend moves only the prompts that preferred it, and spreads them
over the others (Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005).
"""

from __future__ import annotations

from math import log
from zlib import crc32

_WORD = (1 << 64) - 1


def seed_of(url: str) -> int:
    """The number that stands for a backend; the same in every process and replica."""
    raw = url.encode()
    return crc32(raw) | crc32(raw[::-1], 0x9E3779B9) << 32


def score(prefix: int, seed: int, weight: float) -> float:
    """How much a prompt prefers a backend: larger is better, uniform over pairs for equal weights."""
    mixed = (prefix * 0x9E3779B97F4A7C15 ^ seed) & _WORD  # splitmix64's finish
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _WORD
    return -weight / log(((mixed ^ mixed >> 31) + 1) / (_WORD + 2))
