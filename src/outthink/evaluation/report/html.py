"""The interactive report: one HTML file with the charts and a sortable table of the same rows; and a policy as both.

Knows: how rows and a description of the run become a page that opens without any network, what all such pages share,
which figures of a policy a reader needs, and that its rungs and controls are rows like those of `compare`. Does not
know how a chart is drawn (`plot`), what the page's script does (`report.js`), or how a policy is made or applied.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from outthink.controller.policy.arms import HeldOut, Task
from outthink.controller.policy.artefact import Policy
from outthink.evaluation.report.axis import style
from outthink.evaluation.report.plot import draw
from outthink.evaluation.report.table import COLUMNS, NEEDED, Column, Row, cell, panels, remarks
from outthink.http.events import Json
from outthink.strategies.defaults import BASELINE

if TYPE_CHECKING:
    from rich.console import Console


_COSTS = {"tokens": "Tokens", "flops": "FLOPs", "seconds": "Seconds"}
"""Horizontal axes of a comparison, and the names of their buttons."""


def embed(value: object) -> str:
    """JSON that can stand inside a script element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)  # the page's script cannot parse a NaN
    # An HTML parser looks for `</script` and `<!--` before any JSON parser sees the string.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str) -> str:
    """A file that pages are made of."""
    return (files("outthink.evaluation.report") / name).read_text(encoding="utf-8")


def _filled(name: str, parts: Mapping[str, str]) -> str:
    # Split once, so that text which looks like a placeholder is never filled in.
    pieces = asset(name).split("@@")
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def document(title: str, facts: str, content: str, *, more: str = "") -> str:
    """A page in the style of all reports, which opens without any network.

    Args:
        title: text.
        facts: what stands below it, elements of a <dl>.
        content: sections.
        more: rules of style beside those of all reports.
    """
    parts = {"TITLE": escape(title), "STYLE": asset("report.css") + style() + more, "FACTS": facts, "CONTENT": content}
    return _filled("report.html", parts)


def listed(notes: Sequence[str]) -> str:
    """Items of a list."""
    return "".join(f"<li>{escape(note)}</li>" for note in notes)


def _charts(rows: Sequence[Row], costs: Mapping[str, str]) -> tuple[str, str]:
    """All charts, one for each cost and scale, and the buttons for the costs that some row has."""
    charts = buttons = ""
    # Where no cost is known the first chart says so: the page is made for one.
    shown = [metric for metric in costs if any(row.get(metric) for row in rows)] or list(costs)[:1]
    for metric in shown:
        pressed = "false" if charts else "true"
        buttons += f'<button type="button" data-metric="{metric}" aria-pressed="{pressed}">{costs[metric]}</button>'
        for scale in ("log", "linear"):
            svg = draw(rows, x=metric, log=scale == "log", interactive=True, prefix=f"{metric}-{scale}")
            hidden = " hidden" if charts else ""
            charts += f'<div class="chart" data-metric="{metric}" data-scale="{scale}"{hidden}>{svg}</div>'
    return charts, buttons


def explorer(
    rows: Sequence[Row], costs: Mapping[str, str], columns: Sequence[Column], notes: Sequence[str], *, more: str = ""
) -> str:
    """Sections of rows: charts whose axis and scale can be switched, a sortable table, notes; with their script.

    Args:
        rows: with the keys of `table.NEEDED` (BadInput without); at least one.
        costs: horizontal axes of `axis.METRICS`, and the names of their buttons.
        columns: of the table.
        notes: stand below it.
        more: what is said of the table beside what is true of all.
    """
    charts, buttons = _charts(rows, costs)
    header, body = _table(rows, columns)
    keys = [*NEEDED, *(column.key for column in columns)]
    keys += [f"{column.key}_{end}" for column in columns if column.ranged for end in ("low", "high")]
    data = [{key: row.get(key) for key in dict.fromkeys(keys)} for row in rows]
    parts = {
        "METRICS": buttons,
        "CHARTS": charts,
        "HEADER": header,
        "BODY": body,
        "MORE": more,
        "NOTES": listed(notes),
        "DATA": embed(data),
        "SCRIPT": asset("report.js"),
    }
    return _filled("rows.html", parts)


def _about(about: Mapping[str, Any]) -> str:
    shown = [(key.replace("_", " "), value) for key, value in about.items() if key != "title" and value is not None]
    return "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(_words(value))}</dd></div>" for key, value in shown)


_DIFFERENCE = " The last column is the paired difference from self-consistency at equal tokens, in points of accuracy."


def _words(value: Json) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[str, str]:
    """Header and body; every cell carries its raw value for sorting."""
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
    single = len({row.get("traces") for row in rows}) == 1
    told = {key for row in rows for key in row}
    columns = [column for column in COLUMNS[single:] if column.key in told]
    content = explorer(rows, _COSTS, columns, remarks(rows), more=_DIFFERENCE if "difference" in told else "")
    return document(str(about.get("title", "Accuracy against compute")), _about(about), content)


# A policy as a table, a chart and a page.

_NAME, _CHOSEN = "auto", "chosen"


def rows(policy: Policy) -> list[Row]:
    """Rungs and controls in the keys of `compare`'s rows (docs/contracts.md), held-out figures all."""
    arms = []
    for task in policy.tasks:
        for arm in task.arms:
            arms.append(_row(task, _NAME, arm.n, arm.held_out))
        arms.append(_row(task, _CHOSEN, task.chosen, task.arm(task.chosen).held_out))
        for control in task.other.get("controls", ()):
            arms.append(_row(task, control["strategy"], control["n"], HeldOut.of(control["held_out"])))
    return arms


def _row(task: Task, strategy: str, n: int, held: HeldOut) -> Row:
    name = f"{task.model}--{task.dataset}" if task.dataset else task.model
    return {
        "traces": name,
        "model": task.model,
        "strategy": strategy,
        "n": n,
        **asdict(held),
    }


def about(policy: Policy) -> dict[str, str]:
    """Facts of the policy, by name."""
    content = policy.content
    target = content["target"]
    facts = {
        "policy": policy.id,
        "created": f"{policy.created} by {content['code']}, expires {content['expires']}",
        "models": str(content["models"]),
        "target": f"{target['text']} within {target['margin']:g} at a risk of {target['risk']:g}, by {target['by']}",
        "folds": f"{content['folds']}, seed {content['seed']}",
    }
    if content.get("prices"):
        facts["prices"] = f"{content['prices']['text']} dollars a million tokens, of {content['prices']['date']}"
    return facts


def _titled(task: Task, between: str) -> str:
    return f"{task.model}{between}{task.dataset}" if task.dataset else task.model


def promised(task: Task) -> list[str]:
    """What is promised of a task's chosen arm, what it rests on, and what other margins would buy; a line each."""
    promise = task.promise
    if promise is None:
        return ["a target that is a cost promises nothing of the accuracy"]
    lines = [f"promise: {line}" if not place else line for place, line in enumerate(promise.words())]
    lines.append(
        f"margin {promise.margin:g}, risk {promise.risk:g}, bound {promise.bound:+.4f} at level "
        f"{'none' if promise.level is None else f'{promise.level:g}'}, reliability "
        f"{'unknown' if promise.reliability is None else f'{promise.reliability:.3f}'}, {promise.problems:,} problems"
    )
    if (judged := task.judged) is not None and judged.arm.promise is not None:
        base = next((held["tokens"] for held in _matched(task)), None)
        share = "" if not base else f", {judged.arm.held_out.tokens / base:.2f} of the generated tokens"
        lines.append(f"where the verifier {judged.verifier} is at hand{share}: {judged.arm.promise.words()[0]}")
    offers = [f"{100 * point['margin']:g} points: {point['share']:.2f}" for point in task.other.get("frontier", ())]
    if offers:
        lines.append(f"share of the cost of {promise.against} if you allowed {', '.join(offers)}")
    return lines


def _matched(task: Task) -> list[dict[str, Any]]:
    """Held-out figures of the self-consistency that a task's promise is about."""
    against = task.promise.against if task.promise else ""
    controls = task.other.get("controls", ())
    return [control["held_out"] for control in controls if f"{control['strategy']}@{control['n']}" == against]


def policy_remarks(policy: Policy) -> list[str]:
    """What calibration found worth saying, by task."""
    lines = []
    for task in policy.tasks:
        name = _titled(task, ", ")
        coverage = task.other["coverage"]
        lines.append(
            f"{name}: its prediction interval covered {coverage['covered']} of {coverage['splits']} random halves"
        )
        lines += [f"{name}: {note}" for note in task.other.get("notes", ())]
    return lines


def show(policy: Policy, console: Console) -> None:
    """Print the policy: facts, a table of its arms and controls, remarks."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for name, value in about(policy).items():
        console.print(Text(f"{name}: {value}"), soft_wrap=True)
    for task in policy.tasks:
        console.print(Text(f"\n{_titled(task, ' · ')}", style="bold"))
        for line in promised(task):
            console.print(Text(line), soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("arm", "accuracy, %", "tokens", "samples", "ratio"):
            table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
        base = {
            control["n"]: control["held_out"]
            for control in task.other.get("controls", ())
            if control["strategy"] == BASELINE
        }
        widest = base[max(base)]["tokens"] if base else None
        for arm in task.arms:
            mark = "  *" if arm.n == task.chosen else ""
            table.add_row(arm.name + mark, *_cells(arm.held_out, widest))
        for control in task.other.get("controls", ()):
            name = f"{control['strategy']}@{control['n']}"
            table.add_row(Text(name, style="dim"), *_cells(HeldOut.of(control["held_out"]), widest))
        console.print(table)
    console.print(
        Text(
            "* chosen; ratio of tokens to the widest self-consistency; held-out problems",
            style="dim",
        )
    )
    for remark in policy_remarks(policy):
        console.print(Text(remark, style="dim"), soft_wrap=True)


def _cells(held: HeldOut, widest: float | None) -> list[str]:
    return [
        f"{100 * held.accuracy:.1f} [{100 * held.accuracy_low:.1f}, {100 * held.accuracy_high:.1f}]",
        f"{held.tokens:,.0f}",
        f"{held.samples:.1f}",
        "–" if not widest else f"{held.tokens / widest:.2f}",
    ]


def page(policy: Policy) -> str:
    """The policy as one HTML file that opens without any network."""
    facts = {"title": "A calibrated policy", **about(policy)}
    facts |= {_titled(task, ", "): " · ".join(promised(task)) for task in policy.tasks}
    return render([{**row, "notes": []} for row in rows(policy)], facts)


def changes(old: Policy, new: Policy) -> list[str]:
    """How the arms of two policies differ, a line each; the rest is told by a text diff of the files."""
    before = {(task.model, task.dataset): task for task in old.tasks}
    lines = [f"{old.id[:19]} -> {new.id[:19]}"]
    for task in new.tasks:
        name = f"{task.model}, {task.dataset}"
        known = before.pop((task.model, task.dataset), None)
        if known is None:
            lines.append(f"{name}: new")
            continue
        if known.chosen != task.chosen:
            lines.append(f"{name}: chooses n={task.chosen}, chose n={known.chosen}")
        earlier = {arm.n: arm for arm in known.arms}
        for arm in task.arms:
            if arm.n not in earlier:
                lines.append(f"{name}, n={arm.n}: new")
                continue
            was, now = earlier[arm.n].held_out, arm.held_out
            rule = "same rule" if earlier[arm.n].rule.json() == arm.rule.json() else "another rule"
            lines.append(
                f"{name}, n={arm.n}: {rule}; accuracy {was.accuracy:.1%} -> {now.accuracy:.1%}, "
                f"tokens {was.tokens:,.0f} -> {now.tokens:,.0f}"
            )
    return lines + [f"{model}, {dataset}: gone" for model, dataset in before]
