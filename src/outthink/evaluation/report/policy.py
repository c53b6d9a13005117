"""A policy as a table, a chart and a page.

Knows: which figures of a policy a reader needs, and that its rungs and controls are rows like those of
`compare`. Does not know how a policy is made or applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from outthink.controller.policy.artefact import HeldOut, Policy, Task
from outthink.evaluation.report.series import Row

if TYPE_CHECKING:
    from rich.console import Console

_NAME = "auto"


def rows(policy: Policy) -> list[Row]:
    """Rungs and controls in the keys of `compare`'s rows (docs/contracts.md), held-out figures all."""
    found = []
    for task in policy.tasks:
        for arm in task.arms:
            found.append(_row(task, _NAME, arm.n, arm.held_out))
        for control in task.other.get("controls", ()):
            found.append(_row(task, control["strategy"], control["n"], HeldOut.of(control["held_out"])))
    return found


def _row(task: Task, strategy: str, n: int, held: HeldOut) -> Row:
    name = f"{task.model}--{task.dataset}" if task.dataset else task.model
    return {
        "traces": name,
        "model": task.model,
        "strategy": strategy,
        "n": n,
        "accuracy": held.accuracy,
        "accuracy_low": held.accuracy_low,
        "accuracy_high": held.accuracy_high,
        "tokens": held.tokens,
        "prompt_tokens": held.prompt_tokens,
        "cancelled_tokens": None,
        "flops": held.flops,
        "seconds": held.seconds,
        "samples": held.samples,
        "problems": held.problems,
        "difference": None,
    }


def about(policy: Policy) -> dict[str, str]:
    """Facts of the policy, by name."""
    content = policy.content
    target = content["target"]
    facts = {
        "policy": policy.id,
        "created": f"{policy.created} by {content['code']}, expires {content['expires']}",
        "models": str(content["models"]),
        "target": f"{target['text']} within {target['margin']:g}, by {target['by']}",
        "folds": f"{content['folds']}, seed {content['seed']}",
    }
    if content.get("prices"):
        facts["prices"] = f"{content['prices']['text']} dollars a million tokens, of {content['prices']['date']}"
    return facts


def remarks(policy: Policy) -> list[str]:
    """What calibration found worth saying, by task."""
    found = []
    for task in policy.tasks:
        name = f"{task.model}, {task.dataset}" if task.dataset else task.model
        coverage = task.other["coverage"]
        found.append(
            f"{name}: its prediction interval covered {coverage['covered']} of {coverage['splits']} random halves"
        )
        found += [f"{name}: {note}" for note in task.other.get("notes", ())]
    return found


def show(policy: Policy, console: Console) -> None:
    """Print the policy: facts, a table of its arms and controls, remarks."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    for name, value in about(policy).items():
        console.print(Text(f"{name}: {value}"), soft_wrap=True)
    for task in policy.tasks:
        title = f"{task.model} · {task.dataset}" if task.dataset else task.model
        table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("arm", "accuracy, %", "tokens", "samples", "ratio"):
            table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
        base = {
            control["n"]: control["held_out"]
            for control in task.other.get("controls", ())
            if control["strategy"] == "self-consistency"
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
            "* meets the target at the least cost; ratio of tokens to the widest self-consistency; held-out problems",
            style="dim",
        )
    )
    for remark in remarks(policy):
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
    from outthink.evaluation.report.html import render

    facts: Mapping[str, Any] = {"title": "A calibrated policy", **about(policy)}
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
