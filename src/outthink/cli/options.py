"""What several verbs share: the flags of an engine, refusals, progress on a terminal, and files written whole.

Knows flags, standard error and rich's bars. Does not know an engine, or what is counted or written.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outthink.controller.router.chooser import pairs_of
from outthink.core.errors import BadInput
from outthink.core.paths import write_file
from outthink.core.plugins import installed
from outthink.core.request import ANSWER_KINDS, Sampling

if TYPE_CHECKING:
    from outthink.configuration.file import Configuration
    from outthink.configuration.models import ModelChoice
    from outthink.evaluation.report.table import Row


KEY_HELP = "variable that holds the key (default OPENAI_API_KEY, sent to OPENAI_BASE_URL or api.openai.com alone)"


def configuration_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `chosen_configuration`."""
    found = "default $OUTTHINK_CONFIG, ./outthink.toml, ~/.config/outthink/config.toml"
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"models by name and more ({found})")
    parser.add_argument("--env-file", type=Path, metavar="FILE", help="variables, where the environment has none")


def chosen_configuration(chosen: argparse.Namespace) -> Configuration:
    """The configuration for these flags. Raises BadInput."""
    from outthink.configuration.file import read_configuration

    return read_configuration(chosen.config, env_file=chosen.env_file)


def engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `chosen_model`."""
    add = parser.add_argument
    add("--model", metavar="NAME", help="an alias, URL, GGUF file or embedded (default $OUTTHINK_MODEL or embedded)")
    add("--model-name", metavar="NAME", help="which model of the server (default its first)")
    add("--api-key-env", metavar="VAR", help=KEY_HELP)
    add("--idle-timeout", type=float, default=60.0, metavar="S", help="seconds without a byte before giving up (60)")
    configuration_arguments(parser)


def chosen_model(chosen: argparse.Namespace, also: str | None = None) -> ModelChoice:
    """The model for these flags, or a further one of this name. Raises BadInput."""
    from outthink.configuration.models import choose_model

    if not chosen.idle_timeout > 0:
        raise BadInput("--idle-timeout", chosen.idle_timeout, "is not positive", "give seconds")
    configuration = chosen_configuration(chosen)
    if also is not None:
        return choose_model(also, configuration=configuration, idle_timeout=chosen.idle_timeout)
    return choose_model(
        chosen.model,
        configuration=configuration,
        name=chosen.model_name,
        api_key_env=chosen.api_key_env,
        idle_timeout=chosen.idle_timeout,
    )


def parameters_argument(add: Callable[..., argparse.Action]) -> None:
    """The flag of `chosen_parameters`."""
    about = "weights read per token, for FLOPs: of every model, or of this one; repeatable"
    add("--parameters", action="append", default=[], metavar="[MODEL=]N", help=about)


def chosen_parameters(chosen: argparse.Namespace, models: Iterable[str]) -> dict[str, int]:
    """Weights read per token of models that samples were drawn from, where a flag or an alias says them."""
    from outthink.configuration.models import parameters_of

    return parameters_of(dict.fromkeys(models), chosen.parameters, chosen_configuration(chosen))


def choosing_arguments(add: Callable[..., argparse.Action]) -> None:
    """Flags of a router that chooses the model."""
    add("--also", action="append", default=[], metavar="URL|PATH", help="a further model to draw from; repeatable")
    add("--router", type=Path, metavar="FILE|DIR", help="predictor of `outthink router train`: it chooses the model")
    add("--router-map", action="append", default=[], metavar="NAME=ALIAS", help="what a model of the router is called")
    add("--operating-point", metavar="WAY=X", help="in place of the router's own, for example strong-share=0.3")


def choosing_options(chosen: argparse.Namespace) -> Any:
    """These flags, and what each model costs, as a client takes them."""
    from outthink.economics.price import Price
    from outthink.economics.tariff import Energy

    unstated = [None] * len(chosen.also)
    return {
        "model": [chosen_model(chosen), *(chosen_model(chosen, also) for also in chosen.also)],
        "price": [Price.parse(chosen.price) if chosen.price else None, *unstated],
        "energy": [Energy.parse(chosen.energy) if chosen.energy else None, *unstated],
        "parameters": [chosen.parameters, *unstated],
        "router_map": pairs_of("--router-map", chosen.router_map),
    }


def say(line: str) -> None:
    """One line beside the results."""
    print(line, file=sys.stderr, flush=True)


def flags_of(kind: type, chosen: argparse.Namespace) -> Any:
    """The values of the flags that are called like fields of a dataclass, or keys of a typed dictionary."""
    names = [field.name for field in fields(kind)] if is_dataclass(kind) else kind.__annotations__
    return {name: vars(chosen)[name] for name in names if name in vars(chosen)}


def sampling_arguments(add: Callable[..., argparse.Action], max_tokens: int = 512) -> None:
    """Flags of `chosen_sampling`, for `add_argument` of a parser or of a group."""
    add("--max-tokens", type=int, default=max_tokens, help=f"cap of one completion (default {max_tokens})")
    add("--temperature", type=float, default=0.8, help="default 0.8")


def chosen_sampling(chosen: argparse.Namespace) -> Sampling:
    """How completions are drawn, by these flags."""
    return Sampling(temperature=chosen.temperature, max_tokens=chosen.max_tokens)


class Answers(tuple[str, ...]):
    """What `--answer` takes: the kinds, which help shows, and those of plugins."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or any(plugin.name == name for plugin in installed("answers"))


ANSWERS = Answers(ANSWER_KINDS)


_AGE = re.compile(r"(\d{1,9}(?:\.\d+)?)([mhdw])\Z", re.ASCII)
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_CENTURY = 36_500 * 86_400.0
"""Dates have an end."""


def age_seconds(name: str, age: str) -> float:
    """Seconds of `30m`, `12h`, `7d` or `8w`. Raises BadInput for anything else, and beyond a century."""
    seconds = 0.0 if (match := _AGE.match(age)) is None else float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _CENTURY:
        raise BadInput(name, age, "is no time", "give a number and m, h, d or w, for example 30d")
    return seconds


def refuse_below_one(chosen: argparse.Namespace, *names: str) -> None:
    """BadInput for a flag that is given and below 1."""
    for name in names:
        value = vars(chosen)[name]
        if value is not None and value < 1:
            raise BadInput(f"--{name.replace('_', '-')}", value, "is below 1", "give at least 1")


_PLOT, _NARROWEST = 76, 36
"""Characters of a plot's lines, and the fewest that still show a curve."""

Progress = Callable[[int, int], None]
"""Takes (parts done, parts in all)."""


@contextmanager
def progress_bars() -> Iterator[Callable[..., Progress]]:
    """Bars on a terminal; elsewhere a line for each step, or for each tenth, so that a log stays readable.

    What it yields takes the name of a bar, and what comes before and after the counts in a line.
    """
    from rich import progress as rich
    from rich.console import Console

    columns = rich.BarColumn(), rich.MofNCompleteColumn(), rich.TimeRemainingColumn()
    drawn = sys.stderr.isatty()
    with rich.Progress("{task.description}", *columns, console=Console(stderr=True), disable=not drawn) as bar:

        def add(name: str, before: str = "", after: str = "", *, tenths: bool = False) -> Progress:
            task, last = bar.add_task(name, total=None), -1

            def progress(done: int, total: int) -> None:
                nonlocal last
                bar.update(task, completed=done, total=total)
                step = 10 * done // total if tenths else done
                if not drawn and (step != last or not tenths):
                    last = step
                    print(f"{before or name} {done} of {total}{after}", file=sys.stderr, flush=True)

            return progress

        yield add


@contextmanager
def passing_bar(name: str) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """A bar on a terminal that is gone afterwards, and a way to say a line above it."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    with Bars(console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None)
        yield (
            lambda done, total: bar.update(task, completed=done, total=total),
            lambda line: console.print(line, markup=False, soft_wrap=True),
        )


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table without lines: its first column to the left, numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_plot(rows: Sequence[Row]) -> None:
    """Accuracy against tokens, as wide as the terminal allows, in colours where it has them (NO_COLOR is heeded)."""
    from rich.console import Console

    from outthink.evaluation.report.terminal import terminal_plot

    console = Console()
    width = max(_NARROWEST, min(_PLOT, console.width)) if console.is_terminal else _PLOT
    print(
        terminal_plot(
            rows, width=width, color=console.is_terminal and not console.no_color and console.color_system is not None
        )
    )


def refuse_unwritable(chosen: argparse.Namespace, *names: str) -> None:
    """BadInput, before any work, for the file of a flag that could not be written after it."""
    for name in names:
        path: Path | None = vars(chosen)[name]
        if path is None:
            continue
        if path.is_dir():
            raise BadInput(f"--{name}", str(path), "is a folder", "name a file in it")
        if not path.parent.is_dir():
            raise BadInput(f"--{name}", str(path), "is in a folder that does not exist", "make it first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise BadInput(f"--{name}", str(path), "cannot be written", "check the permissions")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file at once or not at all; BadInput where it cannot be written."""
    try:
        write_file(path, content)
    except OSError as error:
        remedy = "check the folder and the space there"
        raise BadInput("file", str(path), f"cannot be written ({error.strerror})", remedy) from None
