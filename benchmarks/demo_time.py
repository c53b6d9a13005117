"""Clones the repository and times `make demo` as a newcomer's machine would see it.

Measures: the first `make demo` in a fresh clone (virtual environment, installation, the embedded
model, the answers), with empty caches of its own, and the second one; the distributions of the core
installation, and `import outthink`. Times the committed state, not the working tree. Needs git, make
and a package index; takes up to five minutes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, load_average, parser, save, skip, target


def make_demo(clone: Path, environment: dict[str, str]) -> tuple[float, float, str]:
    """Seconds, processor seconds and output; raises if it fails."""
    began, before = time.monotonic(), os.times()
    done = subprocess.run(["make", "demo"], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode:
        raise RuntimeError(f"make demo failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, used, done.stdout


def import_seconds(python: Path) -> float:
    """Median of nine; the interpreter's own start is taken off."""
    code = "import time; began = time.perf_counter(); import outthink; print(time.perf_counter() - began)"
    times = [
        float(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(9)
    ]
    return statistics.median(times)


def distributions(python: Path) -> list[str]:
    """What is installed besides pip, setuptools and the `local` extra."""
    code = "import importlib.metadata as m; print(*sorted({d.metadata['Name'] for d in m.distributions()}))"
    names = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return [name for name in names if name not in ("pip", "setuptools", "wheel", "xllamacpp")]


def main() -> int:
    """Clone, run twice, count."""
    options = parser(__doc__)
    options.add_argument("--keep-caches", action="store_true", help="use the package and model caches of this user")
    chosen = options.parse_args()
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return skip("this is no git repository with a commit")
    load = load_average()
    with tempfile.TemporaryDirectory() as place:
        clone = Path(place) / "outthink"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        if not (clone / "Makefile").exists():
            return skip("the committed state has no Makefile yet")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VIRTUAL_ENV")}
        if not chosen.keep_caches:
            environment |= {"XDG_CACHE_HOME": str(Path(place) / "cache"), "PIP_CACHE_DIR": str(Path(place) / "pip")}
        first, first_used, _ = make_demo(clone, environment)
        second, second_used, said = make_demo(clone, environment)
        python = clone / ".venv" / "bin" / "python"
        core, importing = distributions(python), import_seconds(python)
    print(said)
    save(
        "demo_time",
        settings={"commit": head.stdout.strip(), "caches": "the user's" if chosen.keep_caches else "empty"},
        targets=[
            target(
                "fresh clone, make demo", "240 s", f"{first:.0f} s ({first_used:.0f} s processor time)", first < 240
            ),
            target("make demo again", "20 s", f"{second:.1f} s ({second_used:.1f} s processor time)", second < 20),
            target("distributions of the core installation", "24", len(core), len(core) <= 24),
            target("import outthink", "0.2 s", f"{importing:.3f} s", importing < 0.2),
        ],
        load_before=load,
        first_seconds=first,
        second_seconds=second,
        processor_seconds=[first_used, second_used],
        distributions=core,
        import_seconds=importing,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
