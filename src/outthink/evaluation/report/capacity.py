"""A capacity plan as one page: what is needed, what a replica takes, what answers cost, and accuracy against GPUs.

Knows: how the values of `outthink plan --json` become a page in the style of all reports, in words to decide by. Does
not know how any of them is computed, what such a page is made of (`html`), or how a chart of strategies is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from outthink.economics.capacity.report import BINDINGS, INPUTS
from outthink.evaluation.report.axis import short
from outthink.evaluation.report.html import asset, document, explorer, listed
from outthink.evaluation.report.table import UNKNOWN, Column, Row

_COSTS = {"gpus_exact": "GPUs", "usd_per_answer": "Dollars", "watts": "Watts"}
_COLUMNS = (
    Column("strategy", "strategy", "text"),
    Column("n", "n", "count"),
    Column("accuracy", "accuracy, %", "percent"),
    Column("gpus", "GPUs", "count"),
    Column("gpus_exact", "not rounded", "short"),
    Column("usd_per_answer", "$ an answer", "short"),
    Column("watts", "watts", "count"),
    Column("tokens", "tokens", "count"),
    Column("g", "token-iterations", "short"),
    Column("effective_requests_per_second", "requests/s a replica", "short"),
)
_TIMES = {"ttft": "TTFT, to the first token", "tpot": "TPOT, a token", "e2e": "E2E, to the end"}


def render(values: Row) -> str:
    """The page as one HTML document.

    Args:
        values: the plan's JSON (docs/contracts.md), with `simulated` and `strategies` where they are there.

    Raises BadInput where strategies are to be drawn without the extra `report`.
    """
    sections = [_replica(values), _prices(values), _latency(values), _sensitivity(values)]
    notes = values["notes"]
    sections.append(_strategies(values) if values.get("strategies") else f'<ul class="notes">{listed(notes)}</ul>\n')
    title = f"Capacity for {values['rate']:.4g} requests a second"
    return document(title, _facts(values), "\n".join(sections), more=asset("capacity.css"))


def _facts(values: Row) -> str:
    size, replicas, share = values["tensor_parallel"], _replicas(values), _percent(values["utilisation"])
    needed = f"at {share} of the effective rate" + (f", {size} a replica" if size > 1 else "")
    each = f"{values['rate'] / replicas:.3g} on each of {replicas:,} replicas" if replicas > 1 else "on one replica"
    shown = [
        ("GPUs needed", f"{values['gpus']:,}", needed),
        ("requests a second", f"{values['rate']:.4g}", each),
        ("GPUs by reservation", _count(values["gpus_reservation"]), "if all requests had their whole length reserved"),
        ("stable", "yes" if values["stable"] else "no", "with the GPUs asked about: --gpus, else one replica"),
        ("binding", values["binding"], BINDINGS.get(values["binding"], "")),
    ]
    if (slo := values["slo"]) is not None:
        aims = ", ".join(f"{name.upper()} {slo[name]:g} s" for name in ("ttft", "tpot") if slo[name] is not None)
        kept = f"{aims}: 90 % keep it up to {slo['goodput_requests_per_second']:.3g}/s of a replica"
        shown.append(("GPUs for the SLO", "none would do" if slo["gpus"] is None else f"{slo['gpus']:,}", kept))
    if values["usd_per_hour"] is not None:
        prices = (
            f"${short(values['usd_per_million_tokens'])} a million tokens, ${short(values['usd_per_answer'])} an answer"
        )
        shown.append(("dollars an hour", f"${values['usd_per_hour']:,.2f}", prices))
    if values["watts"] is not None:
        shown.append(
            ("power", f"{values['watts']:,.0f} W", f"modelled, {short(values['joules_per_answer'])} J an answer")
        )
    return "\n".join(
        f'<div class="{"" if place else "first"}"><dt>{name}</dt>'
        f"<dd>{escape(str(told))}<small>{escape(about)}</small></dd></div>"
        for place, (name, told, about) in enumerate(shown)
    )


def _replicas(values: Row) -> int:
    """Replicas that are planned, those that targets of latency need included."""
    gpus = max(values["gpus"], (values["slo"] or {}).get("gpus") or 0)
    return max(1, int(gpus // values["tensor_parallel"]))


def _replica(values: Row) -> str:
    planned, simulated = values["rate"] / _replicas(values), values.get("simulated")
    rates = [(name, values[f"{name}_requests_per_second"], False) for name in ("ceiling", "effective", "reservation")]
    if simulated:
        rates.append(("simulated", simulated["saturation_requests_per_second"] / simulated["replicas"], True))
    rates.append(("planned", planned, True))
    hint = (
        "No scheduler exceeds the ceiling; below the effective rate all that leave no room idle are stable. "
        "Reservation: if whole lengths were reserved. "
        f"{'Simulated: at saturation. ' * bool(simulated)}The dashed line is the planned rate, its part of one replica."
    )
    bars = [(name, rate, f"{rate:.2f}/s", other) for name, rate, other in rates if rate is not None]
    return _section("Requests a second that one replica takes", hint, _bars(bars, planned))


def _prices(values: Row) -> str:
    points = values["by_utilisation"]
    priced = all(at["usd_per_million_tokens"] is not None for at in points)
    dollars = ("usd_per_million_tokens", "usd_per_answer") if priced else ()
    most = {key: max(at[key] for at in points) for key in (*dollars, "tpot")}
    rows = []
    for at in points:
        cells = [f"{at['requests_per_second']:.2f}"]
        for key in most:
            told = _seconds(at[key]) if key == "tpot" else short(at[key])
            kind = ' class="other"' if key == "tpot" else ""
            cells.append(f'{told}<i{kind} style="width:{100 * at[key] / most[key]:.1f}%"></i>')
        planned = abs(at["utilisation"] - values["utilisation"]) < 1e-9
        rows.append(_row(_percent(at["utilisation"]) + " (planned)" * planned, cells, "lit" * planned))
    titles = ["utilisation", "requests/s", *["$ a million tokens", "$ an answer"] * priced, "TPOT"]
    hint = "Of one replica, by the share of its effective rate that is used. Tokens are those of outputs that are used."
    if not priced:
        hint = "Dollars are unknown: --gpu-hour USD, what a GPU costs in an hour, would show them here."
    return _section("Dollars and time a token over utilisation", hint, _table(titles, rows))


def _latency(values: Row) -> str:
    simulated, rows = values.get("simulated"), []
    for name, about in _TIMES.items():
        for key, kind in (("mean", "mean"), ("p50", "median"), ("p95", "95 %")):
            cells = [_seconds(values[name][key]), *([_seconds(simulated[name][key])] if simulated else [])]
            rows.append(_row(f"{about}, {kind}", cells, "begin" * (key == "mean")))
    hint = "The formula leaves waiting out. The first token of a request of several samples is its answer."
    if simulated:
        replicas = "one replica" if simulated["replicas"] == 1 else f"{simulated['replicas']:,} replicas"
        hint += (
            f" Simulated: {simulated['requests']:,} requests on {replicas}, "
            f"{simulated['throughput_requests_per_second']:.2f}/s, {simulated['mean_queue']:.2f} waiting on average, "
            f"{simulated['preemptions']:,} preemptions, {simulated['wasted_tokens']:,} tokens wasted."
        )
    titles = ["latency", "formula", *(["simulated"] if simulated else [])]
    return _section("Latency at this rate", hint, _table(titles, rows))


def _sensitivity(values: Row) -> str:
    changes = sorted((change - 1, INPUTS.get(name, name)) for name, change in values["sensitivity"].items())
    bars = [(name, change, f"{100 * change:+.1f} %", change < 0) for change, name in changes]
    return _section("If one input is a fifth larger", "Change of the effective rate.", _bars(bars))


def _strategies(values: Row) -> str:
    name = f"{values['rate']:.4g} requests a second"
    rows = [{"traces": name, "gpus_exact": row["gpus"], **row} for row in values["strategies"]]
    columns = [column for column in _COLUMNS if any(row.get(column.key) is not None for row in rows)]
    more = " GPUs, dollars and watts (modelled) are those of the planned rate and utilisation."
    return "<h2>Accuracy against GPUs, dollars and watts</h2>\n" + explorer(
        rows, _COSTS, columns, values["notes"], more=more
    )


def _section(title: str, hint: str, content: str) -> str:
    return f'<section>\n<h2>{escape(title)}</h2>\n<p class="hint">{escape(hint)}</p>\n{content}\n</section>'


def _bars(rows: Sequence[tuple[str, float, str, bool]], mark: float | None = None) -> str:
    """Bars from zero: a name, a length, what is written behind, whether in the other colour; and a line at `mark`."""
    low, high = (limit(0.0, *(length for _, length, _, _ in rows)) for limit in (min, max))
    span = high - low or 1.0
    line = "" if mark is None else f'<u style="left:{100 * (mark - low) / span:.1f}%"></u>'
    cells = (
        f'<span>{escape(name)}</span><span class="track" aria-hidden="true"><i class="{"other" * other}" '
        f'style="left:{100 * (min(length, 0) - low) / span:.1f}%;width:{100 * abs(length) / span:.1f}%"></i>'
        f"{line}</span><b>{escape(told)}</b>"
        for name, length, told, other in rows
    )
    return f'<div class="bars" style="--zero:{-100 * low / span:.1f}%">{"".join(cells)}</div>'


def _row(head: str, cells: Iterable[str], kind: str = "") -> str:
    """A line of a table; cells are HTML."""
    return f'<tr class="{kind}"><th scope="row">{escape(head)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _table(titles: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll plain" tabindex="0" role="region" aria-label="Table"><table>\n{body}\n</table></div>'


def _seconds(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"
