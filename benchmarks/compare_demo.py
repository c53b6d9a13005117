"""The rows of `outthink compare` on the demo files that the repository ships, for the README and the docs.

Measures: accuracy, tokens and simulated seconds over 20 orders of the samples, for the eight usual
strategies at sizes 1 to 32 (`results/compare-demo.json`) and for confidence-vote, deepconf-online
(both settings of the paper) and short-m-of-k with one finisher (`results/compare-demo-more.json`).
Does not measure speed. Needs nothing; takes about a minute on two idle cores. Writes the rows alone,
floats to six digits.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from common import RESULTS, demo, parser, rounded
from outthink.cli.main import main as outthink

MORE = ("confidence-vote", "deepconf-online", "deepconf-online:keep=10", "short-m-of-k:m=1")


def write(name: str, strategies: tuple[str, ...], seeds: int) -> int:
    """Run the real command and shorten its numbers; of named strategies only their own rows are kept."""
    named = [part for strategy in strategies for part in ("--strategy", strategy)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        code = outthink(["compare", *map(str, demo().values()), *named, "--seeds", str(seeds), "--json", str(out)])
        if code:
            return code
        rows = rounded(json.loads(out.read_text()))
    kept = [row for row in rows if not strategies or row["strategy"] in strategies]
    RESULTS.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in kept)
    (RESULTS / f"{name}.json").write_text(f"[\n{lines}\n]\n")
    print(f"wrote {len(kept)} rows to results/{name}.json")
    return 0


def main() -> int:
    """Both files."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=20, help="orders of the samples (default 20)")
    chosen = options.parse_args()
    return write("compare-demo", (), chosen.seeds) or write("compare-demo-more", MORE, chosen.seeds)


if __name__ == "__main__":
    sys.exit(main())
