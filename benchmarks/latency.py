"""What the latency planner chooses for a deadline, and what that is predicted to be worth.

Measures: for deadlines of 0.2 to 5 s on one idle and one busy H200 (by its data sheet) the planned
branches and cap, with accuracy from recorded samples cut at the cap, beside one branch of any length and
beside all branches at the full cap (0 where they miss the deadline). Model shapes: Qwen2.5 0.5B and 1.5B in
bf16. Plans are chosen and judged on two halves of the problems. Times are the roofline's, not measured:
kernels, sampling and the host add to them, and small models are furthest from it.
Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; about a minute.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from common import NO_TRACES, load_average, parser, save, show, skip, target, traces
from outthink.economics.gpus import H200
from outthink.economics.hardware import Shape, exchange_value, free_branches
from outthink.economics.latency import DeadlineTooShort, Fit, Load, plan
from outthink.engines.traces import load
from outthink.evaluation.gains import accuracy_by_cap

BRANCHES, CAPS = (1, 2, 4, 8, 16, 32), (64, 128, 192, 256, 384, 512, 1024)
DEADLINES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
SHAPES = {
    "0.5B": Shape(parameters=494_032_768, kv_bytes=2 * 24 * 2 * 64 * 2),
    "1.5B": Shape(parameters=1_543_714_304, kv_bytes=2 * 28 * 2 * 128 * 2),
}
"""Keys and values of every layer: 2 x layers x key-value heads x head size x 2 bytes."""


def main() -> int:
    """Plan, judge and save."""
    parser(__doc__).parse_args()
    paths = traces()
    if not paths:
        return skip(NO_TRACES)
    before, rows = load_average(), []
    for name, path in paths.items():
        recorded = load(path)
        items = list(recorded.problems.items())
        chosen = accuracy_by_cap(replace(recorded, problems=dict(items[::2])), BRANCHES, CAPS)
        held = accuracy_by_cap(replace(recorded, problems=dict(items[1::2])), BRANCHES, CAPS)
        for busy in (0, 190):
            here = Load(hardware=H200, shape=SHAPES[name.split()[1]], prompt=100, busy=busy, context=400)
            rows += [_row(name, here, deadline, chosen, held) for deadline in DEADLINES]
    show("plans", rows)
    values = [round(exchange_value(14, ratio), 2) for ratio in (0.16, 0.79, 22)]
    late = [row for row in rows if row["seconds"] is not None and row["seconds"] > row["deadline"]]
    save(
        "latency",
        settings={"branches": BRANCHES, "caps": CAPS, "prompt": 100},
        targets=[
            target(
                "free branches, bf16, 989 TFLOPS, 4.8 TB/s",
                "206",
                int(free_branches(H200)),
                int(free_branches(H200)) == 206,
            ),
            target("exchange, M = 14", "257.75, 63.37, 15.77", values, values == [257.75, 63.37, 15.77]),
            target("plans that miss their deadline", "0", len(late), not late),
        ],
        load_before=before,
        rows=rows,
    )
    return 0


def _row(name, here, deadline, chosen, held) -> dict[str, object]:
    row: dict[str, object] = {"traces": name, "busy": here.busy, "deadline": deadline}
    try:
        fit: Fit | None = plan(here, deadline, chosen, branches=BRANCHES, caps=CAPS)
    except DeadlineTooShort:
        fit = None
    row |= {
        "branches": fit and fit.branches,
        "cap": fit and fit.cap,
        "seconds": fit and fit.seconds,
        "predicted": fit and fit.accuracy,
        "held_out": fit and held(fit.branches, fit.cap),
    }
    row["one_branch"] = max((held(1, cap) for cap in CAPS if here.seconds(1, cap) <= deadline), default=0.0)
    full = here.seconds(max(BRANCHES), max(CAPS)) <= deadline
    return row | {"everything": held(max(BRANCHES), max(CAPS)) if full else 0.0}


if __name__ == "__main__":
    sys.exit(main())
