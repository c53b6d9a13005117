"""How an answer and its receipt are printed. Knows columns and units; derives nothing new."""

from __future__ import annotations

import sys
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outthink.core.receipt import Receipt, Result


def show(result: Result) -> None:
    """The answer on standard output, the receipt on standard error."""
    answer = result.answer
    if result.text.strip() and (answer is None or result.strategy.startswith(("single", "greedy"))):
        print(result.text.strip())
    if answer is None:
        print("no readable answer", file=sys.stderr)
    elif answer not in result.text.casefold() or not result.strategy.startswith(("single", "greedy")):
        print(answer)
    console = Console(stderr=True, highlight=False)
    console.print(receipt_table(result))
    for note in result.receipt.notes:
        console.print(f"note: {note}", style="dim", markup=False)


def receipt_table(result: Result) -> Table:
    """The receipt as a small table; what is unknown says so."""
    receipt = result.receipt
    table = Table(
        title=escape(f"receipt · {result.strategy} · {result.model}"), title_justify="left", show_header=False, box=None
    )
    table.add_column(style="dim")
    table.add_column()
    table.add_row("stopped", result.stopped)
    table.add_row("calls", _calls(receipt))
    table.add_row("tokens", f"{_amount(receipt, 'tokens', ',.0f')}  ({_split(receipt)})")
    table.add_row("seconds", f"{receipt.seconds:.2f}")
    table.add_row("dollars", _amount(receipt, "usd", ".6f"))
    table.add_row("joules", _amount(receipt, "joules", ".1f"))
    table.add_row("FLOPs", _amount(receipt, "flops", ".3g"))
    return table


def _calls(receipt: Receipt) -> str:
    counts = Counter(entry.status for entry in receipt.entries)
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"


def _split(receipt: Receipt) -> str:
    entries = receipt.entries
    parts = {
        "prompt": [entry.prompt_tokens for entry in entries],
        "completion": [entry.completion_tokens for entry in entries],
        "cancelled": [entry.cancelled_tokens for entry in entries],
    }
    text = " + ".join(
        f"{name} {'unknown' if None in values else format(sum(v or 0 for v in values), ',')}"
        for name, values in parts.items()
    )
    cached = sum(entry.cached_tokens or 0 for entry in entries)
    return text + (f"; {cached:,} of the prompt from the server's cache" if cached else "")


def _amount(receipt: Receipt, name: str, form: str) -> str:
    total = receipt.total(name)
    if total.value is not None:
        return format(total.value, form)
    if total.known == 0 and total.at_most is None:
        return "unknown"
    upper = "unknown" if total.at_most is None else format(total.at_most, form)
    return f"unknown (at least {format(total.known, form)}, at most {upper})"
