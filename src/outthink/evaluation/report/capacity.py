"""A capacity plan as one page: what is needed, what a replica takes, what answers cost, and accuracy against GPUs.

Knows: how the values of `outthink plan --json` become a page that opens without any network and on a phone. Does not
know how any of them is computed, or how a chart of strategies is drawn (`plot`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from outthink.evaluation.report.axis import short, style
from outthink.evaluation.report.html import asset
from outthink.evaluation.report.plot import draw
from outthink.evaluation.report.table import Row

_CHARTS = {
    "gpus_exact": "GPUs",
    "usd_per_answer": "dollars per answer",
    "watts": "watts, modelled",
}
_SECURITY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
section{margin:32px 0}
h2{font-size:17px;margin:0 0 10px}
.facts{font-size:15px}
.facts dd{font-size:22px;font-weight:620}
.bars{display:grid;grid-template-columns:minmax(6em,max-content) 1fr max-content;gap:6px 12px;align-items:center}
.bars i{display:block;height:14px;border-radius:3px;background:var(--c0);min-width:2px}
.bars .other{background:var(--c1)}
.bars b{font-weight:500;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
td:first-child,th:first-child{text-align:left}
th{padding:6px 9px}
.chart svg{min-width:0}
@media(max-width:600px){.chart svg{min-width:560px}}
"""


def render(values: Row) -> str:
    """The page as one HTML document.

    Args:
        values: the plan's JSON (docs/contracts.md), with `simulated` and `strategies` where they are there.

    Raises BadInput where strategies are to be drawn without the extra `report`.
    """
    title = f"Capacity for {values['rate']:.4g} requests a second"
    sections = [_facts(values), _replica(values), _prices(values), _latency(values), _sensitivity(values)]
    if values.get("strategies"):
        sections.append(_strategies(values["strategies"]))
    sections.append(f"<ul class=notes>{''.join(f'<li>{escape(note)}</li>' for note in values['notes'])}</ul>")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_SECURITY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{asset('report.css')}{style()}{_STYLE}</style></head>"
    )
    return f'{head}<body class="outthink"><main><h1>{escape(title)}</h1>{"".join(sections)}</main></body></html>\n'


def _facts(values: Row) -> str:
    slo = values["slo"]
    shown = [
        ("GPUs", values["gpus"]),
        ("GPUs by reservation", _known(values["gpus_reservation"])),
        ("binding", values["binding"]),
        ("stable", "yes" if values["stable"] else "no"),
        *([("GPUs for the SLO", "none would do" if slo["gpus"] is None else slo["gpus"])] if slo else []),
        *([("an hour", f"${values['usd_per_hour']:,.2f}")] if values["usd_per_hour"] is not None else []),
        *([("power, modelled", f"{values['watts']:,.0f} W")] if values["watts"] is not None else []),
    ]
    facts = "".join(f"<div><dt>{name}</dt><dd>{escape(str(told))}</dd></div>" for name, told in shown)
    return f'<dl class="facts">{facts}</dl>'


def _replica(values: Row) -> str:
    rates = [
        ("ceiling", values["ceiling_requests_per_second"], ""),
        ("effective", values["effective_requests_per_second"], ""),
        ("reservation", values["reservation_requests_per_second"], ""),
    ]
    if "simulated" in values:
        simulated = values["simulated"]
        rates.append(("simulated", simulated["saturation_requests_per_second"] / simulated["replicas"], "other"))
    bars = _bars([(name, rate, f"{rate:.2f}/s", kind) for name, rate, kind in rates if rate is not None])
    return _section("Requests a second of one replica, full", bars)


def _prices(values: Row) -> str:
    if values["usd_per_hour"] is None:
        return _section("Price over utilisation", '<p class="hint">Unknown: --gpu-hour USD says what a GPU costs.</p>')
    rows = [
        (f"{at['utilisation']:.0%}", at["usd_per_million_tokens"], f"${at['usd_per_million_tokens']:.3g}", "")
        for at in values["by_utilisation"]
    ]
    table = _table(
        ("utilisation", "requests/s", "$ a million tokens", "$ an answer", "time a token"),
        [
            (
                f"{at['utilisation']:.0%}",
                f"{at['requests_per_second']:.2f}",
                f"{at['usd_per_million_tokens']:.3g}",
                f"{at['usd_per_answer']:.3g}",
                _seconds(at["tpot"]),
            )
            for at in values["by_utilisation"]
        ],
    )
    return _section("Dollars a million output tokens, by utilisation of one replica", _bars(rows) + table)


def _latency(values: Row) -> str:
    rows = []
    simulated = values.get("simulated")
    for name in ("ttft", "tpot", "e2e"):
        for source, found in (("formula, no waiting", values[name]), ("simulated", simulated and simulated[name])):
            if found:
                rows.append((f"{name.upper()}, {source}", *(_seconds(found[key]) for key in ("mean", "p50", "p95"))))
    return _section("Latency at this rate", _table(("", "mean", "median", "95 %"), rows))


def _sensitivity(values: Row) -> str:
    changes = sorted(values["sensitivity"].items(), key=lambda item: item[1])
    bars = [(name.replace("_", " "), abs(change - 1), f"{change - 1:+.0%}", "") for name, change in changes]
    return _section("Effective rate if one input is a fifth larger", _bars(bars))


def _strategies(rows: Sequence[Row]) -> str:
    shown = [{"traces": "", **row} for row in rows]
    charts = ""
    for metric, name in _CHARTS.items():
        if all(row.get(metric) for row in rows):
            drawn = draw(shown, x=metric, title=f"Accuracy against {name}", prefix=metric)
            charts += f'<div class="chart">{drawn}</div>'
    table = _table(
        ("strategy", "n", "accuracy", "tokens", "GPUs", "$ an answer", "W"),
        [
            (
                row["strategy"],
                row["n"],
                f"{row['accuracy']:.1%} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]",
                f"{row['tokens']:,.0f}",
                f"{row['gpus_exact']:.2f}",
                _known(row["usd_per_answer"]),
                _known(row["watts"]),
            )
            for row in rows
        ],
    )
    return _section("Accuracy against GPUs", charts + table)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _bars(rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Name, length, what is written behind it, and a class."""
    most = max((length for _, length, _, _ in rows), default=0) or 1
    cells = (
        f'<span>{escape(name)}</span><i class="{kind}" style="width:{100 * length / most:.1f}%"></i>'
        f"<b>{escape(told)}</b>"
        for name, length, told, kind in rows
    )
    return f'<div class="bars">{"".join(cells)}</div>'


def _table(titles: Iterable[str], rows: Iterable[Sequence[str | float]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _known(value: float | None) -> str:
    return "unknown" if value is None else short(value) if isinstance(value, float) else str(value)
