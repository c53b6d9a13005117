"""The child process: llama.cpp's server on a loopback port, for one parent.

Knows xllamacpp and how to die with its parent. Imports nothing else of this package, because it is
run as a file: that starts faster, and a folder named `outthink` in the working directory cannot get
in the way. Reads one line of JSON (the plan) from standard input, writes one line of JSON (the port)
to standard output, and lives until standard input ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import xllamacpp

_PR_SET_PDEATHSIG = 1
_POLL = 0.5  # seconds between two looks at the parent


class ServerOptions(TypedDict):
    """How a server is to run.

    Args:
        model: path of the GGUF file, already checked.
        alias: the model's name in replies.
        slots: requests that are worked on at once.
        slot_context: tokens of one slot, prompt and completion together.
        threads: for a single running completion.
        batch_threads: for reading prompts, and for several completions at once.
    """

    model: str
    alias: str
    slots: int
    slot_context: int
    threads: int
    batch_threads: int


class Plan(ServerOptions):
    """The line of JSON that the parent sends: the options, and what `Child` knows besides."""

    cache_mib: int
    slot_folder: str
    key: str
    parent: int
    signalled: bool


def die_with(parent: int, *, signalled: bool) -> None:
    """Arrange that this process ends with its parent, in three ways, since each has its hole.

    End-of-file on standard input fails where a sibling was forked meanwhile and holds the pipe open;
    the kernel's signal comes when the parent's *thread* ends, so it is used only for its main thread;
    watching the parent's number fails while native code holds the interpreter lock.
    """
    if signalled and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
    threading.Thread(target=_await_end_of_input, daemon=True).start()
    threading.Thread(target=_await_new_parent, args=(parent,), daemon=True).start()


def _await_end_of_input() -> None:
    while os.read(0, 4096):
        continue
    os._exit(0)  # xllamacpp's own shutdown was seen to crash and to hang with requests in flight


def _await_new_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(0)


def parameters(plan: Plan) -> xllamacpp.CommonParams:
    """The plan as xllamacpp wants it."""
    import xllamacpp

    chosen = xllamacpp.CommonParams()
    chosen.model.path = plan["model"]
    chosen.model_alias = {plan["alias"]}
    chosen.hostnames = ["127.0.0.1"]
    chosen.port = 0  # the system picks one that is free
    chosen.api_keys = [plan["key"]]  # other users of this machine, and web pages, can reach a loopback port
    chosen.cors_origins = ""
    chosen.ui = False
    chosen.n_parallel = plan["slots"]
    chosen.n_ctx = plan["slots"] * plan["slot_context"]
    # With a unified cache one slot's overflow fails all of them (500 "Context size has been exceeded").
    chosen.kv_unified = False
    chosen.fit_params = False  # it would change the context that was asked for
    chosen.cache_ram_mib = plan["cache_mib"]  # 8 GiB by default
    chosen.slot_save_path = plan["slot_folder"]
    chosen.cpuparams.n_threads = plan["threads"]
    chosen.cpuparams_batch.n_threads = plan["batch_threads"]
    chosen.n_threads_http = plan["slots"] + 8  # every open connection holds one
    chosen.verbosity = 1  # errors; information is some hundred bytes a request
    return chosen


def main() -> None:
    """Serve until the parent is gone."""
    # Ctrl-C reaches the whole terminal group, but the parent still wants its partial answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            os._exit(0)
        line += piece
    plan: Plan = json.loads(line)
    die_with(plan["parent"], signalled=plan["signalled"])
    report = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints belongs into the log
    reply: dict[str, int | str]
    try:
        import xllamacpp

        server = xllamacpp.Server(parameters(plan))
        reply = {"port": int(server.listening_address.rsplit(":", 1)[1])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        reply = {"error": f"{type(error).__name__}: {error}"}
    os.write(report, (json.dumps(reply) + "\n").encode())
    os.close(report)
    if "error" in reply:
        os._exit(1)
    while True:  # the threads above end this process
        time.sleep(3600)


if __name__ == "__main__":
    main()
