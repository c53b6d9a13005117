"""Opens a reward model by path or name.

Knows: our own folders with their `verifier.json`, the published models, and how to tell them apart. Does not know how
scores are computed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from outthink.core.errors import BadInput, need_known
from outthink.core.plugins import need_extra
from outthink.verifiers.protocol import AGGREGATIONS, Aggregation
from outthink.verifiers.reward_model.checkpoint import expand_gguf, has_weights, keep_layers, load, quietly, tensors
from outthink.verifiers.reward_model.formats import FORMATS, Config, Format, Module, Newline, make_format
from outthink.verifiers.reward_model.scorer import Weights
from outthink.verifiers.reward_model.verifier import RewardModelVerifier

if TYPE_CHECKING:
    import torch

FILE = "verifier.json"
EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What a trained verifier says of itself.

    Args:
        format: name of its input format.
        base: `embedded`, a hub name, or the path of a folder or GGUF file relative to the folder; unused
            without an adapter.
        adapter: the folder holds a PEFT adapter, not a whole model.
        layers: how many of the base's layers the adapter was trained on, None for all.
        temperature: divides the logit.
        parameters: weights read for a token, as its trainer counted them; None if it did not.
    """

    id: str
    format: str = "newline"
    base: str = EMBEDDED
    adapter: bool = False
    layers: int | None = None
    separator: str = "\n"
    aggregation: Aggregation = "last"
    kind: Literal["process", "outcome"] = "process"
    max_context: int | None = None
    parameters: int | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, text in {"id": self.id.strip(), "base": self.base, "separator": self.separator}.items():
            if not text:
                raise BadInput(name, text, "is empty", "give a text")
        counts = {"layers": self.layers, "max_context": self.max_context, "parameters": self.parameters}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise BadInput(name, count, "is below 1", "give a count, or null")
        if not 0 < self.temperature < 1e6:
            raise BadInput("temperature", self.temperature, "is no temperature", "give a number above 0")


def read_artefact(folder: Path) -> Artefact:
    """Read a folder's `verifier.json`; fields it does not know are left alone. Raises BadInput."""
    from outthink.validation import Border, read_values

    path = folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput("verifier", str(path), f"cannot be read ({error})", "train it again or copy it anew") from error
    if isinstance(values, dict):
        values.setdefault("id", folder.resolve().name)
    return read_values(Artefact, values, Border(source=str(path)))


_QWEN_HEAD = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")
_SKYWORK_HEAD = ("v_head.summary.weight", "v_head.summary.bias")


def open_reward_model(
    path_or_name: str | Path,
    format: str | None = None,
    device: str | None = None,
    aggregation: Aggregation | None = None,
    *,
    embedded: Path | None = None,
    **settings: Any,
) -> RewardModelVerifier:
    """Load a verifier.

    Args:
        path_or_name: a folder that `outthink train prm` wrote, a model's folder, or its hub name.
        format: one of `FORMATS`; default: what the folder, its weights or its name say.
        device: default: a GPU if there is one.
        aggregation: default: the folder's, else the format's.
        embedded: the GGUF file that the base `embedded` stands for.
        settings: passed on to RewardModelVerifier.

    Raises BadInput where transformers is missing, nothing usable is there, the format is not to be
    told, or the vocabulary is not the format's.
    """
    need_extra("transformers", "verifier", "reward model")
    import torch

    if aggregation is not None:
        need_known("aggregation", aggregation, AGGREGATIONS)
    if format is not None:
        need_known("format", format, FORMATS)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    folder = Path(path_or_name)
    if (folder / FILE).is_file():
        return _own(folder, place, format, aggregation, embedded, settings)
    # Single precision on a CPU, where half is slow; elsewhere as it was published.
    dtype = torch.float32 if place.type == "cpu" else "auto"
    config = load("AutoConfig", path_or_name)
    name = format or _detect(str(path_or_name), config)
    tokenizer = load("AutoTokenizer", path_or_name)
    chosen = make_format(name, tokenizer)
    model = _published(path_or_name, chosen, dtype).to(place)
    label = folder.resolve().name if folder.is_dir() else str(path_or_name)
    return RewardModelVerifier(model, tokenizer, chosen, aggregation=aggregation, **({"name": label} | settings))


def _own(
    folder: Path,
    place: torch.device,
    format: str | None,
    aggregation: Aggregation | None,
    embedded: Path | None,
    settings: dict[str, Any],
) -> RewardModelVerifier:
    """A folder with `verifier.json`."""
    artefact = read_artefact(folder)
    if artefact.format not in FORMATS or (format is not None and format != artefact.format):
        raise BadInput("format", format or artefact.format, f"is not that of {folder.name}", "leave the format out")
    source = _base(folder, artefact, embedded) if artefact.adapter else folder
    tokenizer = load("AutoTokenizer", folder if (folder / "tokenizer.json").is_file() else source)
    chosen = (
        Newline(tokenizer, separator=artefact.separator, temperature=artefact.temperature)
        if artefact.format == "newline"
        else make_format(artefact.format, tokenizer)
    )
    model = (
        _adapted(folder, source, chosen, artefact.layers) if artefact.adapter else _published(source, chosen, "float32")
    )
    known: dict[str, Any] = {
        "name": artefact.id,
        "id": artefact.id,
        "kind": artefact.kind,
        "max_context": artefact.max_context,
        "aggregation": aggregation or artefact.aggregation,
    }
    return RewardModelVerifier(model.to(place), tokenizer, chosen, **(known | settings))


def _base(folder: Path, artefact: Artefact, embedded: Path | None) -> str | Path:
    """Where the weights are that an adapter was trained on."""
    if artefact.base == EMBEDDED:
        if embedded is None:
            remedy = "fetch it: outthink pull; from Python, give its file as embedded="
            raise BadInput("verifier", str(folder), "needs the embedded model", remedy)
        return expand_gguf(embedded)
    beside = folder / artefact.base
    if beside.is_file() and beside.suffix == ".gguf":
        return expand_gguf(beside)
    return beside if beside.is_dir() else artefact.base


def _adapted(folder: Path, source: str | Path, format: Format, layers: int | None) -> Module:
    """The base with the adapter merged into it, so that it costs nothing extra to read."""
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    if format.readout != "label":
        raise BadInput("format", format.name, "has no adapters", "merge the adapter into its base and save the whole")
    path = folder / "adapter_model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise BadInput("verifier", str(path), f"cannot be read ({error})", "train it again or copy it anew") from error
    if not any("score" in name or "classifier" in name for name in names):
        raise BadInput("verifier", str(path), "holds no head", "train it with modules_to_save=['score']")
    model = load("AutoModelForTokenClassification", source, num_labels=1, dtype=torch.float32)
    keep_layers(model, layers, field=f"{FILE}: layers")
    with quietly():
        return PeftModel.from_pretrained(model, str(folder)).float().merge_and_unload()


def _published(source: str | Path, format: Format, dtype: torch.dtype | str) -> Module:
    """A whole model with the head that the format reads."""
    import torch

    if format.readout == "tokens":
        return load("AutoModelForCausalLM", source, dtype=dtype)
    if format.readout == "label":
        if not any(has_weights(source, f"{name}.weight") for name in ("score", "classifier")):
            raise BadInput("verifier", str(source), "holds no head for scores", "give a model trained to score steps")
        return load("AutoModelForTokenClassification", source, num_labels=1, dtype=dtype)
    names = _QWEN_HEAD if format.readout == "classes" else _SKYWORK_HEAD
    weights = tensors(source, names)
    layers = []
    for weight, bias in zip(names[::2], names[1::2], strict=True):
        layer = torch.nn.Linear(weights[weight].shape[1], weights[weight].shape[0])
        layer.load_state_dict({"weight": weights[weight], "bias": weights[bias]})
        layers += [layer, torch.nn.ReLU()]
    body = load("AutoModel", source, dtype=dtype)
    return Weights(body, torch.nn.Sequential(*layers[:-1]).to(next(body.parameters()).dtype))


def _detect(name: str, config: Config) -> str:
    """The format that a checkpoint's configuration, weights or name tell."""
    architecture = " ".join(getattr(config, "architectures", None) or ())
    if "ProcessRewardModel" in architecture or has_weights(name, _QWEN_HEAD[2]):
        return "qwen-prm"
    if "PrmModel" in architecture or has_weights(name, _SKYWORK_HEAD[0]):
        return "skywork"
    if "TokenClassification" in architecture:
        return "newline"
    lowered = name.lower()
    if "shepherd" in lowered:
        return "math-shepherd"
    if "rlhflow" in lowered or ("prm" in lowered and lowered.rstrip("/").endswith("-data")):
        return "rlhflow"
    raise BadInput("verifier", name, "does not tell its format", f"give one of {', '.join(FORMATS)}")
