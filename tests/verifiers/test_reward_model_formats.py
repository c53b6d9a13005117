"""Every published format on a tiny model with its vocabulary and head, against a reference written by hand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from outthink.core.errors import BadInput  # noqa: E402
from outthink.core.request import Request  # noqa: E402
from outthink.core.sample import Candidate  # noqa: E402
from outthink.verifiers.reward_model import FORMATS, RewardModelVerifier  # noqa: E402
from outthink.verifiers.reward_model.formats import (  # noqa: E402
    Encoded,
    MathShepherd,
    Newline,
    QwenPRM,
    RLHFlow,
    Skywork,
)
from support.tiny_models import CHATML, LLAMA, WithHead, tiny_model, tiny_tokenizer  # noqa: E402

REQUEST = Request.of("What is 2+2?", system="Be brief.")
STEPS = ("Two - two.\n\n", "That + that\nmakes four.\n\n", "The answer is 4")
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def one_pass(body, ids: list[int]):
    """Hidden states of one unpadded pass without any cache."""
    with torch.no_grad():
        return body(torch.tensor([ids]), use_cache=False).last_hidden_state[0]


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def scores(verifier, steps=STEPS) -> tuple[float, ...]:
    return verifier.score_many([(REQUEST, [Candidate(steps)])])[0][0].steps


def test_math_shepherd() -> None:
    tokenizer = tiny_tokenizer("ки", prefix_space=True)
    model = tiny_model("CausalLM", tokenizer, "Mistral", sliding_window=None)
    text = "What is 2+2? Two - two. ки\nThat + that\nmakes four. ки\nThe answer is 4 ки"
    ids = ids_of(tokenizer, text)
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
    plus, minus, marker = (tokenizer.convert_tokens_to_ids(token) for token in ("+", "-", "ки"))
    wanted = [logits[at, [plus, minus]].softmax(0)[0].item() for at, token in enumerate(ids) if token == marker]
    assert len(wanted) == 3
    verifier = RewardModelVerifier(model, tokenizer, "math-shepherd")
    assert scores(verifier) == pytest.approx(wanted, abs=1e-5)
    assert (verifier.aggregation, verifier.kind, verifier.separator) == ("min", "process", "\n\n")


def test_math_shepherd_ignores_a_marker_that_the_policy_wrote() -> None:
    tokenizer = tiny_tokenizer("ки", prefix_space=True)
    verifier = RewardModelVerifier(tiny_model("CausalLM", tokenizer), tokenizer, "math-shepherd")
    assert len(scores(verifier, ("All right ки ки\n\n", "ки done"))) == 2


def test_rlhflow() -> None:
    names = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    tokenizer = tiny_tokenizer(*names, template=LLAMA)
    model = tiny_model("CausalLM", tokenizer)
    plus, minus = (tokenizer.convert_tokens_to_ids(token) for token in ("+", "-"))
    chat, wanted = [], []
    for number, step in enumerate(("What is 2+2? Two - two.", "That + that\nmakes four.", "The answer is 4")):
        chat += [{"role": "user", "content": step}, {"role": "assistant", "content": "+"}]
        ids = ids_of(tokenizer, tokenizer.apply_chat_template(chat, tokenize=False))
        assert ids[-2] == plus, number
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -3]
        wanted.append(logits[[plus, minus]].softmax(0)[0].item())
    assert scores(RewardModelVerifier(model, tokenizer, "rlhflow")) == pytest.approx(wanted, abs=1e-5)


def test_skywork() -> None:
    tokenizer = tiny_tokenizer("<|endoftext|>")
    tokenizer.bos_token = "<|endoftext|>"
    body = tiny_model("Model", tokenizer, "Qwen2")
    head = torch.nn.Linear(32, 1)
    ids, ends = ids_of(tokenizer, "<|endoftext|>What is 2+2?\n"), []
    for step in ("Two - two.", "That + that\nmakes four.", "The answer is 4"):
        ids += [*ids_of(tokenizer, step), tokenizer.convert_tokens_to_ids("Ċ")]
        ends.append(len(ids) - 1)
    with torch.no_grad():
        wanted = head(one_pass(body, ids))[ends, 0].sigmoid().tolist()
    verifier = RewardModelVerifier(WithHead(body, "v_head", head), tokenizer, "skywork")
    assert scores(verifier) == pytest.approx(wanted, abs=1e-5)


def test_qwen_prm() -> None:
    tokenizer = tiny_tokenizer("<|im_start|>", "<|im_end|>", "<extra_0>", template=CHATML)
    body = tiny_model("Model", tokenizer, "Qwen2")
    head = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
    reply = "Two - two.<extra_0>That + that\nmakes four.<extra_0>The answer is 4<extra_0>"
    text = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nWhat is 2+2?<|im_end|>\n"
        f"<|im_start|>assistant\n{reply}<|im_end|>\n"
    )
    ids = ids_of(tokenizer, text)
    marks = [at for at, token in enumerate(ids) if token == tokenizer.convert_tokens_to_ids("<extra_0>")]
    with torch.no_grad():
        wanted = head(one_pass(body, ids))[marks].softmax(-1)[:, 1].tolist()
    assert len(wanted) == 3
    verifier = RewardModelVerifier(WithHead(body, "score", head), tokenizer, "qwen-prm")
    assert scores(verifier) == pytest.approx(wanted, abs=1e-5)


def test_newline() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("TokenClassification", tokenizer)
    ids = ids_of(tokenizer, "What is 2+2?\n\n" + "".join(STEPS))  # bytes: pieces and the whole are the same
    ends = [13 + len("".join(STEPS[: count + 1])) for count in range(3)]
    assert Newline(tokenizer).encode("What is 2+2?", STEPS) == Encoded(tuple(ids), tuple(ends))
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, ends, 0]
    verifier = RewardModelVerifier(model, tokenizer, "newline")
    assert scores(verifier) == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)
    cooler = RewardModelVerifier(model, tokenizer, Newline(tokenizer, temperature=2.5))
    assert scores(cooler) == pytest.approx((logits / 2.5).sigmoid().tolist(), abs=1e-5)


def test_outcome_is_the_last_score_of_the_same_steps() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("TokenClassification", tokenizer)
    process = RewardModelVerifier(model, tokenizer, "newline")
    outcome = RewardModelVerifier(model, tokenizer, "newline", kind="outcome")
    whole = outcome.score_many([(REQUEST, [Candidate(("".join(STEPS),))])])[0][0]
    assert whole.steps == pytest.approx(scores(process)[-1:], abs=1e-6)


def test_parameters_are_the_weights_read_for_a_token() -> None:
    tokenizer = tiny_tokenizer()
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48 + 2 * 32
    labelled = RewardModelVerifier(tiny_model("TokenClassification", tokenizer), tokenizer, "newline")
    assert labelled.parameters == 2 * layer + 32 + 33
    marked = tiny_tokenizer("ки", prefix_space=True)
    tied = tiny_model("CausalLM", marked, tie_word_embeddings=True)
    assert RewardModelVerifier(tied, marked, "math-shepherd").parameters == 2 * layer + 32 + 2 * 32


def test_published_ids() -> None:
    class Mistral:  # its size and ids, without the half megabyte of its vocabulary
        unk_token_id, name_or_path = 0, "peiyi9979/math-shepherd-mistral-7b-prm"
        ids = {"ки": 12902, "+": 648, "-": 387}  # noqa: RUF012

        def __len__(self) -> int:
            return 32000

        def encode(self, text: str, **_: object) -> list[int]:
            return [28705, self.ids[text]]

        def decode(self, ids: list[int]) -> str:
            return next(text for text, result in self.ids.items() if [result] == ids)

    assert MathShepherd(Mistral()).outputs == (648, 387)
    Mistral.ids = {"ки": 12902, "+": 648, "-": 388}
    with pytest.raises(BadInput, match="has the id 388 for the token '-', expected 387"):
        MathShepherd(Mistral())


@pytest.mark.parametrize(("format", "token"), [(MathShepherd, "ки"), (QwenPRM, "<extra_0>")])
def test_a_vocabulary_without_the_step_token(format, token) -> None:
    with pytest.raises(BadInput, match=f"has no token '{token}'"):
        format(tiny_tokenizer(template=CHATML))


def test_chat_formats_need_a_template() -> None:
    for format in (RLHFlow, QwenPRM):
        with pytest.raises(BadInput, match="has no chat template"):
            format(tiny_tokenizer("<extra_0>"))


def test_a_head_that_is_not_there() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(BadInput, match="has no head that format skywork reads"):
        RewardModelVerifier(tiny_model("Model", tokenizer), tokenizer, Skywork(tokenizer))


@pytest.mark.parametrize("steps", [(), ("Two.\n", " \n")])
def test_steps_without_text(steps: tuple[str, ...]) -> None:
    tokenizer = tiny_tokenizer()
    verifier = RewardModelVerifier(tiny_model("TokenClassification", tokenizer), tokenizer, "newline")
    with pytest.raises(BadInput, match=r"holds no step|no text in step 2"):
        verifier.score_many([(REQUEST, [Candidate(steps)])])


def test_unknown_format() -> None:
    with pytest.raises(BadInput, match=FORMATS[0]):
        RewardModelVerifier(None, None, "nonsense")
