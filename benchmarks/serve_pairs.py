"""What a change costs the proxy: every load of serve.py through this version and an earlier one, in turn.

Measures ratios, not rates: both proxies stand before the same scripted backend, the same load runs through one and then
the other, and the next pair begins with the other. Each pair has processes of its own, as the same version is up to a
tenth faster in one process than in another. A figure is the median over the pairs, its interval that of the sign test.
Does not measure peers (see serve.py) or what a key with a budget costs. Needs the `serve` extra with uvloop, git, and
two idle cores for about twenty minutes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import comb
from pathlib import Path
from typing import Any

import uvloop

import serve_servers as servers
from common import ROOT, Table, judged, load_average, parser, save_evidence, show
from serve_backend import MODEL, backend
from serve_load import Load, chat, closed_loop, open_loop, streams

BEFORE = "ca2af9d"
_NAMES = ("before", "after")
Measure = Callable[[str, float], float]
"""A figure of the proxy at a URL, after a load of so many seconds."""
_WARM = 1.0
"""Seconds of each load before it is measured: what is compiled or cached is."""


@contextmanager
def source_of(commit: str) -> Iterator[Path]:
    """The source folder of an earlier commit."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "source.tar"
        subprocess.run(["git", "-C", str(ROOT), "archive", "-o", str(archive), commit, "src"], check=True)
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        yield Path(folder) / "src"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bounds of the median by the sign test, with at least 95 % where so many values allow it."""
    ordered, count = sorted(values), len(values)
    cut, below = 0, 1 / 2**count
    while cut + 1 < count - cut - 1 and 2 * (below + comb(count, cut + 1) / 2**count) <= 0.05:
        cut += 1
        below += comb(count, cut) / 2**count
    return ordered[cut], ordered[count - 1 - cut]


def rate(model: str, connections: int) -> Measure:
    """Requests a second of a closed loop."""

    def measure(url: str, seconds: float) -> float:
        return float(uvloop.run(closed_loop(url, chat(url, model), connections, seconds)).row("", "", 0)["requests/s"])

    return measure


def events(url: str, seconds: float) -> float:
    """Events a second of 64 streams."""
    return float(uvloop.run(streams(url, chat(url, MODEL, stream=True), 64, seconds)).events)


def open_loop_load(url: str, seconds: float, seed: int) -> Load:
    """Poisson arrivals, 500 a second over 100 connections."""
    return uvloop.run(open_loop(url, chat(url, MODEL), 100, 500, seconds, seed))


@contextmanager
def both(behind: str, source: Path, *, shared: bool = False) -> Iterator[dict[str, str]]:
    """The two proxies before one backend. `shared`: doctor has seen that samples may share a call."""
    with ExitStack() as stack:
        if shared:
            stack.enter_context(servers.ours_after_doctor(behind))  # leaves what doctor has found for both
        urls = {name: stack.enter_context(servers.ours(behind, source=each)).url for name, each in _sources(source)}
        yield urls


def _sources(source: Path) -> list[tuple[str, Path]]:
    return list(zip(_NAMES, (source, ROOT / "src"), strict=True))


_RATES: dict[str, Measure] = {
    "pass-through, 32 connections, requests/s": rate(MODEL, 32),
    "pass-through, 100 connections, requests/s": rate(MODEL, 100),
    "one sample, 32 connections, requests/s": rate("outthink/single", 32),
    "eight samples, 32 connections, requests/s": rate("outthink/self-consistency@8", 32),
}
_SHARED = "eight samples in one call, 32 connections, requests/s"


def paired(behind: str, source: Path, measures: dict[str, Measure], pair: int, seconds: float) -> Table:
    """Both values of every measure; the first of a pair is the second of the next."""
    order = _NAMES if pair % 2 else _NAMES[::-1]
    rows: Table = []
    with both(behind, source, shared=_SHARED in measures) as urls:
        for name, measure in measures.items():
            for which in order:
                measure(urls[which], _WARM)
            values = {which: measure(urls[which], seconds) for which in order}
            rows.append({"figure": name, "pair": pair, **{which: values[which] for which in _NAMES}})
    return rows


def added(behind: str, source: Path, pair: int, seconds: float) -> Table:
    """What the proxies add to the backend's own latency at 500 requests a second, by the same arrivals."""
    order = _NAMES if pair % 2 else _NAMES[::-1]
    rows: Table = []
    with both(behind, source) as urls:
        for url in (behind, *urls.values()):
            open_loop_load(url, 2 * _WARM, 0)
        direct = open_loop_load(behind, seconds, pair)
        loads = {which: open_loop_load(urls[which], seconds, pair) for which in order}
        for percent in (50, 99):
            found = {which: loads[which].at(percent) - direct.at(percent) for which in _NAMES}
            rows.append({"figure": f"added p{percent}, ms", "pair": pair, **found})
    return rows


def targets_of(rows: Table) -> list[dict[str, Any]]:
    """A ratio with its interval for every figure; rates may fall by 3 %, added latency may rise by 5 %."""
    lines = []
    for name in dict.fromkeys(row["figure"] for row in rows):
        ratios = [row["after"] / row["before"] for row in rows if row["figure"] == name]
        low, high = interval(ratios)
        slower = name.startswith("added")
        limit, better = (1.05, "lower") if slower else (0.97, "higher")
        title = f"{name}: this version over {BEFORE}"
        lines.append(judged(title, statistics.median(ratios), limit, better=better, low=low, high=high))
    return lines


def main() -> int:
    """Start both, measure in turn, write."""
    options = parser(__doc__)
    options.add_argument("--before", default=BEFORE, help=f"commit to compare with (default {BEFORE})")
    options.add_argument("--pairs", type=int, default=9, help="of each load (default 9)")
    options.add_argument("--seconds", type=float, default=4.0, help="of each load (default 4)")
    options.add_argument("--quick", action="store_true", help="save nothing")
    chosen, load = options.parse_args(), load_average()
    seconds = chosen.seconds
    rows: Table = []
    with source_of(chosen.before) as source:
        for pair in range(1, chosen.pairs + 1):
            with backend() as behind:
                rows += paired(behind, source, _RATES, pair, seconds)
                rows += added(behind, source, pair, 2 * seconds)
                rows += paired(behind, source, {_SHARED: rate("outthink/self-consistency@8", 32)}, pair, seconds)
            with backend(events=200, pause=0.003) as behind:
                rows += paired(behind, source, {"64 streams, events/s": events}, pair, seconds)
    show("pairs", rows)
    targets = targets_of(rows)
    if chosen.quick:
        for line in targets:
            print(f"{line['state']:10}  {line['name']}: {line['value']:.3f} [{line['low']:.3f}, {line['high']:.3f}]")
        return 0
    save_evidence("serve-pairs", rows=rows, targets=targets, load_before=load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
