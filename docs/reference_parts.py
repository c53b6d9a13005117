"""Parts of the reference that the program tells of itself: verbs and flags, keys of the configuration, strategies.

Knows: the parser behind `--help`, the docstrings behind `serve --print-config`, and which kind each strategy is of.
Does not know which page a part stands on.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from textwrap import wrap
from typing import Any, NamedTuple

from outthink.cli.main import VERBS, parser
from outthink.configuration.file import Alias, Written
from outthink.serving.config.config import SECTIONS, described, toml
from outthink.serving.config.sections import BackendConfig, keys_of
from outthink.strategies import strategies

KINDS = {
    "One sample": "single greedy",
    "Majority votes": "self-consistency adaptive-consistency esc short-m-of-k",
    "Choice by confidence, or by a verifier": "best-of-n borda confidence-vote deepconf deepconf-online weighted-vote",
    "Search over steps, led by a verifier": "beam lookahead dvts rebase mcts",
    "One trace, cut short or lengthened": "budget-forcing early-exit think-with-me",
    "Attempts that build on each other": "revision atom-of-thoughts",
}
"""The strategies by what they do."""
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
SEVERAL = 3
"""Verbs that share a flag, in the same words, for it to be explained once."""


class Argument(NamedTuple):
    """An argument as help shows it: what is written, its bare name, and what it means."""

    written: str
    name: str
    meaning: str

    @property
    def line(self) -> str:
        """An entry of a list."""
        return f"- `{self.written}`: {self.meaning}" if self.meaning else f"- `{self.written}`"


def strategy_kinds(folder: str) -> str:
    """The strategies by kind, each a link to its page in `folder`."""
    lines = ["| what it is | strategies |", "|---|---|"]
    for kind, names in _kinds():
        lines.append(f"| {kind} | {', '.join(f'[{name}]({folder}{name}.md)' for name in names)} |")
    return "\n".join(lines)


def strategy_table() -> str:
    """What every strategy does and needs: a table for each kind, and above it what most of them need."""
    known, parts = strategies(), []
    for kind, names in _kinds():
        (usual, _), *_ = Counter(known[name].needs for name in names).most_common(1)
        lines = [f"**{kind}.** Needs {usual}.", "", "| strategy | what it does |", "|---|---|"]
        for name in names:
            needs = known[name].needs
            more = "" if needs == usual else f" Needs {needs}."
            lines.append(f"| [{name}]({name}.md) | {known[name].summary}{more} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _kinds() -> Iterator[tuple[str, list[str]]]:
    named = {name for names in KINDS.values() for name in names.split()}
    if named != set(strategies()):
        raise KeyError(f"strategies without a kind, or kinds without a strategy: {named ^ set(strategies())}")
    for kind, names in KINDS.items():
        yield kind, names.split()


def verbs() -> str:
    """Every verb of the command line, what it does, and where its flags stand."""
    rows = (f"| [{name}](#{name}) | {_with_flags(does)} |" for name, does in VERBS.items())
    return "\n".join(["| verb | what it does |", "|---|---|", *rows])


def command_line() -> str:
    """Every verb with its arguments and their defaults; what several verbs share is explained once."""
    top = parser()
    commands = _steps(top)
    told = Counter(each for command in commands.values() for each in {*_arguments(command)} if each.meaning)
    shared = [each for each, count in told.items() if count >= SEVERAL and each.name.startswith("--")]
    parts = ["\n".join(["## Flags of several verbs", "", *(each.line for each in sorted(shared))])]
    for verb, command in commands.items():
        parts.append("\n".join([f"## {verb}", "", *_listed(_arguments(command), shared)]).strip())
        steps = _steps(command)
        common = set.intersection(*({*_arguments(step)} for step in steps.values())) if steps else set()
        if common:
            parts.append("\n".join(["With every step:", "", *(each.line for each in sorted(common))]))
        for name, step in steps.items():
            own = [each for each in _arguments(step) if each not in common]
            parts.append("\n".join([f"### {verb} {name}", "", step.description or "", "", *_listed(own, [])]).strip())
        if command.epilog:
            rows = (row for line in command.epilog.splitlines() for row in wrap(line, 94, subsequent_indent="    "))
            parts.append("\n".join(["```text", *rows, "```"]))
    about = _arguments(top)
    return "\n\n".join(["\n".join(each.line for each in about if each.written != "VERB"), *parts])


def _listed(arguments: Iterable[Argument], shared: Iterable[Argument]) -> list[str]:
    """Lines for arguments; those that several verbs share are only named."""
    known = set(shared)
    lines = [each.line for each in arguments if each not in known]
    if named := sorted(f"`{each.name}`" for each in arguments if each in known):
        lines.append(f"- and {', '.join(named)}: [as with other verbs](#flags-of-several-verbs)")
    return lines


def _steps(command: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below a command, by name."""
    found = (action for action in command._actions if isinstance(action, argparse._SubParsersAction))
    return {name: step for action in found for name, step in action.choices.items()}


def _arguments(command: argparse.ArgumentParser) -> list[Argument]:
    """Its arguments in their order, without --help."""
    kept = [action for action in command._actions if action.dest not in ("help", "step")]
    return [Argument(_written(each), [*each.option_strings, each.dest][0], _meaning(each)) for each in kept]


def _written(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    if not action.option_strings:
        return value
    written = "" if action.nargs == 0 else f" [{value}]" if action.nargs == "?" else f" {value}"
    return action.option_strings[-1] + written


def _meaning(action: argparse.Action) -> str:
    """Its help; with the default where the help does not tell it, and whether it must be given."""
    told = _with_flags(" ".join((action.help or "").split()).replace("<", "\\<"))
    given = action.default not in (None, False, [], argparse.SUPPRESS)
    if given and "default" not in told and f"({_shown(action.default)})" not in told:
        told += f" (default {_shown(action.default)})"
    return f"{told} (required)" if action.required and action.option_strings else told


def _with_flags(text: str) -> str:
    """Help with the flags in it as code, where they are not yet."""
    parts = text.split("`")
    return "`".join(part if at % 2 else _FLAG.sub(r"`\g<0>`", part) for at, part in enumerate(parts))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def configuration() -> str:
    """Every key of the configuration file, with its default and meaning."""
    sections = {"": Written, "models.NAME": Alias, "serve.backends": BackendConfig}
    sections |= {f"serve.{name}": kind for name, kind in SECTIONS.items()}
    return "\n\n".join(_section(name, kind) for name, kind in sections.items())


def _section(name: str, kind: type) -> str:
    summary, meanings = described(kind)
    head = f"**`[{name}]`.** {summary}" if name else f"**{summary.rstrip('.')}.**"
    defaults = {entry.name: entry.default for entry in fields(kind)}
    lines = [head, ""]
    for key in keys_of(kind):
        default = defaults[key]
        shown = "" if default in (None, MISSING, ()) else f" = {toml(default)}"
        lines.append(f"- `{key}{shown}`: {meanings[key]}")
    return "\n".join(lines)
