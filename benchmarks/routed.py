"""Asks held-out prompts through `ask`, `batch` and `serve` with a router, and compares with `router eval --choices`.

    python benchmarks/routed.py [--prompts 1000]

The router is trained on MMLU without these prompts; both models are scripted servers on this machine, which count what
reaches them. Writes results/routed.json: how many prompts went where the evaluation says, and the router's own
processor time a request. Rows are read from ../shared/data/routing (or OUTTHINK_ROUTING); without them the exit code
is 77.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet

from common import ROOT, judged, load_average, parser, save_evidence, show, skip

sys.path.insert(0, str(ROOT / "tests"))

import outthink as ot
from outthink.controller.router.artefact import prompt_hash
from outthink.controller.router.chooser import ModelChooser, RoutedChoice
from outthink.evaluation.routing.run import held_out, train
from outthink.evaluation.routing.training import ONE_ANSWER
from support.chat_server import ChatServer, chat, models
from support.proxy_server import ProxyServer

DATA = Path(os.environ.get("OUTTHINK_ROUTING") or ROOT.parent / "shared" / "data" / "routing") / "mmlu.parquet"
NAMES = {"weak": "small", "strong": "large"}


@contextmanager
def timed() -> Iterator[list[float]]:
    """Processor milliseconds of each choice that is made in the block, in the thread that makes it."""
    taken: list[float] = []
    choose = ModelChooser.choose

    def measured(self: ModelChooser, question: str, at_hand: Sequence[Sequence[str]]) -> RoutedChoice:
        began = time.thread_time()
        choice = choose(self, question, at_hand)
        taken.append(1000 * (time.thread_time() - began))
        return choice

    ModelChooser.choose = measured  # type: ignore[method-assign]
    try:
        yield taken
    finally:
        ModelChooser.choose = choose  # type: ignore[method-assign]


def asked(urls: Sequence[str], router: Path, prompts: Sequence[str]) -> list[str]:
    """The model of each prompt, asked one after the other by one client."""
    with ot.SyncClient(urls, router=router, max_tokens=64) as client:
        return [client.ask(prompt).model for prompt in prompts]


def batched(urls: Sequence[str], router: Path, prompts: Sequence[str]) -> list[str]:
    """The same in one batch."""
    with ot.SyncClient(urls, router=router, max_tokens=64) as client:
        return [result.model for result in client.ask_batch(prompts, at_most=1, answer="number").results]


def served(urls: Sequence[str], router: Path, prompts: Sequence[str]) -> list[str]:
    """The same through the proxy, as `outthink/auto`."""
    with ProxyServer(*urls, router=ModelChooser(router)) as proxy:
        replies = [proxy.chat("outthink/auto", prompt, max_tokens=64) for prompt in prompts]
    return [str(reply.json["outthink"]["receipt"]["model"]) for reply in replies]


WAYS: dict[str, Callable[[Sequence[str], Path, Sequence[str]], list[str]]] = {
    "ask": asked,
    "batch": batched,
    "serve": served,
}


def prepared(folder: Path, count: int) -> list[dict[str, Any]]:
    """Train without the last rows of a shuffle, and what is chosen for them."""
    table = parquet.read_table(DATA)
    order = np.random.default_rng(0).permutation(table.num_rows)
    prompts = table["prompt"].to_pylist()
    held = set(order[:count].tolist())
    marks = {prompt_hash(prompts[row]) for row in held}
    kept = [row for row in order[count:].tolist() if prompt_hash(prompts[row]) not in marks]  # equal ones: one side
    parquet.write_table(table.take(sorted(kept)), folder / "train.parquet")
    parquet.write_table(table.take(sorted(held)), folder / "test.parquet")
    train(folder / "train.parquet", folder / "router", ONE_ANSWER, names=NAMES)
    held_out(folder / "test.parquet", folder / "router", choices=folder / "choices.jsonl")
    return [json.loads(line) for line in (folder / "choices.jsonl").read_text().splitlines()]


def main() -> int:
    """Train, ask, compare and write results/routed.json."""
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=1000, metavar="N", help="held-out prompts (default 1000)")
    count = options.parse_args().prompts
    if not DATA.is_file():
        return skip("the routing sets are not in ../shared/data/routing; set OUTTHINK_ROUTING to their folder")
    busy, rows = load_average(), []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        choices = prepared(folder, count)
        prompts, wanted = [row["prompt"] for row in choices], [row["model"] for row in choices]
        reply = chat(["The answer is 7."])
        servers = {
            model: stack.enter_context(ChatServer(reply, routes={"/v1/models": models(model)}))
            for model in NAMES.values()
        }
        for way, ask in WAYS.items():
            before = {model: len(server.calls) for model, server in servers.items()}
            with timed() as taken:
                found = ask([server.url for server in servers.values()], folder / "router", prompts)
            reached = {model: len(server.calls) - before[model] for model, server in servers.items()}
            same = [a == b for a, b in zip(found, wanted, strict=True)]
            figures = {"own_ms": float(np.mean(taken)), "own_ms_p99": float(np.quantile(taken, 0.99))}
            row = {"way": way, "n": len(found), "agreement": float(np.mean(same)), **figures}
            rows.append({**row, "calls_agree": reached == dict(Counter(wanted)), "to_strong": reached["large"]})
    show("where prompts went, and the router's own time", rows)
    targets, cores = [], os.cpu_count()
    for row in rows:
        met = row["agreement"] if row["calls_agree"] else 0.0
        targets.append(judged(f"{row['way']}: prompts that go where router eval says", met, 1.0, better="higher"))
        for what, value in (("mean", row["own_ms"]), ("p99", row["own_ms_p99"])):
            name = f"{row['way']}: processor time of a choice, ms, {what}"
            targets.append(judged(name, value, 5.0, reason=f"load {busy:.0f} of other programs on {cores} cores"))
    save_evidence("routed", rows=rows, targets=targets, load_before=busy)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
