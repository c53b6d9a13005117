"""What a parsed expression is worth, exactly or to 60 digits, with the unknowns at fixed points.

Knows arithmetic, powers, logarithms, trigonometry and rounding, when a number is too large to be written out, and
that a sum which cancels is zero. Does not know how an expression was written. sympy's own evaluation is not used: what
it proves decides whether a number stays exact, and it cannot be bounded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from fractions import Fraction
from math import factorial, gcd, isqrt, lcm
from typing import TYPE_CHECKING, TypeAlias

import mpmath
import sympy

if TYPE_CHECKING:
    from sympy import Basic

Number: TypeAlias = "Fraction | mpmath.mpf | mpmath.mpc"

_BITS = 1 << 22  # of an exact power; beyond, it is not written out
_ZERO = mpmath.mpf(10) ** -45  # a sum this small beside its terms is 0
_INTEGER = mpmath.mpf(10) ** -40  # this near an integer, a number is one when it is rounded down or up
mpmath.mp.dps = 60


class NoValue(Exception):
    """An expression that has no number for a value."""


class TooLarge(NoValue):
    """A number that cannot be written out."""


def free_symbols(expression: Basic) -> frozenset[str]:
    """Names of the unknowns; `i` is the imaginary unit."""
    return frozenset(str(symbol) for symbol in expression.free_symbols) - {"i"}


def value(expression: Basic, point: int = 0) -> Number:
    """The value at one of the fixed points, the same for every expression. Raises NoValue without one."""
    try:
        number = _value(expression, point)
    except (ZeroDivisionError, ValueError, OverflowError, ArithmeticError) as error:
        raise NoValue(str(error)) from error
    if isinstance(number, mpmath.mpc):
        size = abs(number)
        if abs(number.imag) <= _ZERO * size:
            number = number.real
        elif abs(number.real) <= _ZERO * size:
            number = mpmath.mpc(0, number.imag)
    if not isinstance(number, Fraction) and not mpmath.isfinite(number):
        raise NoValue("infinite")
    return number


def unknown_at(name: str, point: int) -> Fraction:
    """What an unknown is at one of the fixed points."""
    # Fractions without a simple relation among them, on both sides of zero.
    drawn = zlib.crc32(f"{point}:{name}".encode())
    return Fraction(1 + drawn % 9973, 613) * (-1 if point == 1 else 1)


def mp(number: Number) -> mpmath.mpf | mpmath.mpc:
    """The same number to 60 digits."""
    return mpmath.mpf(number.numerator) / number.denominator if isinstance(number, Fraction) else number


def difference(left: Number, right: Number) -> Number:
    """`left` less `right`, exact where both are."""
    return _sum([left, -right])


def quotient(left: Number, right: Number) -> Number:
    """`left` over `right`, exact where both are."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left / right
    return mp(left) / mp(right)


def _value(node: Basic, point: int) -> Number:
    if isinstance(node, sympy.Rational):
        return Fraction(int(node.p), int(node.q))
    if isinstance(node, sympy.Symbol):
        return mpmath.mpc(0, 1) if str(node) == "i" else unknown_at(str(node), point)
    if isinstance(node, sympy.Float):
        return Fraction(str(node))
    for kind, constant in _CONSTANTS:
        if node == kind:
            return constant()
    if isinstance(node, sympy.Pow) and _value(node.args[0], point) == 1:
        return Fraction(1)  # whatever the exponent, which may be too large to be written out
    arguments = [_value(argument, point) for argument in node.args]
    if isinstance(node, sympy.Add):
        return _sum(arguments)
    if isinstance(node, sympy.Mul):
        return _product(arguments)
    if isinstance(node, sympy.Pow):
        return _power(arguments[0], arguments[1])
    name = type(node).__name__
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](*arguments)
    if isinstance(node, sympy.core.function.AppliedUndef):  # f(x), of which only its arguments are known
        return unknown_at(f"{name}({','.join(mpmath.nstr(mp(argument), 30) for argument in arguments)})", point)
    raise NoValue(name)


_CONSTANTS: list[tuple[Basic, Callable[[], Number]]] = [
    (sympy.pi, lambda: +mpmath.pi),
    (sympy.E, lambda: +mpmath.e),
    (sympy.I, lambda: mpmath.mpc(0, 1)),
    (sympy.GoldenRatio, lambda: +mpmath.phi),
]


def _sum(terms: list[Number]) -> Number:
    if all(isinstance(term, Fraction) for term in terms):
        return sum(terms, Fraction(0))
    inexact = [mp(term) for term in terms]
    total = mpmath.fsum(inexact)
    return Fraction(0) if abs(total) <= _ZERO * max(map(abs, inexact)) else total


def _product(factors: list[Number]) -> Number:
    exact, rest = Fraction(1), None
    for factor in factors:
        if isinstance(factor, Fraction):
            exact *= factor
        else:
            rest = factor if rest is None else rest * factor
    return exact if rest is None or not exact else mp(exact) * rest


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if base == 0 and exponent <= 0:
            raise NoValue("a power of zero")
        size = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent)
        if size > _BITS and base not in (0, 1, -1):
            raise TooLarge
        if exponent.denominator == 1:
            return base ** int(exponent)
        if base > 0 and (root := root_of(base, exponent.denominator)) is not None:
            return Fraction(root ** int(exponent.numerator))
    exponent = mp(exponent)
    base = mp(base)
    if base and abs(exponent) * abs(mpmath.log(base)) > _BITS:
        raise TooLarge
    if isinstance(base, mpmath.mpf) and base < 0:
        base = mpmath.mpc(base)
    return base**exponent


def root_of(base: Fraction, degree: int) -> Fraction | None:
    """The exact root, None where it is no fraction."""
    if degree > 64:
        return None
    parts = []
    for part in (base.numerator, base.denominator):
        root = isqrt(part) if degree == 2 else round(mpmath.root(part, degree)) if part.bit_length() < 150 else 0
        if root**degree != part:
            return None
        parts.append(int(root))
    return Fraction(parts[0], parts[1])


def _of(function: Callable[..., Number]) -> Callable[..., Number]:
    return lambda *arguments: function(*map(mp, arguments))


def _whole(number: Number) -> int:
    if isinstance(number, Fraction) and number.denominator == 1:
        return number.numerator
    raise NoValue("needs a whole number")


def _factorial(number: Number) -> Number:
    count = _whole(number)
    if not 0 <= count <= 5000:
        raise TooLarge
    return Fraction(factorial(count))


def _binomial(top: Number, bottom: Number) -> Number:
    count, chosen = _whole(top), _whole(bottom)
    if abs(count) > 5000 or abs(chosen) > 5000:
        raise TooLarge
    return Fraction(int(sympy.binomial(count, chosen)))


def _logarithm(number: Number, base: Number | None = None) -> Number:
    if isinstance(number, Fraction) and number == 1:
        return Fraction(0)
    above = mpmath.log(mp(number))
    if base is None:
        return above
    exact = above / mpmath.log(mp(base))
    # `\log_2 8` is 3: the nearest fraction is right if the power says so.
    simple = Fraction(str(mpmath.nstr(exact.real, 30))).limit_denominator(64)
    known = isinstance(number, Fraction) and isinstance(base, Fraction) and base > 0 and abs(simple) < 1000
    return simple if known and base**simple.numerator == number**simple.denominator else exact


def _floor(number: Number, up: bool = False) -> Number:
    if isinstance(number, Fraction):
        return Fraction(-((-number.numerator) // number.denominator) if up else number.numerator // number.denominator)
    if isinstance(number, mpmath.mpc):
        raise NoValue("not real")
    near = mpmath.nint(number)
    if abs(number - near) <= _INTEGER * max(1, abs(number)):
        return Fraction(int(near))
    return Fraction(int(mpmath.ceil(number) if up else mpmath.floor(number)))


def _extreme(pick: Callable[..., Number]) -> Callable[..., Number]:
    return lambda *numbers: pick(numbers, key=mp)


def _whole_numbers(combine: Callable[..., int]) -> Callable[..., Number]:
    return lambda *numbers: Fraction(combine(*map(_whole, numbers)))


_FUNCTIONS: dict[str, Callable[..., Number]] = {
    **{name: _of(vars(mpmath)[name]) for name in (
        "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "acot", "asec", "acsc", "sinh", "cosh",
        "tanh", "asinh", "acosh", "atanh", "exp", "gamma", "zeta", "erf", "arg", "re", "im",
    )},
    "conjugate": _of(mpmath.conj),
    "Abs": abs,
    "log": _logarithm,
    "factorial": _factorial,
    "binomial": _binomial,
    "floor": _floor,
    "ceiling": lambda number: _floor(number, up=True),
    "Max": _extreme(max),
    "Min": _extreme(min),
    "gcd": _whole_numbers(gcd),
    "lcm": _whole_numbers(lcm),
}  # fmt: skip
