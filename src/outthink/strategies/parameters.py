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
    "confidence": "how sure the leader must be before sampling stops",
    "window": "tokens in one confidence window; auto is 2,048 live and 128 on recorded samples",
    "esc:window": "answers in a row that must agree",
    "m": "finishers that vote",
    "score": "the confidence score",
    "power": "exponent of the rank; near 0 it is a plain majority",
    "temperature": "how much confidence weighs; the larger, the closer to a plain majority",
    "keep": "percent of the samples that vote, the surest first",
    "deepconf-online:keep": "percent of the warm-up samples that the threshold lets pass",
    "warmup": "full samples that set the threshold",
    "consensus": "share of all weight at which sampling stops",
    "best-of-n:score": "`verifier`, or a confidence score; auto is the verifier where there is one, else logprob",
    "aggregation": "how step scores become one number: `last`, `min`, `prod` or `mean`; auto is the verifier's own",
    "top": "share of the samples that vote, the best first; below 1 each has one vote",
    "beam:m": "children of a path that goes on",
    "lookahead:m": "children of a path that goes on",
    "k": "steps ahead, at temperature 0; 0 is beam",
    "dvts:m": "children of a step, of which the best is followed",
    "mcts:m": "children of an expanded step, and open leaves that are completed before the vote",
    "mcts:n": "simulations",
    "depth": "the most steps of a path",
    "step_tokens": "the most tokens of a step",
    "separator": "text that ends a step, `\\n` for a newline; auto is the verifier's own",
    "rebase:temperature": "how much the score decides; the larger, the more even the shares",
    "priors": "`uniform`, or `logprob` (mean log-probability of the step)",
    "noise": "share of Dirichlet noise in the priors of the first steps",
    "max_think": "tokens of thinking at most; auto is the request's limit",
    "n_ignore": "ends of thinking that are ignored",
    "inject": "text put in place of an ignored end",
    "cue": "text that asks for the answer",
    "answer_tokens": "the most tokens of the answer",
    "context": "tokens of the model's window, auto where it is not known",
    "every": "tokens between two probes",
    "at": "where to probe: `tokens`, or `transitions` (words such as Wait)",
    "early-exit:consensus": "probes in a row that must agree",
    "early-exit:threshold": "mean probability that a probe's tokens must reach",
    "probe_tokens": "the most tokens of a probe",
    "mode": "`both`, `confidence` or `consensus`",
    "chains": "chains side by side; auto is the square root of n",
    "judge": "`rules`, `self`, `probe`, `verifier` (a second model or a person), or a control",
    "pauses": "`conjunctions`, or the controls `random` and `every`",
    "think-with-me:m": "tokens between two pauses at least",
    "gap": "tokens between two pauses of the control `every`",
    "interventions": "pauses at most",
    "chance": "share of sentence ends at which the control `random` pauses",
    "tries": "attempts at a readable list of sub-questions",
    "choice": "`vote` by score, or the finished path with the most `visits`",
}
"""By parameter, or by strategy and parameter. Backticks stand around code."""


def parameters(name: str, function: Callable[..., Any]) -> list[Parameter]:
    """The parameters of the strategy `name`, in the order of its function.

    A description is the function's own, below `Args:` in its docstring, else the one that is usual for the name.
    """
    module = inspect.getmodule(function)
    known = {} if module is None else vars(module)
    documented = inspect.getdoc(function) or ""
    found = []
    for key, given in list(inspect.signature(function).parameters.items())[2:]:  # behind session and request
        kind = known.get(given.annotation, given.annotation) if isinstance(given.annotation, str) else given.annotation
        own = re.search(rf"^ +{key}: (.+(?:\n {{8,}}.+)*)", documented, re.MULTILINE)
        usual = _DESCRIPTIONS.get(f"{name}:{key}") or _DESCRIPTIONS.get(key, "")
        # What is worked out later where nobody gives it is a whole number everywhere: windows, caps, chains.
        type_ = "int" if given.default is None else type(given.default).__name__
        words = tuple(word for word in get_args(kind) if isinstance(word, str))
        found.append(Parameter(key, type_, given.default, words, " ".join(own[1].split()) if own else usual))
    return found
