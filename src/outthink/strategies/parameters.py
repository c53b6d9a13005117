"""The parameters of strategies: name, type, default, the words that may be given, and what each means.

Knows: a function's signature and docstring, and what parameters mean that several strategies have. Does not know
which strategies there are, or how a parameter is read.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

Value = str | int | float | None
"""What a parameter may be; a truth value is an int."""


class Parameter(NamedTuple):
    """A parameter of a strategy.

    Args:
        type: `int`, `float`, `bool` or `str`.
        default: None where the value is worked out when the strategy runs.
        choices: words that may be given, empty where any value of the type may be.
        description: one sentence, empty where nobody has written it.
    """

    name: str
    type: str
    default: Value
    choices: tuple[str, ...]
    description: str


_DESCRIPTIONS = {
    "n": "samples at most",
    "ties": "who wins a tie: `confidence` (surer, then shorter samples) or `random`",
    "window": "tokens in one confidence window; auto is 2,048 live and 128 on recorded samples",
    "score": "the confidence score",
    "aggregation": "how step scores become one number: `last`, `min`, `prod` or `mean`; auto is the verifier's own",
    "depth": "the most steps of a path",
    "step_tokens": "the most tokens of a step",
    "separator": "text that ends a step, `\\n` for a newline; auto is the verifier's own",
    "max_think": "tokens of thinking at most; auto is the request's limit",
    "cue": "text that asks for the answer",
    "answer_tokens": "the most tokens of the answer",
}
"""Of parameters that several strategies have. Backticks stand around code."""


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """The parameters of a strategy, in the order of its function.

    A description is the function's own, below `Args:` in its docstring, else the one that is usual for the name.
    """
    module = inspect.getmodule(function)
    known = {} if module is None else vars(module)
    documented = inspect.getdoc(function) or ""
    found = []
    for key, given in list(inspect.signature(function).parameters.items())[2:]:  # behind session and request
        kind = known.get(given.annotation, given.annotation) if isinstance(given.annotation, str) else given.annotation
        own = re.search(rf"^ +{key}: (.+(?:\n {{8,}}.+)*)", documented, re.MULTILINE)
        # What is worked out later where nobody gives it is a whole number everywhere: windows, caps, chains.
        type_ = "int" if given.default is None else type(given.default).__name__
        words = tuple(word for word in get_args(kind) if isinstance(word, str))
        description = " ".join(own[1].split()) if own else _DESCRIPTIONS.get(key, "")
        found.append(Parameter(key, type_, given.default, words, description))
    return found
