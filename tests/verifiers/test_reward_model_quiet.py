"""Reading a model in a thread keeps that thread quiet, and no other."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from outthink.verifiers.reward_model.checkpoint import quietly


def test_only_the_thread_that_reads_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    nothing = dict.fromkeys(
        ("set_verbosity", "set_verbosity_error", "disable_progress_bar", "enable_progress_bar"), lambda *_: None
    )
    logging = SimpleNamespace(**nothing, get_verbosity=lambda: 30, is_progress_bar_enabled=lambda: False)
    utils = ModuleType("transformers.utils")
    vars(utils)["logging"] = logging
    package = ModuleType("transformers")
    vars(package)["utils"] = utils
    monkeypatch.setitem(sys.modules, "transformers", package)
    monkeypatch.setitem(sys.modules, "transformers.utils", utils)
    reading, printed = threading.Event(), threading.Event()

    def read() -> None:
        with quietly():
            print("a report of heads", file=sys.stderr)
            reading.set()
            printed.wait(10)

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(10)
    print("the receipt", file=sys.stderr)
    printed.set()
    thread.join()
    print("and what follows", file=sys.stderr)
    assert capsys.readouterr().err == "the receipt\nand what follows\n"
