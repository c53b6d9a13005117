"""What README and docs show of the promise of a policy: tables, and the reliability diagram.

Knows: rows of `benchmarks/results/promise.json`. Does not know how they were measured, or which page shows what.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outthink.evaluation.report.axis import MUTED, colour
from outthink.evaluation.report.figure import MARGIN, Canvas, settings

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
Row = dict[str, Any]
_WIDTH, _SIDE = 560.0, 400.0
_POINT, _LEVELS = "point choice", "bound at"


def rows() -> list[Row]:
    """Of the last run."""
    found: list[Row] = json.loads((RESULTS / "promise.json").read_text())["rows"]
    return found


def _sets(found: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["set"] for row in found))


def _of(found: list[Row], name: str, way: str) -> Row:
    return next(row for row in found if row["set"] == name and row["way"] == way)


def table(argument: str) -> str:
    """The Markdown of one part: `summary`, `ways`, `paid` or `both`; KeyError for another."""
    return {"summary": _summary, "ways": _ways, "paid": _paid, "both": _both}[argument](rows())


def _header(first: str, sets: list[str]) -> list[str]:
    return [f"| {first} | {' | '.join(sets)} |", "|---|" + "--:|" * len(sets)]


def _summary(found: list[Row]) -> str:
    """Share, reliability and held-out loss in few words."""
    sets = _sets(found)
    lines = _header("mean over calibrations", sets)
    chosen = [_of(found, name, "all rules") for name in sets]
    apart = [next(row for row in found if row["set"] == name and row["way"].endswith("splits")) for name in sets]
    ends = [f"{row['share']:.2f} [{row['share_low']:.2f}, {row['share_high']:.2f}]" for row in chosen]
    plain = [_of(found, name, _POINT) for name in sets]
    kept = [f"{row['reliability']:.0%} ({base['reliability']:.0%})" for row, base in zip(chosen, plain, strict=True)]
    lost = [f"{100 * row['loss']:+.2f} ± {100 * row['loss_se']:.2f}".replace("-", "−") for row in apart]
    lines.append(f"| **share of self-consistency@32's tokens** | {' | '.join(ends)} |")
    lines.append(f"| calibrations that lose at most 0.5 points (without the guard) | {' | '.join(kept)} |")
    lines.append(f"| points lost on problems held out from everything | {' | '.join(lost)} |")
    return "\n".join(lines)


def _ways(found: list[Row]) -> str:
    """Every way to choose: share, and below it reliability and mean loss."""
    sets = _sets(found)
    ways = [way for way in dict.fromkeys(row["way"] for row in found) if "FLOPs" not in way and "flight" not in way]
    lines = _header("", sets)
    for way in ways:
        cells = []
        for name in sets:
            row = next((row for row in found if row["set"] == name and row["way"] == way), None)
            cells.append("–" if row is None or row["share"] is None else _cell(row))
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    share = f"{row['share']:.3f}" + (f" ± {row['share_se']:.3f}" if "share_se" in row else "")
    kept = "" if row.get("reliability") is None else f"{row['reliability']:.1%}, "
    error = f" ± {100 * row['loss_se']:.2f}" if "loss_se" in row else ""
    return f"{share}<br>{kept}{100 * row['loss']:+.2f}{error}".replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def _paid(found: list[Row]) -> str:
    """With a verifier, in FLOPs."""
    sets = _sets(found)
    lines = _header("share of self-consistency@32's FLOPs", sets)
    for way, shown in (("no verifier, FLOPs", "without"), ("verifier allowed, FLOPs", "with the verifier")):
        cells = [_interval(_of(found, name, way)) for name in sets]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    for ahead in (1, 4):
        replayed = [_of(found, name, f"judged rule replayed, {ahead} in flight") for name in sets]
        cells = ["left out" if row["share"] is None else _cell(row) for row in replayed]
        lines.append(f"| replayed on held-out folds, {ahead} in flight | {' | '.join(cells)} |")
    return "\n".join(lines)


def _both(found: list[Row]) -> str:
    """Two models, in FLOPs of the larger one's self-consistency@16."""
    sets = [name for name in _sets(found) if any(row["set"] == name and "two models" in row["way"] for row in found)]
    lines = _header("share of 1.5B self-consistency@16's FLOPs", sets)
    for way, shown in (("larger model alone, FLOPs", "1.5B alone"), ("two models, FLOPs", "0.5B allowed before it")):
        lines.append(f"| {shown} | {' | '.join(_interval(_of(found, name, way)) for name in sets)} |")
    used = [f"{_of(found, name, 'two models, FLOPs')['smaller model used']:.0%}" for name in sets]
    lines.append(f"| calibrations that use the 0.5B at all | {' | '.join(used)} |")
    return "\n".join(lines)


def _interval(row: Row) -> str:
    ends = f"{row['share']:.3f} [{row['share_low']:.3f}, {row['share_high']:.3f}]"
    return f"{ends}<br>{row['reliability']:.1%}, {100 * row['loss']:+.2f}".replace("-", "−").replace(
        " ", "\N{NO-BREAK SPACE}"
    )


def diagram() -> str:
    """The reliability diagram as SVG: of each level of the bound, how often calibrations keep the margin."""
    found = rows()
    sets = _sets(found)
    with settings("promise"):
        canvas = Canvas(_WIDTH)
        looks: list[dict[str, Any]] = [
            {"color": colour(place), "marker": "o", "linewidth": 2.0} for place in range(len(sets))
        ]
        high = canvas.legend(list(zip(sets, looks, strict=True)))
        canvas.resize(88 + high + 24 + _SIDE + 60, 88)
        canvas.heading(
            "How often a calibration keeps its promise", "2,000 bootstrap calibrations a set, margin 0.5 points"
        )
        axes = canvas.axes(MARGIN + 40, 88 + high + 24, _WIDTH - 2 * MARGIN - 50, _SIDE)
        axes.set(xlim=(0.48, 1.01), ylim=(0.3, 1.02))
        axes.set_xlabel("nominal: 1 − level of the bound (0.5: no bound, the point estimate)", labelpad=8)
        axes.plot([0.48, 1.0], [0.48, 1.0], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        for name, look in zip(sets, looks, strict=True):
            line = [row for row in found if row["set"] == name and row["way"].startswith((_POINT, _LEVELS))]
            axes.plot([1 - row["level"] for row in line], [row["reliability"] for row in line], **look)
        about = "; ".join(
            f"{name}: {_of(found, name, _POINT)['reliability']:.0%} by the point estimate" for name in sets
        )
        return canvas.svg("promise", "Reliability of calibrations by the level of the bound", about, {})
