"""`outthink policy`: what a policy says, and how two of them differ."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of both steps."""
    steps = parser.add_subparsers(dest="step", metavar="show|diff", required=True)
    show = steps.add_parser("show", help="table and chart", description="Show a policy.")
    show.add_argument("policy", type=Path, metavar="POLICY", help="file of `outthink calibrate`")
    show.add_argument("--html", type=Path, metavar="OUT", help="write an interactive page")
    diff = steps.add_parser("diff", help="what changed between two", description="Compare two policies.")
    diff.add_argument("old", type=Path, metavar="OLD", help="a policy")
    diff.add_argument("new", type=Path, metavar="NEW", help="another one")


def run(chosen: argparse.Namespace) -> int:
    """Show or compare."""
    from outthink.controller.policy.artefact import Policy
    from outthink.evaluation.report.html import changes, page, rows, show

    if chosen.step == "diff":
        print("\n".join(changes(Policy.load(chosen.old), Policy.load(chosen.new))))
        return 0
    from rich.console import Console

    from outthink.cli.files import write_whole
    from outthink.evaluation.report.terminal import terminal_plot

    policy = Policy.load(chosen.policy)
    show(policy, Console())
    print(terminal_plot(rows(policy), color=sys.stdout.isatty()))
    if chosen.html:
        write_whole(chosen.html, page(policy))
    return 0
