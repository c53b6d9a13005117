"""A plan on a terminal: what is needed, how long answers take, what they cost, and what was simulated.

Knows words and units. Does not know how any figure is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from outthink.economics.capacity.report import BINDINGS, INPUTS

if TYPE_CHECKING:
    from outthink.evaluation.report.table import Row


def show(values: Row) -> None:
    """Print a plan in the form of its JSON."""
    console = Console()
    for title, rows in _sections(values):
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
        )
        table.add_column(style="dim")
        table.add_column(justify="right")
        table.add_column()
        for row in rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    if "strategies" in values:
        console.print(_strategies(values["strategies"]))
        console.print()
    for note in values["notes"]:
        console.print(f"note: {note}", highlight=False)


def _sections(values: Row) -> list[tuple[str, list[tuple[str, str, str]]]]:
    rate = values["rate"]
    needed = [
        (
            "GPUs",
            f"{values['gpus']}",
            f"for {rate:.4g} requests/s at {values['utilisation']:.0%} of the effective rate",
        ),
        ("GPUs by reservation", _count(values["gpus_reservation"]), "if every request had its whole length reserved"),
        ("binding", values["binding"], BINDINGS[values["binding"]]),
        ("stable", "yes" if values["stable"] else "no", "with the GPUs asked about"),
    ]
    if (slo := values["slo"]) is not None:
        aims = ", ".join(f"{name} {slo[name]:g} s" for name in ("ttft", "tpot") if slo[name] is not None)
        needed.append(
            ("GPUs for the SLO", _count(slo["gpus"]), f"{aims}: {slo['goodput_requests_per_second']:.4g}/s each")
        )
    replica = [
        ("ceiling", f"{values['ceiling_requests_per_second']:.2f}/s", "no scheduler exceeds it"),
        ("effective", f"{values['effective_requests_per_second']:.2f}/s", "stable below, whatever the scheduler"),
        ("reservation", _rate(values["reservation_requests_per_second"]), "whole lengths reserved"),
        (
            "at saturation",
            f"{values['batch_at_saturation']:.1f}",
            f"requests inside, steps of {_seconds(values['step_seconds'])}",
        ),
        ("a request", f"{values['g']:,.0f}", "token-iterations of the cache"),
    ]
    times = [
        (
            name.upper(),
            _seconds(values[name]["mean"]),
            f"median {_seconds(values[name]['p50'])}, 95 % {_seconds(values[name]['p95'])}",
        )
        for name in ("ttft", "tpot", "e2e")
    ]
    sections = [("Needed", needed), ("One replica", replica), ("Latency at this rate, waiting left out", times)]
    if costs := _costs(values):
        sections.append(("Cost", costs))
    changes = [
        (INPUTS[name], f"{change - 1:+.0%}", "of the effective rate")
        for name, change in sorted(values["sensitivity"].items(), key=lambda item: item[1])
    ]
    sections.append(("If a fifth larger", changes))
    if "simulated" in values:
        sections.append(("Simulated", _simulated(values["simulated"])))
    return sections


def _strategies(rows: Sequence[Row]) -> Table:
    table = Table(title="Accuracy against GPUs", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("strategy")
    priced, powered = (all(row[key] is not None for row in rows) for key in ("usd_per_answer", "watts"))
    titles = ["n", "accuracy", "tokens", "GPUs", *["$ an answer"] * priced, *["W"] * powered]
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        interval = f"{row['accuracy']:.1%} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]"
        cells = [str(row["n"]), interval, f"{row['tokens']:,.0f}", f"{row['gpus_exact']:.2f}"]
        cells += [f"{row['usd_per_answer']:.3g}"] * priced + [f"{row['watts']:,.0f}"] * powered
        table.add_row(row["strategy"], *cells)
    return table


def _costs(values: Row) -> list[tuple[str, str, str]]:
    rows = []
    if values["usd_per_hour"] is not None:
        rows.append(("an hour", f"${values['usd_per_hour']:,.2f}", ""))
        rows.append(("an answer", f"${values['usd_per_answer']:.3g}", ""))
        rows.append(("a million tokens", f"${values['usd_per_million_tokens']:.3g}", "of outputs that are used"))
    if values["watts"] is not None:
        told = f"board power by utilisation, modelled; {values['joules_per_answer']:.3g} J an answer"
        rows.append(("power", f"{values['watts']:,.0f} W", told))
    return rows


def _simulated(values: Row) -> list[tuple[str, str, str]]:
    times = [
        (
            name.upper(),
            _seconds(values[name]["mean"]),
            f"median {_seconds(values[name]['p50'])}, 95 % {_seconds(values[name]['p95'])}",
        )
        for name in ("ttft", "tpot", "e2e")
    ]
    return [
        ("saturation", f"{values['saturation_requests_per_second']:.2f}/s", f"of {values['replicas']} replicas"),
        ("throughput", f"{values['throughput_requests_per_second']:.2f}/s", f"{values['requests']:,} requests"),
        ("waiting", f"{values['mean_queue']:.2f}", "requests on average"),
        ("preemptions", f"{values['preemptions']:,}", f"{values['wasted_tokens']:,} tokens wasted"),
        *times,
    ]


def _seconds(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _rate(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}/s"


def _count(value: int | None) -> str:
    return "none" if value is None else str(value)
