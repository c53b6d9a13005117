"""`outthink pull`: fetch the embedded model, or another GGUF from a hub."""

from __future__ import annotations

import argparse
import sys


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument(
        "name", nargs="?", default="embedded", metavar="NAME", help="embedded (default) or hf:OWNER/REPO/FILE.gguf"
    )


def run(chosen: argparse.Namespace) -> int:
    """Fetch, check and print the path."""
    from outthink.engines.embedded import pull, read_gguf

    path = pull(chosen.name, progress=sys.stderr.isatty())
    info = read_gguf(path)
    print(f"{path}  ({info.parameters:,} parameters, context {info.context:,})")
    return 0
