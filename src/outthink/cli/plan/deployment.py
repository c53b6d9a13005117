"""What one replica of a plan is: flags, over what a configuration of `serve` says of the server.

Knows flags, and how errors name what was said by which of them. Does not know which of them go together, files of
models, rooflines, or how a plan is made.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.economics.capacity.plan import Deployment
    from outthink.economics.capacity.server import CapacityServer, CapacitySettings
    from outthink.economics.workload import Workload

_NAMED = re.compile(r"`(\w+)`")
"""Fields within an error's text."""


def deployment_arguments(add: Callable[..., argparse.Action]) -> None:
    """Flags of `chosen_server`; what is left out is the configuration's, or has the defaults told here."""
    add("--model", type=Path, metavar="CONFIG|GGUF", help="config.json, its folder, or a GGUF file: what is served")
    add("--gpu", metavar="NAME|FILE", help="its data sheet by name, or a JSON file with the same fields")
    add("--tensor-parallel", type=int, metavar="N", help="GPUs of one replica: 1, 2, 4 or 8 (default 1)")
    add("--kv-type", metavar="TYPE", help="numbers in the cache: bf16, fp16 or fp8 (default bf16)")
    add("--memory-share", type=float, metavar="SHARE", help="of a GPU's memory for the server (default 0.9)")
    add("--kv-tokens", type=float, metavar="N", help="tokens that the cache holds, as the server's log says")
    add("--max-sequences", type=int, metavar="N", help="requests inside at once; slots of llama.cpp")
    add("--max-batched-tokens", type=int, metavar="N", help="tokens that one step computes at most")
    add("--chunk", type=int, metavar="N", help="tokens of a prompt read in one step (default 512, or the profile's)")
    add("--step-seconds", type=float, metavar="S", help="of one step, whatever is in it")
    add("--speed", type=Path, metavar="FILE", help="measured step profile")


@dataclass(frozen=True, slots=True)
class ChosenServer:
    """The server of a plan.

    Args:
        read: what was said of it, with its files.
        places: where each field was said, for errors.
    """

    read: CapacityServer
    places: Mapping[str, str]

    @property
    def settings(self) -> CapacitySettings:
        """What was said of it."""
        return self.read.settings

    def deployment(self, workload: Workload) -> tuple[Deployment, list[str]]:
        """The replica for these requests, and what to know of its numbers. Raises BadInput."""
        with _told(self.places):
            deployment, notes = self.read.deployment(workload)
        return deployment, [_by_flags(note) for note in notes]


def chosen_server(chosen: argparse.Namespace) -> ChosenServer:
    """The server for these flags. Raises BadInput before anything is computed."""
    from outthink.economics.capacity.server import CapacitySettings
    from outthink.engines.shapes import read_shape

    settings, places = CapacitySettings(), dict[str, str]()
    if chosen.config is not None:
        from outthink.serving.config import read_capacity

        settings, places = read_capacity(chosen.config)
    said = {each.name: value for each in fields(CapacitySettings) if (value := vars(chosen)[each.name]) is not None}
    places = {name: place for name, place in places.items() if name not in said}
    # Either of them says what a step takes: a flag takes the place of the other one in the file.
    for name, other in (("step_seconds", "speed"), ("speed", "step_seconds")):
        if name in said:
            said.setdefault(other, None)
    with _told(places):
        return ChosenServer(replace(settings, **said).read(read_shape), places)


@contextmanager
def _told(places: Mapping[str, str]) -> Iterator[None]:
    """Within it, errors name the place where a field was said, else its flag."""
    try:
        yield
    except BadInput as error:
        from outthink.economics.capacity.server import CapacitySettings

        known = error.field in {each.name for each in fields(CapacitySettings)}
        field = places.get(error.field, _flag(error.field)) if known else error.field
        raise BadInput(field, error.value, _by_flags(error.problem), _by_flags(error.remedy)) from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _by_flags(text: str) -> str:
    return _NAMED.sub(lambda match: _flag(match[1]), text)
