"""A trained verifier as a folder.

Knows: `verifier.json` (what it is and how its scores are read), `training.json` (how it came about) and
the weights beside them: a PEFT adapter, or a whole transformers model. Does not know how it is served.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from outthink.core.errors import BadInput
from outthink.training.base import Shape, build, require
from outthink.verifiers.reward_model.checkpoint import quietly
from outthink.verifiers.reward_model.opening import FILE, Artefact, read_artefact

HISTORY = "training.json"
_CHECKPOINT = ".pt"


def write(folder: Path, model: Any, tokenizer: Any, artefact: Artefact, history: dict[str, Any]) -> int:
    """Write the weights (bf16), then both descriptions; returns the bytes of the folder's files.

    The id gets a digest of the weights: another training under the same name is another verifier.
    `verifier.json` comes last: a folder that has it is complete. A tokeniser lies beside whole models only.
    BadInput where the folder cannot be written.
    """
    torch, _ = require()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model = model.to("cpu").to(torch.bfloat16)
        with quietly():
            # PEFT would look for the base's vocabulary to see whether the embeddings have changed; they never do.
            model.save_pretrained(folder, **({"save_embedding_layers": False} if artefact.adapter else {}))
        if artefact.adapter:
            _without_machine(folder, artefact.base)
        else:
            tokenizer.save_pretrained(folder)
        described = asdict(artefact) | {"id": f"{artefact.id}@{_digest(folder)}"}
        for name, content in ((HISTORY, history), (FILE, described)):
            draft = folder / f".{name}.{os.getpid()}"
            draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(draft, folder / name)
        files = [path for path in folder.iterdir() if path.is_file() and path.suffix != _CHECKPOINT]
        return sum(path.stat().st_size for path in files)
    except OSError as error:
        raise BadInput("--out", str(folder), f"cannot be written ({error.strerror})", "check the folder") from None


def load(folder: Path, *, base: str | None = None) -> tuple[Any, Any, Artefact]:
    """The model (float32, on the CPU, adapter merged), its tokeniser and description, for bulk scoring.

    Args:
        base: where the base lies, if not where the description says.
    """
    torch, transformers = require()
    artefact = read_artefact(folder)
    if not artefact.adapter:
        with quietly():
            model = transformers.AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32)
            return model, transformers.AutoTokenizer.from_pretrained(folder), artefact
    import peft

    bare, tokenizer = build(Shape(base=base or artefact.base, layers=artefact.layers))
    with quietly():
        adapted = peft.PeftModel.from_pretrained(bare, str(folder)).float()
    return adapted.merge_and_unload(), tokenizer, artefact


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _without_machine(folder: Path, base: str) -> None:
    """PEFT notes the folder the base came from, and an empty model card; neither belongs here."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)
