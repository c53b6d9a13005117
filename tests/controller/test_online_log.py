"""The log of choices: append-only, crash-safe, reversible, and the same state when replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.controller.online import Arm, Learner, Settings
from outthink.controller.online.learner import LogLine
from outthink.core.errors import BadInput

ARMS = (Arm("small", 0.6, 0.5, 0.7, 1.0), Arm("large", 0.8, 0.75, 0.85, 4.0))


def learner(path: Path, **settings: object) -> Learner:
    return Learner(path, "sha256:abc", ARMS, Settings(**settings), clock=lambda: 1e9)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changed")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_every_line_says_what_was_drawn_how_likely_and_what_came(path: Path) -> None:
    one = learner(path)
    choice = one.choose("r1")
    one.spent("r1", 2.5)
    assert one.learn("r1", True)
    opened, *rest = lines(path)
    assert opened["kind"] == "policy"
    assert [line["kind"] for line in rest] == ["choice", "cost", "outcome"]
    for n, line in enumerate(rest, start=1):
        assert line["n"] == n
        assert (line["request"], line["policy"], line["time"]) == ("r1", "sha256:abc", 1e9)
        assert (line["arm"], line["propensity"]) == choice
    assert (rest[-1]["outcome"], rest[-1]["cost"]) == (True, 2.5)


Events = st.lists(
    st.one_of(
        st.tuples(st.just("choose"), st.integers(0, 9)),
        st.tuples(st.just("learn"), st.integers(0, 9), st.booleans(), st.one_of(st.none(), st.floats(0, 9))),
        st.tuples(st.just("spent"), st.integers(0, 9), st.floats(0, 9)),
        st.tuples(st.just("revert"), st.integers(0, 30)),
        st.tuples(st.just("crash"), st.integers(1, 40)),
        st.tuples(st.just("reopen")),
    ),
    max_size=30,
)


@given(Events, st.sampled_from([None, 5.0]))
@settings(max_examples=60, deadline=None)
def test_a_replayed_log_gives_the_live_state(tmp_path_factory, events: list[tuple], memory: float | None) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    live, before = learner(path, memory=memory, price=0.01), b""
    for event, *given_ in events:
        try:
            if event == "choose":
                live.choose(f"r{given_[0]}")
            elif event == "learn":
                live.learn(f"r{given_[0]}", *given_[1:])
            elif event == "spent":
                live.spent(f"r{given_[0]}", given_[1])
            elif event == "revert":
                live.revert(given_[0])
            elif event == "crash":
                torn = LogLine(n=live.count, kind="revert", time=0.0, policy="", to=0).text()
                with path.open("a") as file:
                    file.write(torn[: given_[0]])
            else:
                live.close()
                live = Learner(path, clock=lambda: 1e9)
        except BadInput:
            pass
        content = path.read_bytes()
        assert content.startswith(before)  # nothing is ever deleted or changed
        before = content
    replayed = Learner(path)
    assert replayed.state() == live.state()
    assert replayed.beliefs() == live.beliefs()
    replayed.close()
    live.close()


def test_a_torn_last_line_is_ignored_and_said(path: Path) -> None:
    one = learner(path)
    one.choose("r1")
    state = one.state()
    one.close()
    whole = path.read_text()
    for cut in (1, 20, 60):
        path.write_text(whole + whole.splitlines()[-1][:cut])
        again = Learner(path)
        assert again.state() == state
        assert "1 torn line" in again.notes[0]
        again.learn("r1", False)  # goes on a line of its own
        assert Learner(path).state() == again.state()
        assert len(Learner(path).notes) == 1


def test_a_killed_writer_leaves_a_readable_log(path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from outthink.controller.online import Arm, Learner
one = Learner(Path(sys.argv[1]), "p", [Arm("a", 0.5, 0.4, 0.6, 1.0), Arm("b", 0.5, 0.4, 0.6, 1.0)])
for i in range(5):
    one.choose(f"r{i}")
    one.learn(f"r{i}", True)
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.stdout == "written\n", done.stderr
    one = Learner(path)
    assert (one.count, len(one.outcomes), one.notes) == (11, 5, ())


def test_two_writers_share_a_log(path: Path) -> None:
    first, second = learner(path), learner(path)
    first.choose("r1")
    second.choose("r2")
    second.learn("r1" if "r1" in second.choices else "r2", True)
    first.choose("r3")
    assert first.state() == Learner(path).state()
    assert set(first.choices) == {"r1", "r2", "r3"}


def test_undo_forgets_and_can_be_undone(path: Path) -> None:
    one = learner(path)
    states = []
    for i in range(4):
        one.choose(f"r{i}")
        one.learn(f"r{i}", i % 2 == 0)
        states.append((one.count - 1, one.state()["counts"], one.state()["outcomes"]))
    size = path.stat().st_size
    last, counts, outcomes = states[1]
    one.revert(last)
    assert (one.state()["counts"], one.state()["outcomes"]) == (counts, outcomes)
    assert path.stat().st_size > size
    assert one.learn("r3", True)  # it may be judged anew
    one.revert(states[3][0])
    assert one.state()["counts"] == states[3][1]
    for nonsense in (-1, one.count):
        with pytest.raises(BadInput, match="undo"):
            one.revert(nonsense)


def test_what_was_not_drawn_teaches_nothing(path: Path) -> None:
    one = learner(path)
    before = one.state()["counts"]
    one.close()
    foreign = LogLine(n=1, kind="choice", time=0.0, policy="", request="r1", arm="small", propensity=None)
    with path.open("a") as file:
        file.write(foreign.text() + "\n")
    one = Learner(path)
    assert one.learn("r1", True) is False
    assert one.state()["counts"] == before
    with pytest.raises(BadInput, match="already"):
        one.learn("r1", False)
    with pytest.raises(BadInput, match="r2"):
        one.learn("r2", True)


def test_a_request_keeps_its_arm(path: Path) -> None:
    one = learner(path)
    assert one.choose("r1") == one.choose("r1") == Learner(path).choose("r1")
    assert one.count == 2


def test_refusals(path: Path, tmp_path: Path) -> None:
    learner(path).choose("r1")
    with pytest.raises(BadInput, match="policy"):
        Learner(path, "sha256:other", ARMS)
    with pytest.raises(BadInput, match="arms"):
        Learner(path, "sha256:abc", ARMS[:1])
    with pytest.raises(BadInput, match="settings"):
        learner(path, price=3.0)
    with pytest.raises(BadInput, match="does not exist"):
        Learner(tmp_path / "none")
    with pytest.raises(BadInput, match="cost"):
        Learner(path).spent("r1", float("nan"))
    text = path.read_text().splitlines()
    path.write_text(text[0] + "\n" + text[1].replace('"n": 1', '"n": 2') + "\n")
    with pytest.raises(BadInput, match="lacks line 1"):
        Learner(path)
    path.write_text('{"a": 1}\n')
    with pytest.raises(BadInput, match="line 0: "):
        Learner(path)
    path.write_text("")
    with pytest.raises(BadInput, match="empty"):
        Learner(path)


VALUES = st.none() | st.booleans() | st.integers(-2, 9) | st.floats(allow_nan=False) | st.text(max_size=3)
PLACES = [(0, "about"), (0, "about", "arms"), (0, "about", "arms", 0), (0, "about", "arms", 0, "mean")]
PLACES += [(0, "about", "settings"), (0, "about", "settings", "most"), (4, "to")]
PLACES += [(n, name) for n in range(5) for name in ("n", "kind", "time", "policy", "request", "arm", "outcome", "cost")]


@given(st.sampled_from(PLACES), VALUES | st.lists(VALUES, max_size=2), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_log_with_any_one_value_changed_is_read_or_refused_in_one_line(
    folder: Path, place: tuple[Any, ...], value: Any, missing: bool
) -> None:
    path = folder / "log.jsonl"
    path.unlink(missing_ok=True)
    one = learner(path)
    one.choose("r1")
    one.spent("r1", 2.5)
    one.learn("r1", True)
    one.revert(1)
    written = lines(path)
    assert len(written) == 5
    *parents, last = place
    inside: Any = reduce(lambda part, key: part[key], parents, written)
    if missing:
        inside.pop(last, None) if isinstance(inside, dict) else inside.pop(last)
    else:
        inside[last] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in written))
    try:
        Learner(path).choose("r2")
    except BadInput as error:
        refused = str(error)
    else:
        return
    assert "\n" not in refused
    assert "log" in refused or "arm" in refused
