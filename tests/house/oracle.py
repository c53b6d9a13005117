"""Records what the program does, and says later whether it still does the same.

For changes that must alter nothing: files that are merged, modules that get another name.

    python tests/house/oracle.py record [--only PART...]
    python tests/house/oracle.py check [--only PART...] [--quick]

A part is one of PARTS below, or the first word of several (`benchmarks`). `check` prints one line a part, and
the first paths that differ with their old and new values; it exits with 1 if any differs. It leaves the work
tree as it is. `--quick` leaves out the benchmarks, which take minutes and need the recorded sets
($OUTTHINK_TRACES, $OUTTHINK_ROUTING). Numbers are compared to 12 digits, so that a baseline holds for one
machine and one set of installed versions.

Knows: the command line as users call it, the benchmarks, and how values are compared. Does not import the
package. What it takes from inside is the class `OutthinkError` (oracle_errors.BASE), no module.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from oracle_changed import MAY_DIFFER
from oracle_errors import errors
from oracle_measured import CLOSE, IGNORED
from oracle_proxy import metrics, openapi

NOT_REPLAYED = {
    "weighted-vote": "needs a verifier's scores; replayed with --verifier",
    "beam": "continues prefixes",
    "lookahead": "continues prefixes",
    "dvts": "continues prefixes",
    "rebase": "continues prefixes",
    "mcts": "continues prefixes",
    "budget-forcing": "continues prefixes",
    "early-exit": "continues prefixes",
    "think-with-me": "continues prefixes",
    "revision": "asks another question",
    "atom-of-thoughts": "asks another question",
}
"""Strategies that recorded samples without scores cannot replay, and why; what they are told is recorded."""

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "reference": (),
    "confidence": (),
    "router": (),
    "difficulty": (),
    "cascade": (),
}
ROOT = Path(__file__).resolve().parents[2]
BASELINE = Path(__file__).with_suffix("")
DEMO = [f"data/demo/qwen2.5-coder-{size}b-instruct-q4--demo.parquet" for size in ("0.5", "1.5")]
_WIDTH = 900
"""Letters up to which a value stands on one line of a baseline."""
_SHOWN = 10
"""Paths that differ and are printed, of each part."""
_SUBVERB = re.compile(r"^ {4}([a-z][a-z-]*)(?: {2,}|$)", re.MULTILINE)
_CHANGING = ((re.compile(r"sha256:[0-9a-f]+"), "sha256:..."), (re.compile(r"\b20\d\d-\d\d-\d\d\b"), "YYYY-MM-DD"))


class Broken(Exception):
    """A part could not be run."""


def environment(scratch: Path, *kept: str) -> dict[str, str]:
    """That of every command: this checkout's package, nothing of the user's settings."""
    own = {
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONHASHSEED": "0",
        "OUTTHINK_CACHE": str(scratch / "cache"),
        "OUTTHINK_STATE": str(scratch / "state"),
        "COLUMNS": "100",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "TZ": "UTC",
    }
    strangers = ("OUTTHINK_", "OPENAI_", "OTEL_", "FORCE_COLOR", "XDG_")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(strangers)} | own


def command() -> list[str]:
    """The console script of this checkout, as pyproject.toml names it."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["outthink"]
    module, _, function = script.partition(":")
    return [sys.executable, "-c", f"from {module} import {function} as entry; entry()"]


def outthink(scratch: Path, *arguments: str, code: int = 0, columns: int = 100) -> tuple[list[str], list[str]]:
    """Lines of output and errors of a command; Broken if its exit code is another."""
    settings = environment(scratch) | {"COLUMNS": str(columns)}
    done = subprocess.run([*command(), *arguments], cwd=ROOT, env=settings, capture_output=True, text=True)
    if done.returncode != code:
        raise Broken(f"outthink {' '.join(arguments)[:60]} ended with {done.returncode}: {done.stderr[-300:].strip()}")
    return plain(done.stdout, scratch), plain(done.stderr, scratch)


def plain(text: str, scratch: Path) -> list[str]:
    """Its lines without what changes from run to run: our folder, digests over dates, and dates."""
    text = text.replace(str(scratch), "FOLDER")
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return [line.rstrip() for line in text.splitlines()]


def replayed(scratch: Path, strategies: Sequence[str], *flags: str, traces: Sequence[str] = DEMO) -> dict[str, Any]:
    """Rows of `outthink compare` in their order, what it prints, and a digest of its HTML page."""
    rows, page = scratch / "rows.json", scratch / "page.html"
    chosen = [part for name in strategies for part in ("--strategy", name)]
    files = ("--json", str(rows), "--html", str(page))
    printed, said = outthink(scratch, "compare", *traces, *chosen, *flags, *files)
    named = {
        f"{number:03} {row['traces']} {row['strategy']} n={row['n']}": row
        for number, row in enumerate(json.loads(rows.read_text()))
    }
    digest = hashlib.sha256("\n".join(plain(page.read_text(), scratch)).encode()).hexdigest()
    return {"rows": named, "printed": printed, "said": said, "html": digest}


def compare(scratch: Path) -> dict[str, Any]:
    """Every strategy with its defaults on the shipped samples; then calls in flight, and scores of a verifier."""
    printed, _ = outthink(scratch, "strategies", "--markdown")
    names = [line.split("`")[1] for line in printed if line.startswith("| `")]
    all_of_them = [name for name in names if name not in NOT_REPLAYED]
    received = {name: outthink(scratch, "compare", DEMO[0], "--strategy", name, code=2)[1] for name in NOT_REPLAYED}
    stopping = ("adaptive-consistency", "esc", "short-m-of-k", "deepconf-online")
    scored = ("best-of-n", "weighted-vote")
    return {
        "defaults": replayed(scratch, all_of_them, "--seeds", "2", "--plot"),
        "ahead": replayed(scratch, stopping, "--seeds", "1", "--ahead", "4", "--concurrency", "4"),
        "exact": replayed(scratch, scored, "--seeds", "1", "--verifier", "exact", traces=DEMO[:1]),
        "confidence": replayed(scratch, scored, "--seeds", "1", "--verifier", "confidence"),
        "refused": received,
    }


def policy(scratch: Path) -> dict[str, Any]:
    """What `calibrate` makes of the shipped samples, how it is shown, and its replay on held-out folds."""
    file = scratch / "policy.json"
    printed, said = outthink(scratch, "calibrate", *DEMO, "--orders", "2", "--by", "flops", "--out", str(file))
    shown, _ = outthink(scratch, "policy", "show", str(file))
    auto = replayed(scratch, ["auto"], "--policy", str(file), "--cross-fit", "--seeds", "1", traces=DEMO[::-1])
    return {"printed": printed, "said": said, "file": json.loads(file.read_text()), "show": shown, "auto": auto}


def source_errors(scratch: Path) -> dict[str, dict[str, int]]:
    """Messages of errors, from the source as text."""
    return errors(ROOT / "src")


def openapi_document(scratch: Path) -> Any:
    """What the proxy serves at /openapi.json."""
    return openapi(command(), environment(scratch))


def metric_families(scratch: Path) -> Any:
    """What the proxy serves at /metrics, values left out."""
    return metrics(command(), environment(scratch))


def helps(scratch: Path) -> dict[str, list[str]]:
    """The help of all verbs and of their verbs, and the explained configuration."""
    results = {"outthink serve --print-config": outthink(scratch, "serve", "--print-config")[0]}
    waiting: list[list[str]] = [[]]
    while waiting:
        verb = waiting.pop()
        lines, _ = outthink(scratch, *verb, "--help")
        results[" ".join(["outthink", *verb])] = lines
        positional = "\n".join(lines).partition("positional arguments:\n")[2].partition("\n\n")[0]
        waiting += [[*verb, name] for name in _SUBVERB.findall(positional)]
    return results


def strategies(scratch: Path) -> dict[str, list[str]]:
    """Both tables of `outthink strategies`."""
    return {
        "printed": outthink(scratch, "strategies", columns=200)[0],
        "markdown": outthink(scratch, "strategies", "--markdown")[0],
    }


def benchmark(name: str, scratch: Path) -> dict[str, Any]:
    """The result file of a benchmark that is run now, its targets by name, and a digest of its plot."""
    out = scratch / "results"
    out.mkdir()
    settings = environment(scratch, "OUTTHINK_TRACES", "OUTTHINK_ROUTING") | {"OUTTHINK_RESULTS": str(out)}
    script = [sys.executable, f"benchmarks/{name}.py", *BENCHMARKS[name]]
    done = subprocess.run(script, cwd=ROOT, env=settings, capture_output=True, text=True, preexec_fn=_give_way)
    if done.returncode != 0:
        raise Broken(f"it ended with {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
    return result(name, out)


def result(name: str, folder: Path) -> dict[str, Any]:
    """What a benchmark has left in the folder of results."""
    results: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    lines = [(f"{line.get('target') or line['name']} ({line['limit']})", line) for line in results["targets"]]
    results["targets"] = dict(lines)
    assert len(results["targets"]) == len(lines)
    if (plot := folder / f"{name}.svg").exists():
        results[plot.name] = hashlib.sha256(plot.read_bytes()).hexdigest()
    return results


def _give_way() -> None:
    os.nice(10)


PARTS: dict[str, Callable[[Path], Any]] = {
    "compare": compare,
    "policy": policy,
    "errors": source_errors,
    "openapi": openapi_document,
    "metrics": metric_families,
    "help": helps,
    "strategies": strategies,
    **{f"benchmarks/{name}": partial(benchmark, name) for name in BENCHMARKS},
}


def observed(part: str) -> Any:
    """What a part does now, as it would be recorded."""
    with tempfile.TemporaryDirectory() as folder:
        return recordable(PARTS[part](Path(folder).resolve()), part)


def recordable(value: Any, path: str) -> Any:
    """A value without what is ignored, numbers to 12 digits."""
    if isinstance(value, Mapping):
        kept = {str(key): part for key, part in value.items() if not _matching(f"{path}/{key}", IGNORED)}
        return {key: recordable(part, f"{path}/{key}") for key, part in kept.items()}
    if isinstance(value, list | tuple):
        return [recordable(part, f"{path}/{place}") for place, part in enumerate(value)]
    if isinstance(value, float):
        return float(f"{value:.12g}") if math.isfinite(value) else str(value)
    return value


def _matching(path: str, patterns: Mapping[str, Any]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(path, pattern)), None)


def laid_out(value: Any, indent: str = "") -> str:
    """JSON with sorted keys; tables on one line where they are flat and short."""
    line = json.dumps(value, sort_keys=True, ensure_ascii=False)
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    text = any(isinstance(part, str) and " " in part for part in inside) and isinstance(value, list)
    if not inside or (len(line) <= _WIDTH and not text and not any(isinstance(part, dict) for part in inside)):
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        names = sorted(value)
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {laid_out(value[name], deeper)}" for name in names]
        return "{\n" + ",\n".join(deeper + part for part in parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + laid_out(part, deeper) for part in value) + f"\n{indent}]"


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every path with its value; an empty table is a value."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from leaves(part, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for place, part in enumerate(value):
            yield from leaves(part, f"{path}/{place}")
    else:
        yield path, value


def counted(helped: Mapping[str, Sequence[str]]) -> dict[str, Counter[str]]:
    """How often each line stands in the help of a verb: one that is new must not shift all that follow it."""
    return {verb: Counter(filter(None, map(str.strip, lines))) for verb, lines in helped.items()}


def differences(part: str, old: Any, new: Any, used: dict[str, int]) -> list[str]:
    """Lines `path: old -> new`; those that may differ are counted by their pattern instead."""
    if part == "help":
        old, new = counted(old), counted(new)
    before, after = dict(leaves(old, part)), dict(leaves(new, part))
    lines = []
    for path in dict.fromkeys([*before, *after]):
        values = [json.dumps(side[path], ensure_ascii=False) if path in side else "absent" for side in (before, after)]
        if values[0] == values[1] or _close(path, before.get(path), after.get(path)):
            continue
        if (pattern := _matching(path, MAY_DIFFER)) is not None:
            used[pattern] = used.get(pattern, 0) + 1
        else:
            lines.append(f"{path}: {values[0][:300]} -> {values[1][:300]}")
    return lines


def _close(path: str, old: Any, new: Any) -> bool:
    pattern = _matching(path, CLOSE)
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    return pattern is not None and numbers and abs(new - old) <= CLOSE[pattern][0]


def file_of(part: str) -> Path:
    """Where its baseline is kept."""
    return BASELINE / f"{part.replace('/', '-')}.json"


def record(parts: Sequence[str]) -> int:
    """Write the baseline."""
    BASELINE.mkdir(exist_ok=True)
    for part in parts:
        began = time.monotonic()
        file_of(part).write_text(laid_out(observed(part)) + "\n")
        print(f"{part}: recorded in {time.monotonic() - began:.0f} s", flush=True)
    return 0


def check(parts: Sequence[str]) -> int:
    """Compare with the baseline; 1 if anything differs."""
    wrong = 0
    used: dict[str, int] = {}
    for part in parts:
        try:
            lines = differences(part, json.loads(file_of(part).read_text()), observed(part), used)
            said = f"{len(lines)} paths differ" if lines else "same"
        except (Broken, OSError, RuntimeError, ValueError, KeyError, SyntaxError) as error:
            lines, said = [f"{type(error).__name__}: {error}"], "cannot be compared"
        wrong += bool(lines)
        print(f"{part}: {said}", flush=True)
        for line in lines[:_SHOWN]:
            print(f"  {line}", flush=True)
    for pattern, count in used.items():
        print(f"may differ: {pattern}: {count} paths ({MAY_DIFFER[pattern]})")
    print(f"{wrong} parts differ" if wrong else "same")
    return int(wrong > 0)


def main() -> int:
    """Read the command line, record or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "check"))
    parser.add_argument("--only", nargs="+", metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="leave out the benchmarks")
    chosen = parser.parse_args()
    wanted = [part for part in PARTS if not chosen.only or {part, part.partition("/")[0]} & set(chosen.only)]
    unknown = set(chosen.only or ()) - {name for part in PARTS for name in (part, part.partition("/")[0])}
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    if chosen.quick:
        wanted = [part for part in wanted if not part.startswith("benchmarks/")]
    return record(wanted) if chosen.what == "record" else check(wanted)


if __name__ == "__main__":
    sys.exit(main())
