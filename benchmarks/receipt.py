"""Runs `outthink ask` on the embedded model once and keeps what it printed, for the README.

Measures nothing: it is one real run, whatever the answer. Needs the `local` extra and the embedded
model (`outthink pull`); skipped without. Takes about ten seconds.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

from common import RESULTS, parser, skip
from outthink.engines.embedded.fetch import find_model

QUESTION = "What is 100 / 4? Finish with a line: The answer is"
COMMAND = [
    "outthink",
    "ask",
    QUESTION,
    "--answer",
    "number",
    "--strategy",
    "adaptive-consistency:n=16",
    "--budget",
    "tokens=3000,seconds=20",
    "--max-tokens",
    "48",
    "--seed",
    "1",
]


def main() -> int:
    """Run, keep, and say what was answered."""
    parser(__doc__).parse_args()
    if find_model() is None:
        return skip("the embedded model is not here; run `outthink pull`")
    run = [sys.executable, "-c", "from outthink.cli.main import entry; entry()", *COMMAND[1:], "--json"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        print(done.stderr, file=sys.stderr)
        return done.returncode
    result = json.loads(done.stdout)
    for entry in result["receipt"]["entries"]:  # what differs from the defaults is enough to read
        for name in [name for name, value in entry.items() if value in (None, False)]:
            if name not in ("usd", "joules", "prompt_tokens", "completion_tokens", "cancelled_tokens", "flops"):
                del entry[name]
    (RESULTS / "receipt.json").write_text(
        json.dumps({"command": shlex.join(COMMAND), "result": result}, indent=1) + "\n"
    )
    print(f"{result['answer']} ({result['stopped']}), {result['receipt']['tokens']} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
