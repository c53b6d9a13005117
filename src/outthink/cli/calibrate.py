"""`outthink calibrate` and `policy`: learn from recorded samples when more compute pays, check it, show it.

Knows flags and what is printed. Does not know how a policy is fitted or decides.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from outthink.cli.options import (
    chosen_parameters,
    configuration_arguments,
    parameters_argument,
    passing_bar,
    print_plot,
    refuse_unwritable,
    say,
    write_whole,
)
from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra

_EPILOG = """outthink calibrate TRACES... --out policy.json
outthink calibrate --check policy.json TRACES...
targets: match=self-consistency@32, accuracy=0.7, or a mean cost a problem: tokens=1500, flops=, usd=, seconds="""


def calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add("traces", nargs="+", type=Path, metavar="TRACES", help="Parquet files of recorded samples")
    add("--problems", type=Path, metavar="FILE", help="their questions (default: a problems file beside them)")
    add("--out", type=Path, metavar="FILE", help="where the policy is written")
    add("--check", type=Path, metavar="POLICY", help="verify a policy on TRACES that it has not seen, and fit nothing")
    add("--target", default="match=self-consistency@32", metavar="AIM", help="default match=self-consistency@32")
    add("--margin", type=float, default=0.005, help="accuracy that may be lost against the target (default 0.005)")
    add("--risk", type=float, default=0.1, help="share of calibrations that may lose more (default 0.1)")
    add("--by", default="tokens", metavar="COST", help="tokens|flops|usd|seconds: what is kept low (default tokens)")
    add("--verifier", metavar="NAME|PATH|URL", help="try votes weighed by its scores, which `outthink verify` recorded")
    add("--price", metavar="IN,OUT", help="dollars per million tokens, for usd")
    parameters_argument(add)
    configuration_arguments(parser)
    add("--folds", type=int, default=5, help="parts of the problems that are held out in turn (default 5)")
    add("--seed", type=int, default=0, help="of the folds (default 0)")
    add("--orders", type=int, default=5, help="random orders of each problem's samples (default 5)")
    add("--json", action="store_true", help="with --check: print one JSON object and nothing else")


def run_calibrate(chosen: argparse.Namespace) -> int:
    """Calibrate, or check; 1 where a check finds that a promise is broken, or most runs fell back."""
    if chosen.check is not None:
        if chosen.out is not None:
            raise BadInput("--out", str(chosen.out), "does not go with --check", "leave one of them out")
        return _check(chosen)
    if chosen.out is None:
        raise BadInput("--out", None, "is missing", "name the policy's file, e.g. --out policy.json")
    if chosen.json:
        raise BadInput("--json", True, "goes with --check", "the policy itself is JSON")
    return _calibrate(chosen)


def _calibrate(chosen: argparse.Namespace) -> int:
    from rich.console import Console

    from outthink.economics.price import Price
    from outthink.engines.traces import model_of
    from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
    from outthink.evaluation.calibration.target import Target
    from outthink.evaluation.report.html import show

    recipe = CalibrationRecipe(
        target=Target.parse(chosen.target, margin=chosen.margin, by=chosen.by, risk=chosen.risk),
        folds=chosen.folds,
        seed=chosen.seed,
        orders=chosen.orders,
        parameters=chosen_parameters(chosen, [model_of(path) for path in chosen.traces]),
        price=Price.parse(chosen.price) if chosen.price else None,
        verifier=chosen.verifier,
    )
    refuse_unwritable(chosen, "out")
    with passing_bar("calibrating") as (progress, say):
        policy = calibrate(chosen.traces, recipe, problems=chosen.problems, progress=progress, say=say)
    policy.save(chosen.out)
    show(policy, Console())
    print(f"wrote {chosen.out}, {policy.id[:19]}")
    return 0


def _check(chosen: argparse.Namespace) -> int:
    from outthink.controller.policy.artefact import Policy
    from outthink.evaluation.compare import check

    policy = Policy.load(chosen.check)
    report = check(policy, chosen.traces, orders=chosen.orders, problems=chosen.problems, say=say)
    if chosen.json:
        print(json.dumps(report, allow_nan=False))
    else:
        for row in report["rows"]:
            print(_verdict(row))
        for line in report["reasons"]:
            print(line)
        print(_summary(report))
    return 0 if report["holds"] else 1


def _verdict(row: dict[str, Any]) -> str:
    """A row in words; where most runs fell back, the policy foretells nothing."""
    low, high = row["predicted_low"], row["predicted_high"]
    foretold = f"predicted [{low:.1%}, {high:.1%}]" if low is not None else "nothing predicted"
    line = f"{row['traces']} n={row['n']}: accuracy {row['accuracy']:.1%}, {foretold}"
    if row["promise_state"] is None:
        return f"{line}; nothing promised"
    loss = f"loses {100 * row['loss']:.2f} points [{100 * row['loss_low']:.2f}, {100 * row['loss_high']:.2f}]"
    line = f"{line}; {loss} where {100 * row['promise']:g} may be lost: {row['promise_state']}"
    needed = row["promise_needed"]
    return line if needed is None else f"{line} ({row['problems']:,} problems; about {needed:,} would decide)"


def _summary(report: dict[str, Any]) -> str:
    """All rows in a line."""
    if not report["holds"] and report["state"] != "broken":
        return "most runs fell back: calibrate again"
    return {
        "confirmed": "the promise is confirmed",
        "open": "the promise is open: these problems neither confirm nor refute it",
        "broken": "the promise is broken: calibrate again",
        None: "the policy promises nothing of its accuracy",
    }[report["state"]]


# `outthink policy`: what a policy says, and how two of them differ.


def policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of both steps."""
    steps = parser.add_subparsers(dest="step", metavar="show|diff", required=True)
    show = steps.add_parser("show", help="table and chart", description="Show a policy.")
    show.add_argument("policy", type=Path, metavar="POLICY", help="file of `outthink calibrate`")
    show.add_argument("--html", type=Path, metavar="OUT", help="write an interactive page")
    diff = steps.add_parser("diff", help="what changed between two", description="Compare two policies.")
    diff.add_argument("old", type=Path, metavar="OLD", help="a policy")
    diff.add_argument("new", type=Path, metavar="NEW", help="another one")


def run_policy(chosen: argparse.Namespace) -> int:
    """Show or compare."""
    from outthink.controller.policy.artefact import Policy
    from outthink.evaluation.report.html import changes, page, rows, show

    if chosen.step == "diff":
        print("\n".join(changes(Policy.load(chosen.old), Policy.load(chosen.new))))
        return 0
    from rich.console import Console

    refuse_unwritable(chosen, "html")
    if chosen.html:
        need_extra("report", "--html", str(chosen.html), load=False)
    policy = Policy.load(chosen.policy)
    show(policy, Console())
    print_plot(rows(policy))
    if chosen.html:
        write_whole(chosen.html, page(policy))
    return 0
