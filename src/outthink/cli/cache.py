"""`outthink cache path|clear`: where reused responses lie, and how to drop them."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument("action", choices=("path", "clear"), help="print the path, or delete all cached responses")


def run(chosen: argparse.Namespace) -> int:
    """Print or clear."""
    from outthink.session.cache import default_path

    path = default_path()
    if chosen.action == "path":
        print(path)
        return 0
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    print(f"cleared {path}")
    return 0
