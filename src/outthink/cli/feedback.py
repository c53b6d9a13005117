"""`outthink feedback`: tell a log of choices what was right, see what it has learned, take it back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.controller.online import Learner

_EPILOG = """outthink feedback LOG REQUEST_ID right|wrong   learn from one verdict
outthink feedback LOG                          replay the log and show what it has learned
outthink feedback LOG --undo LINE              forget the outcomes after line LINE (the log only grows)"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("log", type=Path, metavar="LOG", help="file of `--learn`")
    add("request", nargs="?", metavar="REQUEST_ID", help="which request")
    add("verdict", nargs="?", choices=("right", "wrong"), help="what its answer was")
    add("--undo", type=int, metavar="LINE", help="forget the outcomes after this line")
    add("--json", action="store_true", help="print the whole state as one JSON object")


def run(chosen: argparse.Namespace) -> int:
    """Learn, undo or show."""
    from outthink.controller.online import Learner

    if (chosen.request is None) != (chosen.verdict is None):
        raise BadInput("verdict", chosen.verdict, "is missing", "give REQUEST_ID and right or wrong")
    if chosen.undo is not None and chosen.request is not None:
        raise BadInput("--undo", chosen.undo, "does not go with a verdict", "do one after the other")
    learner = Learner(chosen.log)
    try:
        if chosen.undo is not None:
            learner.revert(chosen.undo)
        elif chosen.request is not None and not learner.learn(chosen.request, chosen.verdict == "right"):
            print(
                f"outthink feedback: {chosen.request} was not drawn by this policy: noted, not learned", file=sys.stderr
            )
        for note in learner.notes:
            print(f"outthink feedback: {note}", file=sys.stderr)
        if chosen.json:
            print(json.dumps(learner.state()))
        else:
            _show(learner)
    finally:
        learner.close()
    return 0


def _show(learner: Learner) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("arm", "right", "wrong", "mean", "calibrated", "cost", "next"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    right = dict.fromkeys((arm.name for arm in learner.arms), 0)
    wrong = dict(right)
    for line in learner.outcomes.values():
        counts = right if line.outcome else wrong
        counts[line.arm or ""] += 1
    for row in learner.beliefs():
        arm = row.arm
        table.add_row(
            escape(arm.name),
            str(right[arm.name]),
            str(wrong[arm.name]),
            f"{row.mean:.1%}",
            f"{arm.mean:.1%} [{arm.low:.1%}, {arm.high:.1%}]",
            f"{row.cost:.4g}",
            f"{row.propensity:.1%}",
        )
    Console().print(table)
    print(
        f"policy {learner.policy}; {learner.count} lines, {len(learner.choices)} requests, "
        f"{len(learner.outcomes)} outcomes; `next` is the probability that the next request gets the arm"
    )
