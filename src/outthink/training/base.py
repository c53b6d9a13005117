"""Where a verifier starts from, weights with one new output and their tokeniser, and what it is stored as: a folder.

Knows: where the embedded model's GGUF is, low-rank adapters, a full fine-tune as a low-rank difference to its base, and
the files of the folder (`verifier.json`: what it is and how its scores are read; `training.json`: how it came about;
beside them a PEFT adapter or a whole model). Does not know data, losses, or how a verifier is served; `checkpoint`
loads weights, for training and scoring alike.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.core.paths import write_file
from outthink.core.plugins import install_hint
from outthink.evaluation.sample_file import JsonObject
from outthink.verifiers.reward_model.checkpoint import keep_layers, load, quietly
from outthink.verifiers.reward_model.opening import EMBEDDED, FILE, Artefact

Module = Any
"""A module of torch or transformers: without the `train` extra nothing has their types."""
Model = Any
Tokenizer = Any
Tensor = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShape:
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


def require() -> tuple[Module, Module]:
    """torch and transformers; BadInput that names the extra where they cannot be imported."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BadInput("module", error.name, f"cannot be imported ({error})", install_hint("train")) from None
    return torch, transformers


def locate(base: str) -> str:
    """A folder, hub name or GGUF file: what `checkpoint.load` takes.

    Raises BadInput where the embedded model has not been pulled or a file is no GGUF.
    """
    if base == EMBEDDED:
        from outthink.engines.embedded.fetch import find_model

        path = find_model()
        if path is None:
            raise BadInput("--base", base, "is not here yet", "run `outthink pull` first")
        return str(path)
    if Path(base).is_file() and Path(base).suffix != ".gguf":
        raise BadInput("--base", base, "is a file but no GGUF", "give a GGUF file or a model folder")
    return base


def tokenizer_of(base: str) -> Tokenizer:
    """The base's fast tokeniser."""
    require()
    return load("AutoTokenizer", locate(base), field="--base")


def build(shape: BaseShape) -> tuple[Model, Tokenizer]:
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
        model = _low_rank(model, shape.rank)
    return model, tokenizer


def _linear_names(model: Model) -> list[str]:
    """Last names of the linear layers that an adapter changes: all but the output."""
    torch, _ = require()
    names = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    return sorted(names - {"score", "classifier", "lm_head"})


def _low_rank(model: Model, rank: int, alpha: int | None = None) -> Model:
    """The model with a PEFT adapter (LoRA) on every linear layer; the output learns too.

    Args:
        alpha: scale of the adapter times its rank, None for 2 x rank.

    Raises BadInput for a rank below 1 or where peft is missing.
    """
    try:
        import peft
    except ImportError as error:
        raise BadInput("--lora", rank, f"needs {error.name}", install_hint("train")) from None
    if rank < 1:
        raise BadInput("--lora", rank, "is below 1", "give a rank such as 16, or --full")
    config = peft.LoraConfig(
        task_type="TOKEN_CLS",
        r=rank,
        lora_alpha=alpha or 2 * rank,
        lora_dropout=0.0,
        target_modules=_linear_names(model),
        modules_to_save=["score"],
    )
    with quietly():
        return peft.get_peft_model(model, config)


def active_parameters(model: Model) -> int:
    """Weights read per token: all but the embedding table (one row is read), with adapters merged."""
    embedding = model.get_input_embeddings().weight.numel()
    # PEFT keeps an untouched copy of the output (`original_module`), which would count twice.
    weights = sum(p.numel() for name, p in model.named_parameters() if "lora_" not in name and "original_" not in name)
    return int(weights - embedding)


def _tiny(transformers: Module, tokenizer: Tokenizer) -> Module:
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


def compress(model: Model, shape: BaseShape, rank: int) -> tuple[Model, float]:
    """A base with an adapter of this rank that comes nearest to a trained model, and the share it keeps.

    A singular value decomposition of what each linear layer has learnt; the share is that of the squared differences of
    all of them. What embeddings and norms have learnt is dropped; the output is kept whole. Whether the difference is
    enough is measured afterwards, like any verifier.

    Args:
        model: all of whose weights were trained from `shape`.
    """
    torch, _ = require()
    base, _ = build(replace(shape, rank=None))
    trained = dict(model.cpu().named_modules())
    # Read before the adapter is set in: PEFT changes this very model, and its layers then have other names.
    before = {name: part.weight.detach().clone() for name, part in base.named_modules() if hasattr(part, "weight")}
    # PEFT scales by alpha / rank: 1 here, so that the product of the factors is the difference itself.
    adapted = _low_rank(base, rank, alpha=rank)
    kept = total = 0.0
    with torch.no_grad():
        for name, part in adapted.base_model.model.named_modules():
            if not hasattr(part, "lora_A"):
                continue
            u, s, v = torch.linalg.svd(trained[name].weight.detach().float() - before[name], full_matrices=False)
            size = min(rank, len(s))
            root = s[:size].sqrt()
            down, up = part.lora_A["default"].weight, part.lora_B["default"].weight
            down.zero_()
            up.zero_()
            down[:size] = root[:, None] * v[:size]
            up[:, :size] = u[:, :size] * root
            kept += float((s[:size] ** 2).sum())
            total += float((s**2).sum())
        head = adapted.base_model.model.score.modules_to_save["default"]
        head.weight.copy_(model.score.weight)
        head.bias.copy_(model.score.bias)
    return adapted, kept / total if total else 1.0


HISTORY = "training.json"
_CHECKPOINT = ".pt"


def write_verifier(folder: Path, model: Model, tokenizer: Tokenizer, artefact: Artefact, history: JsonObject) -> int:
    """Write the weights (bf16), then both descriptions; returns the bytes of the folder's files.

    The id gets a digest of the weights: another training under the same name is another verifier.
    `verifier.json` comes last: a folder that has it is complete. A tokeniser lies beside whole models only.
    BadInput where the folder cannot be written.
    """
    torch, _ = require()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model = model.to("cpu").to(torch.bfloat16)  # half the bytes; bases are published in it too
        with quietly():
            # PEFT would look for the base's vocabulary to see whether the embeddings have changed; they never do.
            model.save_pretrained(folder, **({"save_embedding_layers": False} if artefact.adapter else {}))
        if artefact.adapter:
            _without_machine(folder, artefact.base)
        else:
            tokenizer.save_pretrained(folder)
        # Scores are kept and resumed by the id: without the digest a verifier trained anew was served the old ones.
        described = asdict(artefact) | {"id": f"{artefact.id}@{_digest(folder)}"}
        for name, content in ((HISTORY, history), (FILE, described)):
            write_file(folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        # The run's checkpoint still lies there, and is no part of the verifier.
        files = [path for path in folder.iterdir() if path.is_file() and path.suffix != _CHECKPOINT]
        return sum(path.stat().st_size for path in files)
    except OSError as error:
        raise BadInput("--out", str(folder), f"cannot be written ({error.strerror})", "check the folder") from None


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):  # folders list their files in any order
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _without_machine(folder: Path, base: str) -> None:
    """PEFT notes the folder the base came from, and an empty model card; neither belongs here."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)
