"""Tables of what the verifiers are worth, for the pages on verifiers and training.

Knows: the figures that benchmarks/prm.py and benchmarks/sandbox.py write, and the reward models' formats. Does not
know how anything was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import wrap
from typing import Any

from outthink.verifiers.reward_model.formats import MathShepherd, Newline, QwenPRM, RLHFlow, Skywork

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
_READOUTS = {
    "label": "one logit at each step's end",
    "tokens": "two tokens of the vocabulary, `+` against `-`",
    "value": "a value at each step's newline",
    "classes": "two classes at a marker after each step",
}
_WAYS = {"majority": "majority", "weighted": "weighted vote", "best_of_n": "best-of-N", "oracle": "oracle"}


def votes() -> str:
    """Accuracy by set, way of choosing, and number of samples."""
    sizes = (4, 16, 32)
    lines = [f"| samples of | | {' | '.join(f'{size}' for size in sizes)} |", "|---|---|" + "--:|" * len(sizes)]
    for name, found in _read()["sets"].items():
        for way, shown in _WAYS.items():
            rows = {row["n"]: row["accuracy"] for row in found["equal_samples"] if row["method"] == way}
            lines.append(f"| {name} | {shown} | {' | '.join(f'{100 * rows[size]:.1f}' for size in sizes)} |")
    return "\n".join(lines)


def paid() -> str:
    """Samples of a weighted vote that the operations of a majority buy, and the points that it wins, by set."""
    sets = _read()["sets"]
    lines = [f"| majority of | {' | '.join(sets)} |", "|--:" + "|---" * len(sets) + "|"]
    rows = ([row for row in found["equal_flops"] if row["method"] == "weighted"] for found in sets.values())
    for several in zip(*rows, strict=True):
        cells = (f"{row['n']}: {_ranged(row['difference'], row['difference_interval'])}" for row in several)
        lines.append(f"| {several[0]['majority_n']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def short() -> str:
    """What the verifier adds at 16 samples' worth of compute, in few words."""
    lines = ["| at equal FLOPs | majority of 16, % | weighted vote, % | points won |", "|---|--:|--:|---|"]
    for name, found in _read()["sets"].items():
        row = next(row for row in found["equal_flops"] if row["method"] == "weighted" and row["majority_n"] == 16)
        won = _ranged(row["difference"], row["difference_interval"])
        lines.append(f"| {name} | {100 * row['majority']:.1f} | {100 * row['accuracy']:.1f} | {won} |")
    return "\n".join(lines)


def quality() -> str:
    """Area under the curve, and calibration error, by set."""
    heads = ["samples of", "problems", "right", "AUC", "within a problem", "calibration error"]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|--:|--:|---|--:|"]
    for name, found in _read()["sets"].items():
        cells = (name, f"{found['problems']:,}", f"{found['correct']:.1%}", f"{found['auc']:.3f}", _within(found))
        lines.append(f"| {' | '.join(cells)} | {found['ece']:.3f} |")
    return "\n".join(lines)


def recipe() -> str:
    """The command that trained it, and what that took."""
    told = _read()["training"]
    command = " \\\n  ".join(wrap(told["command"], 90, break_on_hyphens=False))
    return (
        "<!-- shown: needs a GPU and the larger recorded sets -->\n"
        f"```sh\n{command}\n```\n\n{told['solutions']:,} solutions, {told['tokens']:,} tokens, "
        f"{told['seconds']:.0f} s on one H200."
    )


def attempts() -> str:
    """What both versions reach of the targets on the test problems, the first one first."""
    versions = [_read("prm-first"), _read()]
    lines = ["| target | limit | first version | shipped version |", "|---|---|---|---|"]
    for first, last in zip(*(told["targets"] for told in versions), strict=True):
        shown = [f"{one['measured']}{'' if one['met'] else ' (missed)'}" for one in (first, last)]
        lines.append(f"| {first['target']} | {first['limit']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def card() -> str:
    """The shipped verifier in one paragraph."""
    told = _read()
    about, sets = told["settings"]["verifier"], told["sets"]
    best = {name: next(row for row in found["equal_samples"] if _is(row, "best_of_n")) for name, found in sets.items()}
    most = {name: next(row for row in found["equal_samples"] if _is(row, "majority")) for name, found in sets.items()}
    below = [name for name in sets if best[name]["accuracy"] < most[name]["accuracy"]]
    return (
        f"{about['bytes'] / 1e6:.1f} MB, {about['parameters']:,} active parameters, step scores joined by "
        f"`{about['aggregation']}`. With 16 samples its favourite alone (best-of-n) is less often right than the "
        f"majority on {', '.join(below) or 'none of the sets'}.\n\n{recipe()}"
    )


def formats() -> str:
    """The reward models' formats that can be read, and how each splits and joins steps."""
    lines = ["| format | a step's score is | steps end at | joined by |", "|---|---|---|---|"]
    for one in (Newline, MathShepherd, RLHFlow, Skywork, QwenPRM):
        ends = {"\n": "a newline", "\n\n": "a blank line"}[getattr(one, "separator", "\n")]
        lines.append(f"| `{one.name}` | {_READOUTS[one.readout]} | {ends} | `{one.aggregation}` |")
    return "\n".join(lines)


def _is(row: dict[str, Any], method: str) -> bool:
    return bool(bool(row["method"] == method and row["n"] == 16))


def _within(found: dict[str, Any]) -> str:
    low, high = found["auc_within_interval"]
    return f"{found['auc_within']:.3f} [{low:.3f}, {high:.3f}]"


def _read(name: str = "prm") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def _ranged(value: float, interval: list[float]) -> str:
    low, high = interval
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
