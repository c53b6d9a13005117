"""`outthink strategies`: the table of strategies, generated from their code."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the verb."""
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")


def table() -> list[tuple[str, str, str, str, str]]:
    """Rows of name, summary, parameters with defaults, needs and source."""
    from outthink.strategies import strategies

    return [
        (
            name,
            found.summary,
            ", ".join(f"{key}={'auto' if value is None else value}" for key, value in found.defaults.items()) or "-",
            found.needs,
            found.source,
        )
        for name, found in strategies().items()
    ]


def markdown() -> str:
    """The table for README and docs."""
    lines = ["| strategy | what it does | parameters | needs | source |", "|---|---|---|---|---|"]
    for name, summary, parameters, needs, source in table():
        lines.append(
            f"| `{name}` | {summary} | {f'`{parameters}`' if parameters != '-' else '-'} | {needs} | {source} |"
        )
    return "\n".join(lines)


def run(chosen: argparse.Namespace) -> int:
    """Print the strategies, then the prompt styles that compose with all of them."""
    from rich.console import Console
    from rich.table import Table

    from outthink.strategies import STYLES

    if chosen.markdown:
        print(markdown())
        return 0
    console = Console()
    shown = Table("strategy", "what it does", "parameters", "needs", "source", box=None, header_style="bold")
    for row in table():
        shown.add_row(*row)
    console.print(shown)
    console.print()
    styles = Table("style=", "instruction added to the prompt", "source", box=None, header_style="bold")
    for name, style in STYLES.items():
        styles.add_row(name, style.instruction, style.source)
    console.print(styles)
    return 0
