"""Tiny reward models with the right vocabulary and heads, made in a moment from random weights."""

from __future__ import annotations

from typing import Any

# What the published templates do, without the parts that no reward model is shown.
CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
LLAMA = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
)


def tiny_tokenizer(*extra: str, template: str | None = None, prefix_space: bool = False) -> Any:
    """A byte-level vocabulary of 256 bytes and the given tokens, which are never cut."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, lstrip=prefix_space, normalized=False) for token in extra])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = template
    return fast


def tiny_config(tokenizer: Any, family: str = "Llama", **settings: Any) -> Any:
    """Two layers of 32, four heads of which two hold keys; room for 512 tokens."""
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return getattr(transformers, f"{family}Config")(**(sizes | settings))


def tiny_model(head: str, tokenizer: Any, family: str = "Llama", **settings: Any) -> Any:
    """A transformers model with random weights, the same in every run.

    Args:
        head: `CausalLM`, `TokenClassification`, or `Model` for none.
    """
    import torch
    import transformers

    torch.manual_seed(7)
    torch.set_num_threads(1)
    if head == "TokenClassification":
        settings["num_labels"] = 1
    model = getattr(transformers, f"{family}{head if head == 'Model' else 'For' + head}")
    return model(tiny_config(tokenizer, family, **settings)).eval()


class WithHead:
    """A transformer and a head of its own under the name that the published model has."""

    name_or_path = "tiny"

    def __init__(self, body: Any, name: str, head: Any) -> None:
        self.base_model = body
        setattr(self, name, head)


def tiny_verifier(format: str) -> Any:
    """A tiny reward model of a published format, or of ours."""
    import torch

    from outthink.verifiers.reward_model import RewardModelVerifier

    vocabularies: dict[str, tuple[tuple[str, ...], str | None]] = {
        "math-shepherd": (("ки",), None),
        "rlhflow": (("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), LLAMA),
        "skywork": (("<|endoftext|>",), None),
        "qwen-prm": (("<|im_start|>", "<|im_end|>", "<extra_0>"), CHATML),
        "newline": ((), None),
    }
    extra, template = vocabularies[format]
    tokenizer = tiny_tokenizer(*extra, template=template, prefix_space=format == "math-shepherd")
    if format in ("math-shepherd", "rlhflow"):
        model = tiny_model("CausalLM", tokenizer)
    elif format == "newline":
        model = tiny_model("TokenClassification", tokenizer)
    elif format == "skywork":
        tokenizer.bos_token = "<|endoftext|>"
        model = WithHead(tiny_model("Model", tokenizer), "v_head", torch.nn.Linear(32, 1))
    else:
        body = tiny_model("Model", tokenizer)  # which seeds the head's weights, too
        layers = torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)
        model = WithHead(body, "score", torch.nn.Sequential(*layers))
    return RewardModelVerifier(model, tokenizer, format, name=f"tiny-{format}")
