"""`python -m outthink`: the command line, run by an interpreter that is named. Knows no verb, and no other entry."""

from __future__ import annotations

from outthink.cli.main import entry

if __name__ == "__main__":
    entry()
