"""What other distributions add: strategies, verifiers, engines and kinds of answers by entry point, and our extras.

Knows: which plugins are installed, whose they are, and how one is loaded, at most once and only when it is asked for;
one that cannot be costs a line there and nothing elsewhere. Of our extras the modules that each brings, and the one
wording of how it is installed. Does not know what a strategy, verifier, engine or answer is, or check what it gives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from outthink.core.errors import BadInput, OutthinkError, Unsupported

Group = Literal["strategies", "verifiers", "engines", "answers"]
GROUPS: tuple[Group, ...] = ("strategies", "verifiers", "engines", "answers")
FIELDS: dict[Group, str] = {"strategies": "strategy", "verifiers": "verifier", "engines": "model", "answers": "answer"}
"""What a user calls it who names one."""

Factory = Callable[..., Any]
"""A plugin's function: what it makes is for whoever asks to check."""
_loaded: dict[tuple[Group, str], Factory] = {}


class Plugin(NamedTuple):
    """An entry point, and the distribution that it comes with."""

    group: Group
    name: str
    target: str
    distribution: str

    @property
    def field(self) -> str:
        """What a user calls it who names one."""
        return FIELDS[self.group]


def installed(*groups: Group) -> Iterator[Plugin]:
    """The plugins of these groups, of all by default; reads the metadata of every distribution."""
    from importlib.metadata import entry_points  # 20 ms, which `import outthink` does without

    for group in groups or GROUPS:
        for entry in entry_points(group=f"outthink.{group}"):
            owner = "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
            yield Plugin(group, entry.name, entry.value, owner)


def loaded(group: Group) -> tuple[str, ...]:
    """Names of what has been loaded so far; looks for nothing."""
    return tuple(name for kind, name in _loaded if kind == group)


def load(group: Group, name: str) -> Factory | None:
    """What a plugin offers under a name, None where no plugin has it.

    Raises BadInput where two distributions offer the name, Unsupported where it cannot be loaded.
    """
    if (group, name) not in _loaded:
        offers = [plugin for plugin in installed(group) if plugin.name == name]
        if not offers:
            return None
        if len(offers) > 1:
            raise taken(FIELDS[group], name, offers[0].distribution, offers[1].distribution)
        _loaded[group, name] = _load(offers[0])
    return _loaded[group, name]


def make(group: Group, name: str, argument: str) -> Any:
    """What a plugin's function makes of an argument; None and errors as for `load`."""
    function = load(group, name)
    if function is None:
        return None
    try:
        return function(argument)
    except OutthinkError:
        raise
    except Exception as error:
        raise Unsupported(f"{FIELDS[group]} {name!r}: the plugin failed ({_line(error)})") from error


def taken(field: str, name: str, *owners: str) -> BadInput:
    """The error for a name that two distributions offer."""
    return BadInput(field, name, f"is offered by {' and by '.join(owners)}", "uninstall or rename one of them")


def owner(module: str) -> str:
    """The distribution that a module comes from, the module itself where that is unknown; takes a while."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    package = module.partition(".")[0]
    name = packages_distributions().get(package, [package])[0]
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return module


def resolve(target: str) -> Any:
    """The object at `package.module:name`; whatever its import raises."""
    from importlib import import_module

    module, _, name = target.partition("[")[0].strip().partition(":")
    if not name:
        raise ValueError("no function is named")
    return attrgetter(name)(import_module(module))


def resolve_beside(target: str) -> Any:
    """`resolve`, and where no such module is installed look into the working directory too."""
    import os

    try:
        return resolve(target)
    except ModuleNotFoundError as error:
        # A module that was found and itself imports what is missing is not to be looked for elsewhere.
        if error.name != target.partition(":")[0].partition(".")[0] or os.getcwd() in sys.path:
            raise
    sys.path.append(os.getcwd())  # at the end: nothing there may stand before an installed module
    return resolve(target)


def _load(plugin: Plugin) -> Factory:
    try:
        value: Factory = resolve(plugin.target)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an import may raise anything
        problem = f"cannot be loaded ({_line(error)})"
    else:
        if callable(value):
            return value
        problem = "is no function"
    entry_point = f"{plugin.field} {plugin.name!r}: entry point {plugin.target} of {plugin.distribution} {problem}"
    raise Unsupported(f"{entry_point}; mend or uninstall it")


def _line(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


# Extras of this distribution.

EXTRAS: dict[str, tuple[str, ...]] = {
    "local": ("xllamacpp",),
    "hub": ("huggingface_hub",),
    "datasets": ("reasoning_gym",),
    "schema": ("jsonschema", "referencing"),
    "transformers": ("torch", "transformers", "peft"),
    "train": ("torch", "transformers", "peft"),
    "calibrate": ("sklearn", "scipy", "threadpoolctl"),
    "serve": ("aiohttp", "jsonschema", "prometheus_client"),
    "telemetry": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    "postgres": ("psycopg",),
    "report": ("matplotlib",),
    "completion": ("shtab",),
    "plan": ("numba",),
}
"""Extra to the modules without which what it is for does not run."""
_TORCH = ("transformers", "train")


def install_hint(extra: str) -> str:
    """The command that installs an extra, as the remedy of an error."""
    # No registry has this distribution yet, so it comes from a checkout.
    command = f"pip install '.[{extra}]' in a checkout of outthink"
    # pip's own choice of torch on Linux is a build for CUDA of several gigabytes.
    first = ", after a CPU build of torch where there is no GPU (docs/verifiers.md)"
    return command + first if extra in _TORCH else command


def missing(extra: str) -> tuple[str, ...]:
    """Modules of an extra that are not installed; at most the package around one is imported."""
    return tuple(name for name in EXTRAS[extra] if not _found(name))


def need_extra(extra: str, field: str, value: str, *, load: bool = True) -> None:
    """Raise BadInput, which names what lacks and how to install it, where an extra cannot be used.

    Args:
        load: also import what is there, which an installation that is broken does not survive.
    """
    if absent := missing(extra):
        problem = f"needs {', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed"
        raise BadInput(field, value, problem, install_hint(extra))
    for name in EXTRAS[extra] if load else ():
        try:
            __import__(name)
        except (ImportError, OSError) as error:  # a shared library that is missing is an OSError
            problem = f"needs {name}, which cannot be imported ({error})"
            raise BadInput(field, value, problem, install_hint(extra)) from error


def _found(name: str) -> bool:
    """Whether a module, of a package perhaps that is missing itself, can be imported."""
    try:
        return find_spec(name) is not None
    except ImportError:  # the package that it is in is missing
        return False
    except ValueError:  # a module that was put there without having been found
        return sys.modules.get(name) is not None
