"""Invariants and exact equivalences of the searches (strategies specification, S10 to S14)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import ceil, exp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink import Completion, Request, ScriptedEngine, Session
from outthink.strategies import Spec
from outthink.strategies.search.beam import best, widths
from outthink.strategies.search.mcts import Node, Tree, exploration
from outthink.strategies.search.search import Path, Search
from outthink.verifiers import FunctionVerifier
from support.runs import Run, virtual
from support.toy_tree import OPTIMUM, WIDE, Place, ToyTree, ToyVerifier, number, place

SCORES = st.floats(0, 1, allow_nan=False)


def worth(seed: int) -> Callable[[Place], float]:
    """Values that look random, below saturation."""
    return lambda at: (hash((seed, at)) % 9973) / 10_100


def few(at: Place) -> str:
    """One of three answers."""
    return str(hash(at) % 3)


def play(spec: str, tree: ToyTree, verifier: Any) -> Run:
    run = virtual(Spec.parse(spec), tree.engine, verifier=verifier)
    if run.error is not None:
        raise run.error
    return run


# Beam and lookahead


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=20), st.integers(1, 20), st.integers(1, 6))
def test_ceil_of_active_by_m_paths_survive_and_get_the_active_budget(scores: list[float], active: int, m: int) -> None:
    live = [Path(steps=(f"step {i}",), value=score) for i, score in enumerate(scores)]
    plan = best(m)(live, active)
    assert len(plan) == min(len(live), ceil(active / m))
    assert sum(count for _, count in plan) == min(active, m * len(plan))
    assert all(count <= m for _, count in plan)
    worst = min(path.value for path, _ in plan)
    assert all(path.value <= worst for path in live if path not in [kept for kept, _ in plan])


def test_duplicates_go_before_anything_else_does() -> None:
    live = [Path(steps=(text,), value=score) for text, score in (("a", 0.9), ("a", 0.9), ("b", 0.5), ("c", 0.1))]
    assert [path.text for path, _ in best(2)(live, 4)] == ["a", "b"]
    assert [path.text for path, _ in best(1)(live, 4)] == ["a", "a", "b", "c"]  # nothing has to go


def test_finished_beams_release_their_budget() -> None:
    """Of 8 first steps 3 end; ceil(5 / 2) = 3 go on, with 5 children in all."""

    def write(call: Any) -> Completion:
        if call.prefix is None and call.index < 3:
            return Completion(text=f"The answer is {call.index}.", tokens=10)
        step = f"try number {call.index} {'now' if call.prefix is None else 'then'}"
        return Completion(text=f"{step}\n\nThe answer is 9." if call.prefix is None else "The answer is 9.", tokens=20)

    engine = ScriptedEngine(write, speed=WIDE)
    run = virtual(Spec.parse("beam:n=8,m=2"), engine, verifier=FunctionVerifier(lambda r, t: 0.5))
    assert len([call for call in run.calls if call.prefix is None]) == 8
    later = [call.prefix for call in run.calls if call.prefix is not None]
    assert (len(later), len(set(later))) == (5, 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from(["last", "min", "prod", "mean"]))
def test_one_child_a_path_equals_independent_runs(seed: int, n: int, aggregation: str) -> None:
    """Sample i goes its own way; beam, DVTS and the weighted vote see the same n solutions."""
    runs = [
        play(
            f"{name}:n={n}{',m=1' * (name != 'weighted-vote')}",
            ToyTree(width=9, answer=few),
            ToyVerifier(worth(seed), aggregation=aggregation),
        )
        for name in ("weighted-vote", "beam", "dvts")
    ]
    assert len({(run.value.answer, run.value.text) for run in runs}) == 1
    assert [len(run.calls) for run in runs] == [n, 3 * n, 3 * n]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 17), st.integers(1, 5))
def test_lookahead_of_no_step_is_beam(seed: int, n: int, m: int) -> None:
    beam, ahead = (
        play(spec, ToyTree(answer=few), ToyVerifier(worth(seed)))
        for spec in (f"beam:n={n},m={m}", f"lookahead:n={n},m={m},k=0")
    )
    assert ahead.value == beam.value
    assert ahead.calls == beam.calls
    assert ahead.entries == beam.entries


def test_lookahead_judges_where_a_step_leads() -> None:
    """Both first steps look alike; only the greedy rollout of the second runs into a good end."""
    verifier = ToyVerifier(lambda at: {(3, 0, 0): 0.9, (3, 0): 0.8}.get(at, 0.1))
    run = play("lookahead:n=4,k=2", ToyTree(), verifier)
    assert place(run.value.text) == (3, 0, 0)
    rolled = [call for call in run.calls if call.sampling.temperature == 0]
    assert len(rolled) == 4 * 2 + 4 * 1


# DVTS


def test_subtrees_share_no_budget() -> None:
    """Three subtrees of 4, 4 and 2 children; each goes down its own best path."""
    run = play("dvts:n=10", ToyTree(), ToyVerifier())
    by_depth = [0, 0, 0]
    for call in run.calls:
        by_depth[len(place(call.prefix or ""))] += 1
    assert by_depth == [10, 10, 10]
    assert run.value.answer == number(OPTIMUM)


def test_subtrees_run_side_by_side() -> None:
    alone, four = (play(f"dvts:n={n}", ToyTree(), ToyVerifier()) for n in (4, 16))
    assert four.receipt.seconds == pytest.approx(alone.receipt.seconds)


# REBASE


@settings(max_examples=200, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=40), st.integers(1, 64), st.floats(0.02, 5))
def test_widths_add_up_to_the_budget(scores: list[float], budget: int, temperature: float) -> None:
    given = widths(scores, budget, temperature)
    assert sum(given) == budget
    assert min(given) >= 0
    ranked = [width for _, width in sorted(zip(scores, given, strict=True), key=lambda pair: -pair[0])]
    assert all(better >= worse - 1 for better, worse in pairwise(ranked))


@pytest.mark.parametrize("score", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 49])
def test_equal_scores_give_one_child_each(score: float, count: int) -> None:
    assert widths([score] * count, count, 0.2) == [1] * count


def test_widths_follow_the_formula() -> None:
    """softmax([1, 0.8, 0.5] / 0.2) = .6897 .2537 .0566: ceil(5.52) = 6, ceil(2 * .8176) = 2, 0."""
    assert widths([0.5, 1.0, 0.8], 8, 0.2) == [0, 6, 2]


# MCTS


def test_exploration_constant() -> None:
    assert exploration(0) == pytest.approx(1.250051, abs=5e-7)
    assert exploration(20) == pytest.approx(1.251068, abs=5e-7)


def test_puct_weighs_value_against_visits() -> None:
    root = Node(Path(), visits=9, total=4.5)
    often = Node(Path(value=0.6), root, 0.5, visits=6, total=3.6)
    seldom = Node(Path(value=0.5), root, 0.5, visits=2, total=1.0)
    root.children = [often, seldom]
    reach = exploration(9) * 3 * 0.5
    assert (0.6 + reach / 7) < (0.5 + reach / 3)
    assert root.select() is seldom


def grow(seed: int, simulations: int, width: int = 4, **options: Any) -> tuple[Tree, Run]:
    trees: list[Tree] = []

    async def strategy(session: Session, request: Request) -> Any:
        search = Search.open(session, request, "mcts", "auto", 512, "auto")
        trees.append(Tree(search, width, 40, options.get("by_logprob", False), options.get("noise", 0.0)))
        for _ in range(simulations):
            await trees[0].simulate()
        return await trees[0].vote()

    run = virtual(strategy, ToyTree(answer=few).engine, verifier=ToyVerifier(worth(seed)), seed=seed)
    assert run.error is None
    return trees[0], run


def nodes(node: Node) -> list[Node]:
    return [node, *(below for child in node.children for below in nodes(child))]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25))
def test_visits_and_values_add_up(seed: int, simulations: int) -> None:
    tree, run = grow(seed, simulations)
    assert tree.root.visits == simulations
    for node in nodes(tree.root):
        if node.children:
            assert sum(child.visits for child in node.children) == node.visits - 1
        if node.visits:
            assert 0 <= node.value <= 1
            assert node.total == pytest.approx(node.value * node.visits)
    expanded = [node for node in nodes(tree.root) if node.children]
    opened = [node for node in nodes(tree.root) if not node.children and not node.path.finished]
    assert len(run.calls) == 4 * len(expanded) + min(4, len(opened))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.sampled_from(["vote", "visits"]))
def test_no_unfinished_leaf_answers(seed: int, n: int, choice: str) -> None:
    run = play(f"mcts:n={n},choice={choice}", ToyTree(answer=few), ToyVerifier(worth(seed)))
    assert len(place(run.value.text)) == 3
    assert run.value.answer == few(place(run.value.text))


def test_noise_and_priors() -> None:
    quiet, _ = grow(1, 1)
    assert [child.prior for child in quiet.root.children] == [0.25] * 4
    loud, _ = grow(1, 5, noise=0.25)
    again, _ = grow(1, 5, noise=0.25)
    priors = [child.prior for child in loud.root.children]
    assert priors == [child.prior for child in again.root.children]
    assert sum(priors) == pytest.approx(1)
    assert max(priors) > 0.26
    below = next(node for node in nodes(loud.root) if node is not loud.root and node.children)
    assert [child.prior for child in below.children] == [0.25] * 4  # noise is for the first steps


def test_priors_from_the_step_s_own_log_probability() -> None:
    def write(call: Any) -> Completion:
        return Completion(text=f"[{call.index}] go on and on\n\nThe answer is 1.", tokens=40, logprob=-0.5 * call.index)

    trees: list[Tree] = []

    async def strategy(session: Session, request: Request) -> None:
        trees.append(Tree(Search.open(session, request, "mcts", "auto", 99, "auto"), 2, 9, True, 0.0))
        await trees[0].simulate()

    assert virtual(strategy, ScriptedEngine(write, speed=WIDE), verifier=ToyVerifier()).error is None
    first, second = (child.prior for child in trees[0].root.children)
    assert first / second == pytest.approx(exp(0.5))


def test_an_exact_verifier_judges_completions_and_ends_the_search() -> None:
    """Every leaf is completed to be judged; the first right one is the answer, and nothing runs after it."""
    right = number((2, 0, 0))
    run = play("mcts:n=20", ToyTree(), FunctionVerifier(lambda r, text: right in text, exact=True))
    assert run.value.answer == right
    assert len(run.calls) == 4 + 4  # four first steps and their completions
    never = play("mcts:n=3", ToyTree(), FunctionVerifier(lambda r, text: False, exact=True))
    assert never.value.answer is not None
