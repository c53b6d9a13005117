"""Where polynomials of one unknown, of degree two at most, are not negative: the intervals of an inequality.

Knows exact coefficients, square roots and how bounds that hold together intersect. Does not know how an inequality is
written, nor polynomials of a higher degree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import mpmath

from outthink.answers.math.value import Number, mp, root_of

POINTS = 4  # at which a polynomial must be known
_SAME = mpmath.mpf(10) ** -45  # slopes this near each other are one
Interval: TypeAlias = "tuple[Number | None, bool, Number | None, bool]"
"""Low end and whether it belongs, high end and whether it belongs; None for an infinite end."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Where `c[0] + c[1] x + c[2] x^2` is positive, or zero too."""

    coefficients: tuple[Number, Number, Fraction]
    closed: bool

    def roots(self) -> list[Number]:
        """The real ones, each once."""
        c, b, a = self.coefficients
        if not a or not isinstance(b, Fraction) or not isinstance(c, Fraction):
            return [-c / b] if b else []
        square = b * b - 4 * a * c
        if square <= 0:
            return [] if square else [-b / (2 * a)]
        exact = root_of(square, 2)
        if exact is not None:
            return [(-b - exact) / (2 * a), (-b + exact) / (2 * a)]
        size = mpmath.sqrt(mp(square))
        return [(mp(-b) - size) / mp(2 * a), (mp(-b) + size) / mp(2 * a)]

    def holds(self, point: Number) -> bool:
        """Whether a point, which is no root, satisfies it."""
        numbers = (*self.coefficients, point)
        c, b, a, x = numbers if all(isinstance(number, Fraction) for number in numbers) else map(mp, numbers)
        return bool(c + b * x + a * x * x > 0)


def bound(at: Sequence[Fraction], values: Sequence[Number], closed: bool) -> Bound | None:
    """The bound whose polynomial has `values` at `POINTS` different places; None for any other function.

    Where coefficients are inexact only a straight line is told from other functions.
    """
    exact = [number for number in values if isinstance(number, Fraction)]
    if len(exact) < POINTS:
        return _line(at, values, closed)
    slopes = [(exact[i] - exact[0]) / (at[i] - at[0]) for i in (1, 2, 3)]
    a, other = ((slopes[i] - slopes[0]) / (at[i + 1] - at[1]) for i in (1, 2))
    if a != other:
        return None
    b = slopes[0] - a * (at[0] + at[1])
    return Bound((exact[0] - b * at[0] - a * at[0] * at[0], b, a), closed)


def _line(at: Sequence[Fraction], values: Sequence[Number], closed: bool) -> Bound | None:
    if any(isinstance(number, mpmath.mpc) for number in values):
        return None
    slopes = [(mp(values[i]) - mp(values[0])) / mp(at[i] - at[0]) for i in (1, 2, 3)]
    if max(slopes) - min(slopes) > _SAME * abs(slopes[0]):
        return None
    return Bound((mp(values[0]) - slopes[0] * mp(at[0]), slopes[0], Fraction(0)), closed)


def intervals(bounds: Sequence[Bound]) -> list[Interval]:
    """Where all bounds hold, in ascending order; a single point is an interval whose ends are equal."""
    zeros = [one.roots() for one in bounds]
    ends = sorted({number for roots in zeros for number in roots}, key=mp)
    middles = [(mp(low) + mp(high)) / 2 for low, high in pairwise(ends)]
    gaps = [ends[0] - 1, *middles, ends[-1] + 1] if ends else [Fraction(0)]
    holds: list[bool] = []  # of a gap, the end behind it, the next gap and so on
    for place, point in enumerate(gaps):
        holds.append(all(one.holds(point) for one in bounds))
        for end in ends[place : place + 1]:
            rooted = zip(bounds, zeros, strict=True)
            holds.append(all(one.closed if end in roots else one.holds(end) for one, roots in rooted))
    found: list[Interval] = []
    start: int | None = None
    for place, inside in enumerate([*holds, False]):
        if inside and start is None:
            start = place
        elif start is not None and not inside:
            last = place - 1
            low = ends[(start - 1) // 2] if start else None
            high = ends[last // 2] if place < len(holds) else None
            found.append((low, start % 2 == 1, high, last % 2 == 1))
            start = None
    return found
