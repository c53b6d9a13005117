"""What the generated parts of README and docs say.

Knows: where each part comes from: the code, or a result file in benchmarks/results. Does not know
which page a part stands on.
"""

from __future__ import annotations

import io
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.console import Console

import plan_tables
import promise_tables
import tables
import verifier_tables
from outthink.cli.ask import print_receipt
from outthink.core.receipt import Entry, Receipt, Result
from outthink.evaluation.report.plot import draw
from outthink.strategies import STYLES, strategies
from reference_parts import command_line, configuration, strategy_kinds, strategy_table, verbs

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SIZES = (8, 32)
Row = dict[str, Any]


def block(name: str) -> str:
    """The Markdown of one part, by the name in its marker; KeyError for an unknown one."""
    kind, _, argument = name.partition(":")
    makers: dict[str, Callable[[], str]] = {
        "strategies": strategy_table,
        "kinds": lambda: strategy_kinds(f"{page_address()}docs/strategies/"),
        "parameters": lambda: parameters(argument),
        "common": common_parameters,
        "measured": lambda: measured(argument),
        "demo": lambda: f"*{about(demo()[0])}*",
        "targets": lambda: targets(argument),
        "missed": lambda: missed(argument),
        "met": lambda: met(argument.split(":")),
        "compared": lambda: tables.compared(argument),
        "prm": lambda: getattr(verifier_tables, argument)(),
        "plan": lambda: plan_tables.table(argument),
        "promise": lambda: promise_tables.table(argument),
        "verifiers": lambda: getattr(verifier_tables, argument)(),
        "verbs": verbs,
        "summary": summary,
        "cli": command_line,
        "configuration": configuration,
        "styles": styles,
        "receipt": receipt,
    }
    return makers[kind]()


def assets() -> dict[str, str]:
    """Generated files beside the pages: path from the root, and text."""
    rows, _ = demo()
    problems = rows[0]["problems"]
    subtitle = f"{problems} problems, two small models, {rows[0]['seeds']} random orders, every sample recorded"
    return {
        "docs/assets/demo.svg": draw(rows, title="What accuracy costs", subtitle=subtitle) + "\n",
        "docs/assets/promise.svg": promise_tables.diagram() + "\n",
    }


@cache
def demo() -> tuple[list[Row], list[Row]]:
    """Rows of the usual strategies on the demo data, and those of further ones."""
    usual, more = (json.loads((RESULTS / f"compare-demo{part}.json").read_text()) for part in ("", "-more"))
    return usual, more


def page_address() -> str:
    """Where README's links lead: it is shown by package indexes too, which have none of our files."""
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    return f"{source}/blob/main/"


def parameters(name: str) -> str:
    """Parameters of a strategy: its own with default and meaning, of common ones the defaults."""
    found = strategies()[name]
    if not found.defaults:
        return "It has no parameters. A prompt style can be added: `style=NAME`."
    rows, usual = [], []
    for each in found.parameters:
        default, meaning = _default(each.default), _meaning(each.description, each.choices)
        if common().get(each.name) == meaning:
            usual.append(f"{each.name}={default}")
        else:
            rows.append(f"| `{each.name}` | {default} | {meaning} |")
    lines = ["| parameter | default | meaning |", "|---|---|---|", *rows, ""] if rows else []
    if usual:
        lines += [f"[Common parameters](index.md#common-parameters): `{', '.join(usual)}`.", ""]
    return "\n".join([*lines, f"Needs: {found.needs}. Source: {found.source}."])


@cache
def common() -> dict[str, str]:
    """Parameters to which three strategies or more give one meaning, with that meaning."""
    found = [each for strategy in strategies().values() for each in strategy.parameters]
    count = Counter((each.name, _meaning(each.description, each.choices)) for each in found)
    return {name: meaning for (name, meaning), users in count.items() if users > 2}


def common_parameters() -> str:
    """What the common parameters mean."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in common().items()]
    return "\n".join(["| parameter | meaning |", "|---|---|", *rows])


def _default(value: str | float | None) -> str:
    return "auto" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _meaning(description: str, choices: tuple[str, ...]) -> str:
    meaning = description.replace("confidence score", "[confidence score](../scores.md)")
    if all(f"`{word}`" in meaning for word in choices):
        return meaning
    return f"{meaning} ({', '.join(f'`{word}`' for word in choices)})"


def measured(name: str) -> str:
    """Rows of one strategy, all parameter settings, at the ends of the sizes that `summary` does not show."""
    usual, more = demo()
    rows = [row for row in [*usual, *more] if row["strategy"].partition(":")[0] == name]
    rows = list({(row["traces"], row["strategy"], row["n"]): row for row in rows}.values())
    if strategies()[name].sized:
        rows = [row for row in rows if row["n"] in SIZES]
    if not rows:
        return "*[Not measured](index.md#measurements) on the demo data.*"
    return table(rows, "[How to read this table](index.md#measurements).")


def targets(name: str) -> str:
    """What a benchmark was to reach and what it found."""
    lines = ["| | target | measured |", "|---|---|---|"]
    for line in json.loads((RESULTS / f"{name}.json").read_text())["targets"]:
        if "target" in line:  # the form of files of 0.1
            missed = "" if line["met"] else " (missed)"
            lines.append(f"| {line['target']} | {line['limit']} | {line['measured']}{missed} |")
            continue
        ends = "" if line["low"] is None else f" [{line['low']:.4g}, {line['high']:.4g}]"
        reason = f": {line['reason']}" if line["reason"] else ""
        limit = f"at {'most' if line['better'] == 'lower' else 'least'} {line['limit']:,.6g}"
        lines.append(f"| {line['name']} | {limit} | {line['value']:,.4g}{ends}, {line['state']}{reason} |")
    return "\n".join(lines)


def missed(name: str) -> str:
    """How many targets a benchmark has, and those that it missed, with what it found."""
    head, rule, *rows = targets(name).splitlines()
    short = [row for row in rows if re.search(r"missed[^|]*\|$", row)]
    near = sum(row.endswith(", consistent |") for row in rows)
    told = f"{len(rows) - len(short) - near} of {len(rows)} targets were met"
    if near:  # met needs the whole interval on the right side of the limit
        told += f", {near} are consistent with what was measured"
    return f"{told}." if not short else "\n".join([f"{told}. The others:", "", head, rule, *short])


def met(names: list[str]) -> str:
    """How many targets each of these benchmarks has met."""
    lines = ["| benchmark | targets met |", "|---|---|"]
    for name in names:
        found = json.loads((RESULTS / f"{name}.json").read_text())["targets"]
        reached = sum(line["met"] if "met" in line else line["state"] == "met" for line in found)
        lines.append(f"| `benchmarks/{name.replace('-', '_')}.py` | {reached} of {len(found)} |")
    return "\n".join(lines)


def summary() -> str:
    """All usual strategies of the larger model at 16 samples, and the two references."""
    rows, _ = demo()
    at = {"single": 1, "greedy": 1}
    return table([row for row in rows if row["n"] == at.get(row["strategy"], 16) and "-1.5b-" in row["model"]])


def table(rows: list[Row], caption: str = "") -> str:
    """Rows of `compare` as a Markdown table, with what they were measured on, or the caption in its place."""
    if not rows:
        raise KeyError("no row of this strategy in benchmarks/results")
    several = len({row["strategy"] for row in rows}) > 1
    lines = [
        f"| model |{' strategy |' if several else ''} n | accuracy, % | tokens | samples | seconds | advantage |",
        f"|---|{'---|' if several else ''}--:|---|--:|--:|--:|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["model"], row["strategy"] == "oracle")):
        model = row["model"].removeprefix("qwen2.5-coder-").removesuffix("-instruct-q4").replace("b", "B")
        name = f" `{row['strategy']}` |" if several else ""
        lines.append(
            f"| {model} |{name} {row['n']} | {_percent(row, 'accuracy', '')} | {row['tokens']:,.0f} "
            f"| {row['samples']:.1f} | {row['seconds']:.1f} | {_percent(row, 'difference', '+')} |"
        )
    return "\n".join([*lines, "", f"*{caption or about(rows)}*"])


def about(rows: list[Row]) -> str:
    """What rows of `compare` were measured on, and what their columns mean."""
    first = rows[0]
    return (
        f"Means over the {first['problems']} problems of the demo data and {first['seeds']} random orders of the "
        "recorded samples; in brackets 95 % bootstrap intervals over problems. The models are Qwen2.5-Coder-Instruct "
        "with 0.5 and 1.5 billion parameters. Tokens are those generated, cancelled ones included. Seconds are "
        "simulated. Advantage is the difference in points to self-consistency at equal tokens; – where there is "
        "nothing to compare with."
    )


def _percent(row: Row, key: str, sign: str) -> str:
    values = [row[key], row[f"{key}_low"], row[f"{key}_high"]]
    if (row["strategy"] == "self-consistency" and key == "difference") or None in values:
        return "–"
    middle, low, high = (_number(100 * value, sign) for value in values)
    return f"{middle}\N{NO-BREAK SPACE}[{low},\N{NO-BREAK SPACE}{high}]"


def _number(value: float, sign: str) -> str:
    value = round(value, 1)
    return f"{value:{sign}.1f}".replace("-", "−") if value else "0.0"


def styles() -> str:
    """The prompt styles, from the code."""
    lines = ["| style | added to your message | the reply is made to start with | source |", "|---|---|---|---|"]
    for name, style in STYLES.items():
        opening = f"“{style.opening.strip()}”" if style.opening else "–"
        lines.append(f"| `{name}` | “{style.instruction}” | {opening} | {style.source} |")
    return "\n".join(lines)


def receipt() -> str:
    """A receipt of a real run, as the terminal shows it; the file holds `command` and `result`."""
    path = RESULTS / "receipt.json"
    if not path.exists():
        return (
            "*(No run is recorded in `benchmarks/results/receipt.json` yet. `make demo` prints a receipt of its own.)*"
        )
    run = json.loads(path.read_text())
    told = run["result"]
    spent = told["receipt"]
    entries = tuple(Entry(**entry) for entry in spent["entries"])
    result = Result(
        told["answer"],
        told["text"],
        told["strategy"],
        told["model"],
        told["stopped"],
        Receipt(entries, spent["seconds"], tuple(spent.get("notes", ()))),
    )
    screen = io.StringIO()
    console = Console(file=screen, width=100, highlight=False)
    print_receipt(result, console)
    command = wrap(f"$ {run['command']}", 90, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    shown = (line.rstrip() for line in screen.getvalue().splitlines())
    lines = [" \\\n".join(command), str(result.answer), *shown]
    return "\n".join(["```text", *lines, "```"])
