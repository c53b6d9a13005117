"""Tables of what the shipped process reward model is worth, for the page on training.

Knows: the figures that benchmarks/prm.py writes. Does not know how they were measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "prm.json"
_WAYS = {"majority": "majority", "weighted": "weighted vote", "best_of_n": "best-of-N", "oracle": "oracle"}


def votes() -> str:
    """Accuracy by set, way of choosing, and number of samples."""
    sets = _read()["sets"]
    sizes = sorted({row["n"] for row in sets["GSM8K 0.5B"]["equal_samples"]})
    lines = [f"| samples of | | {' | '.join(f'{size}' for size in sizes)} |", "|---|---|" + "--:|" * len(sizes)]
    for name, found in sets.items():
        for way, shown in _WAYS.items():
            rows = {row["n"]: row["accuracy"] for row in found["equal_samples"] if row["method"] == way}
            lines.append(f"| {name} | {shown} | {' | '.join(f'{100 * rows[size]:.1f}' for size in sizes)} |")
    return "\n".join(lines)


def paid() -> str:
    """Weighted votes against the majority that the same floating-point operations buy."""
    lines = ["| samples of | majority of | accuracy, % | weighted vote of | accuracy, % | points won |"]
    lines.append("|---|--:|--:|--:|--:|---|")
    for name, found in _read()["sets"].items():
        for row in found["equal_flops"]:
            if row["method"] == "weighted":
                won = _ranged(row["difference"], row["difference_interval"])
                cells = (name, row["majority_n"], f"{100 * row['majority']:.1f}", row["n"])
                lines.append(f"| {' | '.join(map(str, cells))} | {100 * row['accuracy']:.1f} | {won} |")
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
        low, high = found["auc_within_interval"]
        within = f"{found['auc_within']:.3f} [{low:.3f}, {high:.3f}]"
        cells = (name, f"{found['problems']:,}", f"{found['correct']:.1%}", f"{found['auc']:.3f}", within)
        lines.append(f"| {' | '.join(cells)} | {found['ece']:.3f} |")
    return "\n".join(lines)


def calibration() -> str:
    """What the score says against how often it is right, GSM8K 0.5B."""
    lines = ["| score | solutions | mean score | right |", "|---|--:|--:|--:|"]
    for row in _read()["sets"]["GSM8K 0.5B"]["calibration"]:
        if row["count"]:
            bounds = f"{row['low']:.1f} to {row['high']:.1f}"
            lines.append(f"| {bounds} | {row['count']:,} | {row['score']:.3f} | {row['label']:.3f} |")
    return "\n".join(lines)


def recipe() -> str:
    """The command that trained it, and what that took."""
    told = _read()["training"]
    return (
        f"```sh\n{told['command']}\n```\n\n{told['solutions']:,} solutions, {told['tokens']:,} tokens, "
        f"{told['seconds']:.0f} s on one H200 that trained a second model at the same time."
    )


def _read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text())
    return found


def _ranged(value: float, interval: list[float]) -> str:
    low, high = interval
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
