"""The rows of `outthink compare` on the demo files that the repository ships, for the README and the docs.

Measures: accuracy, tokens and simulated seconds of the eight usual strategies at sizes 1 to 32, 20
orders of the samples. Does not measure speed. Needs nothing; takes about half a minute on two idle cores.
Writes the rows alone, floats to six digits: `results/compare-demo.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from common import RESULTS, demo, parser, rounded
from outthink.cli.main import main as outthink


def main() -> int:
    """Run the real command and shorten its numbers."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=20, help="orders of the samples (default 20)")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        code = outthink(["compare", *map(str, demo().values()), "--seeds", str(chosen.seeds), "--json", str(out)])
        if code:
            return code
        rows = rounded(json.loads(out.read_text()))
    RESULTS.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    (RESULTS / "compare-demo.json").write_text(f"[\n{lines}\n]\n")
    print(f"wrote {len(rows)} rows to results/compare-demo.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
