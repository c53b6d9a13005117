"""Where the workload of a plan comes from: lengths by flags, a trace, a ledger, recorded samples.

Knows flags and which of them go together. Does not know a server, or how a workload is counted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.options import refuse_below_one, say
from outthink.core.errors import BadInput

if TYPE_CHECKING:
    from outthink.economics.workload import Workload
    from outthink.evaluation.rows import Row
    from outthink.strategies import Spec


@dataclass(frozen=True, slots=True)
class RequestedLoad:
    """Requests, how many a second, whether their arrivals are real, and what to know of them.

    Args:
        strategies: the same requests under each strategy and size that is compared, with what is known of its answers.
    """

    workload: Workload
    rate: float
    timed: bool = False
    notes: tuple[str, ...] = ()
    strategies: tuple[tuple[Row, Workload], ...] = ()


def workload_arguments(add: Callable[..., argparse.Action]) -> None:
    """Flags of `chosen_workload`."""
    add("--prompt-tokens", metavar="LENGTH", help="of a request")
    add("--output-tokens", metavar="LENGTH", help="of a request")
    add("--trace", type=Path, metavar="FILE", help="requests: arrival, prompt_tokens, output_tokens; groups by group")
    add("--strategy", action="append", default=[], metavar="SPEC", help="what is made of a request, with its n")
    add("--traces", type=Path, metavar="FILE", help="recorded samples on which strategies are replayed")
    add("--policy", type=Path, metavar="FILE", help="of strategy auto")
    add("--ahead", type=int, default=4, metavar="N", help="samples in flight where a strategy may stop (default 4)")
    add("--rate", type=float, metavar="N", help="requests a second (default: the trace's own)")


def chosen_workload(chosen: argparse.Namespace) -> RequestedLoad:
    """The workload for these flags. Raises BadInput before anything is computed."""
    if chosen.rate is not None and not (math.isfinite(chosen.rate) and chosen.rate > 0):
        raise BadInput("--rate", chosen.rate, "is not a positive number", "give requests a second")
    if bool(chosen.strategy) != (chosen.traces is not None):
        missing, given = ("--traces", "--strategy") if chosen.strategy else ("--strategy", "--traces")
        raise BadInput(missing, None, f"is missing, and {given} needs it", "give both, or neither")
    lengths = {"--prompt-tokens": chosen.prompt_tokens, "--output-tokens": chosen.output_tokens}
    sources = {"--trace": chosen.trace, **lengths}
    if chosen.trace is None and not any(lengths.values()) and chosen.strategy:
        return _replayed(chosen, None)
    if chosen.trace is not None:
        for name, value in lengths.items():
            if value is not None:
                raise BadInput(name, value, "does not go with --trace", "leave one of them out")
        single = _traced(chosen)
    else:
        for name, value in lengths.items():
            if value is None:
                raise BadInput(name, None, "is missing", f"give both lengths, or one of {', '.join(sources)}")
        single = _distributed(chosen)
    return _replayed(chosen, single) if chosen.strategy else single


def _distributed(chosen: argparse.Namespace) -> RequestedLoad:
    from outthink.economics.workload import Lengths, distributed

    prompt = Lengths.parse(chosen.prompt_tokens, "--prompt-tokens")
    output = Lengths.parse(chosen.output_tokens, "--output-tokens")
    return RequestedLoad(distributed(prompt, output, chosen.seed), _rate(chosen))


def _rate(chosen: argparse.Namespace) -> float:
    if chosen.rate is None:
        raise BadInput("--rate", None, "is missing", "give requests a second")
    return float(chosen.rate)


def _replayed(chosen: argparse.Namespace, single: RequestedLoad | None) -> RequestedLoad:
    """Requests as a strategy makes them: the recorded ones, or those of a trace with as many samples."""
    from outthink.controller.policy.artefact import Policy
    from outthink.economics.workload import Workload
    from outthink.evaluation.calibration.contenders import NAME
    from outthink.evaluation.compare import CompareSettings
    from outthink.evaluation.replayed_calls.rows import call_columns
    from outthink.evaluation.replayed_calls.run import replay_calls
    from outthink.strategies import Spec

    refuse_below_one(chosen, "ahead")
    if (NAME in chosen.strategy) != (chosen.policy is not None):
        raise BadInput("--policy", chosen.policy, f"goes with --strategy {NAME}, and {NAME} with a policy", "give both")
    rate = _rate(chosen) if single is None else single.rate
    named = [Spec.parse(text, importing=True) for text in chosen.strategy if text != NAME]
    specs = list({str(each): each for spec in named for each in _sizes(spec)}.values())
    settings = CompareSettings(
        seeds=1, ahead=chosen.ahead, policy=Policy.load(chosen.policy) if chosen.policy else None
    )
    found = []
    for each in replay_calls([chosen.traces], specs, settings, say=say):
        workload = Workload.of_columns(*call_columns(each.requests))
        if single is not None:
            workload = single.workload.sampled_like(workload, chosen.seed)
        row = {
            "strategy": each.spec.canonical,
            "n": each.spec.n,
            "accuracy": each.accuracy,
            "accuracy_low": each.accuracy_low,
            "accuracy_high": each.accuracy_high,
        }
        found.append((row, workload))
    note = f"accuracy and samples by replay of {chosen.traces.name}, {chosen.ahead} in flight"
    timed, notes = (False, ()) if single is None else (single.timed, single.notes)
    return RequestedLoad(found[-1][1], rate, timed, (*notes, note), tuple(found))


def _sizes(spec: Spec) -> list[Spec]:
    """A strategy at 1, 2, 4, ... samples up to its own size, which comes last."""
    if not spec.strategy.sized:
        return [spec]
    sizes = [1 << power for power in range(spec.n.bit_length()) if 1 << power < spec.n]
    return [*(spec.sized(size) for size in sizes), spec]


def _traced(chosen: argparse.Namespace) -> RequestedLoad:
    from outthink.economics.capacity.trace import read_trace

    workload = read_trace(chosen.trace)
    seconds = float(workload.arrival.max())
    if chosen.rate is None and not seconds:
        raise BadInput("--rate", None, "is missing, and all requests of the trace arrive at once", "give a rate")
    own = len(workload) / seconds if seconds else math.inf
    rate = chosen.rate or own
    note = f"{len(workload):,} requests of {chosen.trace.name} in {seconds:,.0f} s"
    if chosen.rate is not None and seconds:
        # Twice the rate is the same trace in half the time.
        workload = workload.arriving(workload.arrival[workload.first_stages] * own / rate)
    return RequestedLoad(workload, rate, timed=seconds > 0, notes=(note,))
