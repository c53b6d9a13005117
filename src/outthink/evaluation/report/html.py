"""The interactive report: one HTML file with the charts and a sortable table of the same rows.

Knows: how rows and a description of the run become a page that opens without any network. Does not
know how a chart is drawn (`plot`) or what the page's script does (`report.js`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from outthink.evaluation.report.axis import METRICS
from outthink.evaluation.report.palette import style
from outthink.evaluation.report.plot import draw
from outthink.evaluation.report.series import NEEDED, Row, panels
from outthink.evaluation.report.table import COLUMNS, cell, remarks

_NAMES = {"tokens": "Tokens", "flops": "FLOPs", "seconds": "Seconds"}


def embed(value: object) -> str:
    """JSON that can stand inside a script element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # An HTML parser looks for `</script` and `<!--` before any JSON parser sees the string.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (files("outthink.evaluation.report") / name).read_text(encoding="utf-8")


def _charts(rows: Sequence[Row]) -> tuple[str, str]:
    """All charts, one for each cost and scale, and the buttons for the costs that some row has."""
    charts: list[str] = []
    buttons: list[str] = []
    for metric in METRICS:
        if not any(row.get(metric) for row in rows):
            continue
        for log in (True, False):
            first = not charts
            svg = draw(rows, x=metric, log=log, interactive=True, prefix=f"{metric}-{'log' if log else 'linear'}")
            scale = "log" if log else "linear"
            hidden = "" if first else " hidden"
            charts.append(f'<div class="chart" data-metric="{metric}" data-scale="{scale}"{hidden}>{svg}</div>')
        pressed = "true" if len(charts) == 2 else "false"
        buttons.append(
            f'<button type="button" data-metric="{metric}" aria-pressed="{pressed}">{_NAMES[metric]}</button>'
        )
    return "".join(charts), "".join(buttons)


def _about(about: Mapping[str, Any]) -> str:
    shown = [(key.replace("_", " "), value) for key, value in about.items() if key != "title" and value is not None]
    return "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(_words(value))}</dd></div>" for key, value in shown)


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _table(rows: Sequence[Row]) -> tuple[str, str]:
    """Header and body; every cell carries its raw value for sorting."""
    single = len({row["traces"] for row in rows}) == 1
    columns = COLUMNS[1:] if single else COLUMNS
    header = "".join(
        f'<th scope="col"{"" if column.numeric else " class=text"}><button type="button" data-column="{index}">'
        f"{escape(column.title)}</button></th>"
        for index, column in enumerate(columns)
    )
    body = []
    for point in (point for panel in panels(rows) for series in panel.series for point in series.points):
        row = point.row
        cells = []
        for column in columns:
            value = row.get(column.key)
            raw = "" if value is None else escape(str(value), quote=True)
            kind = "" if column.numeric else ' class="text"'
            cells.append(f'<td data-value="{raw}"{kind}>{escape(cell(row, column))}</td>')
        strategy = escape(str(row["strategy"]), quote=True)
        body.append(f'<tr data-row="{point.place}" data-strategy="{strategy}">{"".join(cells)}</tr>')
    return header, "".join(body)


def render(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The report as one HTML document.

    Args:
        rows: rows of `compare` (docs/contracts.md); BadInput if there are none or keys are missing.
        about: facts about the run for the header, in order: `title` becomes the heading, the rest
            is shown as name and value (`time_model`, `seeds`, `problems`, `ahead`, ...).
    """
    charts, buttons = _charts(rows) if rows else (draw(rows), "")
    header, body = _table(rows)
    keys = [*NEEDED, *(column.key for column in COLUMNS), "accuracy_low", "accuracy_high"]
    keys += ["difference_low", "difference_high"]
    data = [{key: row.get(key) for key in dict.fromkeys(keys)} for row in rows]
    parts = {
        "TITLE": escape(str(about.get("title", "Accuracy against compute"))),
        "STYLE": _asset("report.css") + style(),
        "ABOUT": _about(about),
        "METRICS": buttons,
        "CHARTS": charts,
        "HEADER": header,
        "BODY": body,
        "NOTES": "".join(f"<li>{escape(note)}</li>" for note in remarks(rows)),
        "DATA": embed(data),
        "SCRIPT": _asset("report.js"),
    }
    # Split once, so that text which looks like a placeholder is never filled in.
    pieces = _asset("report.html").split("@@")
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))
