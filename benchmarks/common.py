"""What the benchmarks share: where data lies, how a result is written, how replay is spread over cores.

Knows: result files in two forms. `save` writes date, machine, versions, settings, targets and tables;
`save_evidence` the form that docs/contracts.md promises (rows, and targets with intervals and a state), which
every benchmark takes when it is run again. Does not know what any benchmark measures.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import outthink
from outthink.engines.protocol import Speed
from outthink.engines.traces import ReplayEngine, Traces, load
from outthink.evaluation.replay import MEASURES, rerun
from outthink.strategies import Spec

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(os.environ.get("OUTTHINK_RESULTS") or Path(__file__).resolve().parent / "results")
"""Where result files go, and where those of earlier runs are read; a variable of the environment moves it."""
DEMO = ROOT / "data" / "demo"
MODELS = ("qwen2.5-coder-0.5b-instruct-q4", "qwen2.5-coder-1.5b-instruct-q4")
RECORDED = {
    "GSM8K 0.5B": f"{MODELS[0]}--gsm8k.parquet",
    "GSM8K 1.5B": f"{MODELS[1]}--gsm8k.parquet",
    "MATH 0.5B": f"{MODELS[0]}--math500.parquet",
    "MATH 1.5B": f"{MODELS[1]}--math500.parquet",
}
SKIPPED = 77
"""Exit code of a benchmark that lacks what it needs (the convention of automake's tests)."""

Table = list[dict[str, Any]]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the module's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def traces() -> dict[str, Path]:
    """The larger recorded files by short name, those that exist."""
    folder = Path(os.environ.get("OUTTHINK_TRACES") or ROOT.parent / "shared" / "data" / "traces")
    return {name: folder / file for name, file in RECORDED.items() if (folder / file).is_file()}


def demo() -> dict[str, Path]:
    """The recorded files that the repository ships."""
    return {f"demo {path.stem.split('-')[2].upper()}": path for path in sorted(DEMO.glob("qwen*--demo.parquet"))}


def skip(reason: str) -> int:
    """Say why nothing is measured."""
    print(f"skipped: {reason}", file=sys.stderr)
    return SKIPPED


NO_TRACES = "the recorded sets are not in ../shared/data/traces; set OUTTHINK_TRACES to their folder"


def target(name: str, limit: str, measured: object, met: bool) -> dict[str, Any]:
    """One line of the summary: what was promised, what was found, whether it holds."""
    return {"target": name, "limit": limit, "measured": measured, "met": bool(met)}


def judged(
    name: str,
    value: float,
    limit: float,
    *,
    better: str = "lower",
    low: float | None = None,
    high: float | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """One target of `save_evidence`: `met` needs the whole interval on the right side of the limit.

    An interval that holds the limit is `consistent` with it, no more. `reason` says why a target is missed.
    """
    sign = 1 if better == "lower" else -1
    ends = sorted(sign * end for end in (value if low is None else low, value if high is None else high))
    state = "met" if ends[1] <= sign * limit else "consistent" if ends[0] <= sign * limit else "missed"
    reason = None if state == "met" else reason
    keys = ("name", "value", "low", "high", "limit", "better", "state", "reason")
    return dict(zip(keys, (name, value, low, high, limit, better, state, reason), strict=True))


def save_evidence(name: str, *, rows: Table, targets: Sequence[Mapping[str, Any]], load_before: float) -> None:
    """Print the targets and write `results/NAME.json` in the form of docs/contracts.md."""
    for line in targets:
        interval = "" if line["low"] is None else f" [{line['low']:.4g}, {line['high']:.4g}]"
        print(f"{line['state']:10}  {line['name']}: {line['value']:.6g}{interval} ({_limit(line)})")
    machine = {"cpu": _processor(), "gpu": None, "cores": os.cpu_count()}
    whole = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "versions": versions(),
        "machine": {**machine, "load": [round(load_before, 2), round(os.getloadavg()[0], 2)]},
        "rows": rows,
        "targets": list(targets),
    }
    _write(name, whole)


def _limit(line: Mapping[str, Any]) -> str:
    return f"at {'most' if line['better'] == 'lower' else 'least'} {line['limit']:,.12g}"


def commit() -> str | None:
    """The commit that is measured, with `+` where the work tree differs from it; None outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return None
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src"]).returncode
    return head.stdout.strip() + ("+" if changed else "")


def save(
    name: str,
    *,
    settings: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    load_before: float,
    **tables: Any,
) -> None:
    """Print the targets and write `results/NAME.json`."""
    for line in targets:
        print(f"{'met ' if line['met'] else 'MISS'}  {line['target']}: {line['measured']} (target {line['limit']})")
    about = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "load": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        },
        "versions": versions(),
    }
    _write(name, {"benchmark": name, **about, "settings": dict(settings), "targets": list(targets), **tables})


def _write(name: str, whole: Mapping[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(rounded(whole), indent=1, ensure_ascii=False) + "\n")


def versions() -> dict[str, str]:
    """Of Python and of what matters for speed and results."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    found["outthink"] = outthink.__version__
    for name in ("numpy", "pyarrow", "httpx2", "xllamacpp"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def rounded(value: Any) -> Any:
    """Floats to six significant digits, so that result files stay small and readable."""
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(f"{float(value):.6g}")
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): rounded(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    return value


def show(title: str, rows: Table) -> None:
    """Print rows (dicts with the same keys) as an aligned table."""
    print(f"\n{title}")
    if not rows:
        print("  (nothing)")
        return
    cells = [list(rows[0])] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        right = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join([line[0].ljust(widths[0]), *right]).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (float, np.floating)):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:,.1f}"
    return str(value)


def interval(centre: float, low: float, high: float) -> str:
    """Percentage points with their 95 % interval."""
    return f"{100 * centre:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


@lru_cache(maxsize=2)
def _loaded(path: Path) -> Traces:
    return load(path)


def _part(
    path: Path, names: Sequence[str], problems: Sequence[str], seeds: int, ahead: int, speed: Speed
) -> np.ndarray:
    specs = [Spec.parse(name) for name in names]
    found = rerun(ReplayEngine(_loaded(path), speed=speed), specs, problems, seeds, ahead)
    return np.stack([outcomes.values for outcomes in found])


class Replay:
    """`outthink.evaluation.replay` on all cores: the code of `outthink compare`, without its report.

    Strategies that a benchmark registers itself are known in the workers because these import the
    benchmark's module again.
    """

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(
        self, path: Path, specs: Sequence[str], *, seeds: int, ahead: int = 1, speed: Speed | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        """Means over seeds: result[spec][measure] is an array over problems."""
        problems = list(_loaded(path).problems)
        size = -(-len(problems) // (2 * (os.cpu_count() or 1)))
        futures = [
            self._pool.submit(_part, path, specs, part, seeds, ahead, speed or Speed()) for part in _cut(problems, size)
        ]
        values = np.concatenate([future.result() for future in futures], axis=2)
        return {name: dict(zip(MEASURES, table, strict=True)) for name, table in zip(specs, values, strict=True)}


def _cut(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def load_average() -> float:
    """How busy the machine is with other work, before a benchmark adds its own."""
    return os.getloadavg()[0]
