"""Where the workload of a plan comes from: lengths by flags, a trace, a ledger, recorded samples.

Knows flags and which of them go together. Does not know a server, or how a workload is counted.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outthink.cli.options import age_seconds, refuse_below_one, say
from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra
from outthink.http.errors import masked_url

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
    add("--ledger", metavar="FILE|URL", help="requests that a proxy has served: its SQLite file, or postgresql://...")
    add("--since", metavar="AGE", help="how long ago the ledger's requests begin: 30m, 24h, 7d (default 7d)")
    add("--config", type=Path, metavar="FILE", help="the TOML file that serve reads: its ledger, and [serve.capacity]")
    add("--rate", type=float, metavar="N", help="requests a second (default: the trace's or the ledger's own)")


def chosen_workload(chosen: argparse.Namespace) -> RequestedLoad:
    """The workload for these flags. Raises BadInput before anything is computed."""
    lengths = {"--prompt-tokens": chosen.prompt_tokens, "--output-tokens": chosen.output_tokens}
    if chosen.rate is not None and not (math.isfinite(chosen.rate) and chosen.rate > 0):
        raise BadInput("--rate", chosen.rate, "is not a positive number", "give requests a second")
    if bool(chosen.strategy) != (chosen.traces is not None):
        missing, other = ("--traces", "--strategy") if chosen.strategy else ("--strategy", "--traces")
        raise BadInput(missing, None, f"is missing, and {other} needs it", "give both, or neither")
    sources = {**lengths, "--trace": chosen.trace, "--ledger": chosen.ledger}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1 and given[-1] not in lengths:
        problem = f"does not go with {given[-1]}"
        raise BadInput(given[0], str(sources[given[0]]), problem, "leave one of them out")
    if chosen.strategy:
        return _replayed(chosen, _single(chosen, given) if given else None)
    return _single(chosen, given)


def _single(chosen: argparse.Namespace, given: Sequence[str]) -> RequestedLoad:
    """Requests as they were, or as lengths say: without a strategy."""
    if chosen.ledger is not None or (chosen.config is not None and not given):
        return _served(chosen)
    if chosen.since is not None:
        raise BadInput("--since", chosen.since, "is of a ledger", "give --ledger, or leave it out")
    if chosen.trace is not None:
        return _traced(chosen)
    for name in ("--prompt-tokens", "--output-tokens"):
        if name not in given:
            raise BadInput(
                name, None, "is missing", "give both lengths, a --trace, a --ledger or --strategy with --traces"
            )
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
    note = f"{len(workload):,} requests of {chosen.trace.name} in {seconds:,.0f} s"
    return _timed(workload, own, chosen.rate, [note])


def _timed(workload: Workload, own: float, rate: float | None, notes: Sequence[str]) -> RequestedLoad:
    """Requests with arrivals of their own, at another rate if that is wanted."""
    if rate is not None and math.isfinite(own):
        # Twice the rate is the same trace in half the time.
        workload = workload.arriving(workload.arrival[workload.first_stages] * own / rate)
    return RequestedLoad(workload, rate or own, timed=math.isfinite(own), notes=tuple(notes))


_SINCE = "7d"


def _served(chosen: argparse.Namespace) -> RequestedLoad:
    """The requests of a proxy's ledger."""
    age = _SINCE if chosen.since is None else chosen.since
    seconds = age_seconds("--since", age)
    where = str(chosen.config) if chosen.ledger is None else masked_url(chosen.ledger)
    need_extra("serve", "--ledger", where)  # its ledger is the proxy's
    from outthink.economics.capacity.served import ServedLoad
    from outthink.serving.ledger import LedgerAddress, read_requests

    url = _ledger_url(chosen)
    now = time.time()
    load, older = read_requests(url, now - seconds, now, lambda rows: ServedLoad(now - seconds, now).add(rows))
    name = LedgerAddress.parse(url).name
    if not load:
        problem = f"holds no request of the last {age} whose tokens are known"
        raise BadInput("ledger", name, problem, "give a longer --since, another ledger, or a --trace")
    if not older:  # it is younger than the span, and had no chance to hold all of it
        load.begin_at_first()
    note = f"{len(load):,} requests of {name} in {_shown_seconds(load.seconds)}"
    return _timed(load.workload(), load.rate, chosen.rate, [note, *load.notes()])


def _shown_seconds(seconds: float) -> str:
    unit, size = ("s", 1.0) if seconds < 600 else ("h", 3600.0) if seconds < 172_800 else ("days", 86_400.0)
    return f"{seconds / size:,.3g} {unit}"


def _ledger_url(chosen: argparse.Namespace) -> str:
    """The ledger's address, secrets included."""
    if chosen.ledger is None:
        from outthink.serving.config import read_store

        store, configuration = read_store(chosen.config)
        return store.resolved(configuration.variables)
    if "://" in chosen.ledger or chosen.ledger == "memory:":
        return str(chosen.ledger)
    return f"sqlite:///{Path(chosen.ledger).absolute()}"
