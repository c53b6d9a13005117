"""The rows of `outthink compare` on the demo files for strategies beyond the usual eight, for the docs.

Measures: accuracy, tokens and simulated seconds of confidence-vote, deepconf-online (both settings of
the paper) and short-m-of-k with one finisher, 20 orders of the samples. Does not measure speed. Needs
nothing; takes about half a minute on two idle cores. Writes `results/compare-demo-more.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from common import RESULTS, demo, parser, rounded
from outthink.cli.main import main as outthink

STRATEGIES = ("confidence-vote", "deepconf-online", "deepconf-online:keep=10", "short-m-of-k:m=1")


def main() -> int:
    """Run the real command and shorten its numbers."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=20, help="orders of the samples (default 20)")
    chosen = options.parse_args()
    named = [part for name in STRATEGIES for part in ("--strategy", name)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        files = map(str, demo().values())
        code = outthink(["compare", *files, *named, "--seeds", str(chosen.seeds), "--json", str(out)])
        if code:
            return code
        rows = [row for row in rounded(json.loads(out.read_text())) if row["strategy"] in STRATEGIES]
    RESULTS.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (RESULTS / "compare-demo-more.json").write_text(f"[\n{lines}\n]\n")
    print(f"wrote {len(rows)} rows to results/compare-demo-more.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
