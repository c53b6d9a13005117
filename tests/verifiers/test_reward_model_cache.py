"""Incremental scoring: only what is new is computed, and the scores are those of a full pass."""

from __future__ import annotations

import asyncio
import math
import random
import threading

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from outthink.core.errors import BadInput, EngineError  # noqa: E402
from outthink.core.request import Request  # noqa: E402
from outthink.core.sample import Candidate, split_steps  # noqa: E402
from outthink.verifiers.reward_model import RewardModelVerifier  # noqa: E402
from outthink.verifiers.reward_model.scorer import PrefixCache  # noqa: E402
from support.tiny_models import CHATML, LLAMA, WithHead, tiny_model, tiny_tokenizer  # noqa: E402
from support.waiting import PATIENCE, eventually  # noqa: E402

REQUEST = Request.of("A farmer has 3 hens that lay 2 eggs a day. How many eggs a week?")
TEXT = "Each hen lays 2 eggs.\n3 hens lay 6 eggs a day.\nA week has 7 days.\n6 x 7 = 42\nThe answer is 42"
STEPS = split_steps(TEXT, "\n")


def make(format: str, **settings):
    names = {
        "math-shepherd": ("ки",),
        "rlhflow": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "qwen-prm": ("<|im_start|>", "<|im_end|>", "<extra_0>"),
    }.get(format, ())
    template = {"rlhflow": LLAMA, "qwen-prm": CHATML}.get(format)
    tokenizer = tiny_tokenizer(*names, template=template, prefix_space=format == "math-shepherd")
    if format in ("math-shepherd", "rlhflow"):
        family, extra = ("Mistral", {"sliding_window": 40}) if format == "math-shepherd" else ("Llama", {})
        model = tiny_model("CausalLM", tokenizer, family, **extra)
    elif format == "newline":
        model = tiny_model("TokenClassification", tokenizer)
    else:
        name, outputs = ("v_head", 1) if format == "skywork" else ("score", 2)
        model = WithHead(tiny_model("Model", tokenizer, "Qwen2"), name, torch.nn.Linear(32, outputs))
    return RewardModelVerifier(model, tokenizer, format, **settings)


@pytest.fixture(params=["newline", "math-shepherd", "rlhflow", "skywork", "qwen-prm"])
def verifier(request: pytest.FixtureRequest):
    return make(request.param)


@pytest.fixture
def forward_tokens(verifier):
    """Tokens that went through the first layer, padding included."""
    seen: list[int] = []
    verifier.weights.body.layers[0].register_forward_hook(lambda _, given, out: seen.append(given[0].shape[:2].numel()))
    return seen


def ask(verifier, *candidates: tuple[str, ...]):
    return asyncio.run(verifier.score(REQUEST, [Candidate(steps) for steps in candidates]))


def full(verifier, steps: tuple[str, ...]) -> list[float]:
    """One pass without padding, cache or batch."""
    text = verifier._encode(REQUEST, Candidate(steps))
    with torch.inference_mode():
        hidden = verifier.weights.body(torch.tensor([text.ids]), use_cache=False).last_hidden_state[0]
        return verifier.format.probabilities(verifier.weights.head(hidden[list(text.positions)])).tolist()


def test_step_by_step_computes_what_one_pass_does(verifier, forward_tokens) -> None:
    total = verifier.bound(REQUEST, Candidate(STEPS))
    for count in range(1, len(STEPS) + 1):
        (score,) = ask(verifier, STEPS[:count])
        assert score.prompt_tokens == verifier.bound(REQUEST, Candidate(STEPS[:count]))
        assert len(score.steps) == count
    assert sum(forward_tokens) <= 1.1 * total
    assert score.prompt_tokens == total
    assert score.prompt_tokens - score.cached_tokens == forward_tokens[-1] < total / 2
    assert list(score.steps) == pytest.approx(full(verifier, STEPS), abs=1e-3)


def test_later_text_changes_no_earlier_score(verifier) -> None:
    for count in (1, 3):
        other = (*STEPS[:count], "Nonsense - but + long enough to matter.\n", "No")
        fresh = make(verifier.format.name, cache_bytes=0)
        assert full(verifier, other)[:count] == pytest.approx(full(verifier, STEPS)[:count], abs=1e-5)
        assert fresh.score_many([(REQUEST, [Candidate(other)])])[0][0].steps[:count] == pytest.approx(
            full(verifier, STEPS)[:count], abs=1e-3
        )


def test_alone_and_in_a_padded_batch(verifier) -> None:
    candidates = [STEPS, STEPS[:1], ("Short.",), (*STEPS[:3], "Wrong turn.\n", "x" * 60), STEPS[:1]]
    wanted = [full(verifier, steps) for steps in candidates]
    for scores in (
        verifier.score_many([(REQUEST, [Candidate(steps) for steps in candidates])])[0],
        ask(verifier, *candidates),
        ask(verifier, *candidates),
    ):
        assert [list(score.steps) for score in scores] == [pytest.approx(steps, abs=1e-3) for steps in wanted]
    assert all(score.cached_tokens == score.prompt_tokens for score in scores)  # nothing is read a second time


def test_branches_share_their_prefix_and_stay_apart(verifier, forward_tokens) -> None:
    rng = random.Random(1)
    beams: list[tuple[str, ...]] = [()]
    for _ in range(4):
        grown = [(*beam, f"{rng.choice('abc')}{rng.randrange(99)} then\n") for beam in beams for _ in range(3)]
        scores = ask(verifier, *grown)
        for beam, score in zip(grown, scores, strict=True):
            assert list(score.steps) == pytest.approx(full(verifier, beam), abs=1e-3)
        beams = rng.sample(grown, 3)
    texts = {verifier._encode(REQUEST, Candidate(beam)).ids for beam in beams}
    assert verifier.cache.tokens < 3000
    assert all(verifier.cache.find(text, ())[0] == len(text) for text in texts)


def test_what_is_charged_was_read() -> None:
    verifier, read = make("newline"), []
    verifier.weights.body.layers[0].register_forward_hook(lambda _, given, out: read.append(given[0].shape))
    scores = ask(verifier, STEPS, STEPS, (*STEPS[:4], "The answer is 41"))
    assert sum(score.prompt_tokens - score.cached_tokens for score in scores) == sum(
        shape[:2].numel() for shape in read
    )
    assert scores[1].cached_tokens == scores[1].prompt_tokens
    assert scores[2].cached_tokens > 100


def test_bulk_scoring_reads_a_question_once_and_keeps_no_candidate() -> None:
    verifier = make("newline", batch_tokens=400)
    other = Request.of("How many days has a fortnight? Think about it.")
    work = [(REQUEST, [Candidate(STEPS), Candidate(("No.",))]), (other, [Candidate(("14\n", "So 14"))])]
    scores = verifier.score_many(work)
    assert [[len(score.steps) for score in group] for group in scores] == [[5, 1], [2]]
    assert list(scores[0][0].steps) == pytest.approx(full(verifier, STEPS), abs=1e-3)
    question = verifier.bound(REQUEST, Candidate(("N",))) - 1
    assert scores[0][1].cached_tokens == question == verifier.cache.tokens


def test_the_cache_stays_within_its_budget() -> None:
    verifier = make("newline", cache_bytes=300 * 2 * 2 * 2 * 8 * 4)
    assert verifier.cache.budget == 300
    for number in range(12):
        steps = (f"Way {number} begins.\n", "And goes on.\n")
        (score,) = ask(verifier, steps)
        assert list(score.steps) == pytest.approx(full(verifier, steps), abs=1e-3)
        assert 0 < verifier.cache.tokens <= 300
    (again,) = ask(verifier, ("Way 11 begins.\n", "And goes on.\n"))
    assert again.cached_tokens == again.prompt_tokens
    (dropped,) = ask(verifier, ("Way 0 begins.\n", "And goes on.\n"))
    assert dropped.cached_tokens < dropped.prompt_tokens - 10


def test_a_position_that_was_not_read_is_read_again() -> None:
    verifier = make("newline")
    ask(verifier, ("One step, all of it.\n", "End"))
    (score,) = ask(verifier, ("One step,", " all of it.\n", "End"))
    assert list(score.steps) == pytest.approx(full(verifier, ("One step,", " all of it.\n", "End")), abs=1e-3)


def test_a_prefix_tree_splits_and_forgets() -> None:
    cache = PrefixCache(6)

    def layers(*values: float):
        block = torch.tensor(values).reshape(1, -1, 1)
        return [(block, -block)]

    cache.store((1, 2, 3, 4), 0, layers(1, 2, 3, 4), {3: 0.4})
    cache.store((1, 2, 9), 2, layers(9), {2: 0.9})
    assert cache.tokens == 5
    assert cache.find((1, 2, 9, 7), (2,)) == (3, {2: 0.9})
    assert cache.layers((1, 2, 9, 7), 3)[0][1].flatten().tolist() == [-1, -2, -9]
    cache.store((1, 2, 9, 8, 7), 3, layers(8, 7), {})  # the branch 3, 4 is the one used longest ago
    assert cache.tokens == 5
    assert cache.find((1, 2, 3, 4), ()) == (2, {})
    cache.store((5, 6), 1, layers(6), {})  # what came before is not there
    assert cache.find((5, 6), ()) == (0, {})


def test_long_inputs_are_refused() -> None:
    verifier = make("newline")
    assert verifier.max_context == 512
    with pytest.raises(BadInput, match=r"takes 667 tokens, and reward model reads 512 at most"):
        ask(verifier, ("x" * 601,))
    short = make("newline", max_context=70)
    assert len(ask(short, ("1234",))[0].steps) == 1
    with pytest.raises(BadInput, match="takes 71 tokens"):
        short.score_many([(REQUEST, [Candidate(("12345",))])])


def test_nan_is_passed_on() -> None:
    verifier = make("newline")
    with torch.no_grad():
        verifier.weights.head.weight.fill_(math.nan)
    assert all(math.isnan(step) for step in ask(verifier, STEPS)[0].steps)


def test_a_failing_device_is_an_engine_error() -> None:
    verifier = make("newline")

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory\nand a long trace")

    verifier.weights.body.layers[0].register_forward_hook(fail)
    with pytest.raises(EngineError, match=r"failed on cpu: out of memory$"):
        ask(verifier, STEPS)


def test_the_event_loop_lives_and_cancelling_stops_between_batches() -> None:
    verifier, batches, cancelled = make("newline", batch_tokens=1, cache_bytes=0), [], threading.Event()

    def slow(*_: object) -> None:
        batches.append(1)
        if len(batches) == 2:
            assert cancelled.wait(PATIENCE)

    verifier.weights.body.layers[0].register_forward_hook(slow)

    async def run() -> None:
        task = asyncio.create_task(verifier.score(REQUEST, [Candidate((f"{n}\n",)) for n in range(40)]))
        await eventually(lambda: len(batches) == 2)  # the loop lives while the thread is busy
        task.cancel()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())  # the loop has closed: the thread has ended
    assert len(batches) < 10
