"""Where a verifier starts from: weights with one new output, and their tokeniser.

Knows: where the embedded model's GGUF is, and low-rank adapters; `checkpoint` loads weights, for training and
scoring alike. Does not know data, losses or the artefact.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.verifiers.reward_model.checkpoint import keep_layers, load, quietly

EMBEDDED = "embedded"
_EXTRA = "pip install 'outthink[train]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Which weights exist and which of them learn.

    Args:
        base: `embedded`, a folder or GGUF file, or a hub name.
        layers: keep the first so many layers (None: all); cheaper by active parameters.
        rank: of the low-rank adapter on every linear layer; None trains all weights.
        dropout: before the output, while training.
        tiny: a random model of two layers on the base's tokeniser, for smoke tests.
        seed: of the new output's weights (and of all weights where `tiny`).
    """

    base: str = EMBEDDED
    layers: int | None = None
    rank: int | None = None
    dropout: float = 0.0
    tiny: bool = False
    seed: int = 0


def require() -> tuple[Any, Any]:
    """torch and transformers; BadInput that names the extra where they cannot be imported."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BadInput("outthink train", error.name, f"cannot be imported ({error})", _EXTRA) from None
    return torch, transformers


def locate(base: str) -> str:
    """A folder, hub name or GGUF file: what `checkpoint.load` takes.

    Raises BadInput where the embedded model has not been pulled or a file is no GGUF.
    """
    if base == EMBEDDED:
        from outthink.engines.embedded.fetch import find_model

        found = find_model()
        if found is None:
            raise BadInput("--base", base, "is not here yet", "run `outthink pull` first")
        return str(found)
    path = Path(base)
    if path.is_file() and path.suffix != ".gguf":
        raise BadInput("--base", base, "is a file but no GGUF", "give a GGUF file or a model folder")
    return base


def tokenizer_of(base: str) -> Any:
    """The base's fast tokeniser."""
    require()
    return load("AutoTokenizer", locate(base), field="--base")


def build(shape: Shape) -> tuple[Any, Any]:
    """A token-classification model with one output a token (float32, on the CPU), and its tokeniser.

    Raises BadInput for a base that cannot be loaded, or more layers than it has.
    """
    torch, transformers = require()
    tokenizer = tokenizer_of(shape.base)
    torch.manual_seed(shape.seed)
    if shape.tiny:
        model = transformers.AutoModelForTokenClassification.from_config(_tiny(transformers, tokenizer))
        return model.float(), tokenizer
    model = load(
        "AutoModelForTokenClassification", locate(shape.base), field="--base", num_labels=1, dtype=torch.float32
    )
    model.dropout, model.config.classifier_dropout = torch.nn.Dropout(shape.dropout), shape.dropout
    torch.nn.init.normal_(model.score.weight, std=0.02 / model.config.hidden_size**0.5)
    torch.nn.init.zeros_(model.score.bias)
    keep_layers(model, shape.layers, field="--layers")
    if shape.rank is not None:
        model = low_rank(model, shape.rank)
    return model, tokenizer


def linear_names(model: Any) -> list[str]:
    """Last names of the linear layers that an adapter changes: all but the output."""
    torch, _ = require()
    found = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    return sorted(found - {"score", "classifier", "lm_head"})


def low_rank(model: Any, rank: int, alpha: int | None = None) -> Any:
    """The model with a PEFT adapter (LoRA) on every linear layer; the output learns too.

    Args:
        alpha: scale of the adapter times its rank, None for 2 x rank.

    Raises BadInput for a rank below 1 or where peft is missing.
    """
    try:
        import peft
    except ImportError as error:
        raise BadInput("--lora", rank, f"needs {error.name}", _EXTRA) from None
    if rank < 1:
        raise BadInput("--lora", rank, "is below 1", "give a rank such as 16, or --full")
    config = peft.LoraConfig(
        task_type="TOKEN_CLS",
        r=rank,
        lora_alpha=alpha or 2 * rank,
        lora_dropout=0.0,
        target_modules=linear_names(model),
        modules_to_save=["score"],
    )
    with quietly():
        return peft.get_peft_model(model, config)


def active_parameters(model: Any) -> int:
    """Weights read per token: all but the embedding table (one row is read), with adapters merged."""
    embedding = model.get_input_embeddings().weight.numel()
    whole = sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name and "original_" not in name)
    return int(whole - embedding)


def _tiny(transformers: Any, tokenizer: Any) -> Any:
    return transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        num_labels=1,
        classifier_dropout=0.0,
    )
