"""Verifier folders and published checkpoints, saved and opened again."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402

from outthink.core.errors import BadInput  # noqa: E402
from outthink.core.request import Request  # noqa: E402
from outthink.core.sample import Candidate  # noqa: E402
from outthink.verifiers.reward_model import RewardModelVerifier, open_reward_model  # noqa: E402
from support.tiny_models import CHATML, LLAMA, WithHead, tiny_model, tiny_tokenizer  # noqa: E402

# peft asks transformers for a name that is about to go.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

REQUEST = Request.of("What is 2+2?")
CANDIDATE = Candidate(("Two and two\n", "is four"))


def scores(verifier: RewardModelVerifier) -> tuple[float, ...]:
    return verifier.score_many([(REQUEST, [CANDIDATE])])[0][0].steps


def save(folder: Path, model, tokenizer, **fields) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if fields:
        (folder / "verifier.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture
def adapter(tmp_path: Path):
    """A base, and beside it a verifier folder with a trained adapter and head; and its scores."""
    return make_adapter(tmp_path, 2)


def make_adapter(tmp_path: Path, layers: int) -> tuple[Path, list[float]]:
    """Of the base's first `layers` layers."""
    tokenizer = tiny_tokenizer()
    base = tiny_model("Model", tokenizer)
    save(tmp_path / "base", base, tokenizer)
    model = tiny_model("TokenClassification", tokenizer)
    model.model.load_state_dict(base.state_dict())
    model.model.layers = model.model.layers[:layers]
    plan = peft.LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["score"])
    trained = peft.get_peft_model(model, plan)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    folder = tmp_path / "verifier"
    trained.save_pretrained(folder)
    fields = {
        "format": "newline",
        "base": "../base",
        "adapter": True,
        "layers": None if layers == 2 else layers,
        "separator": "\n",
        "aggregation": "min",
        "kind": "process",
        "max_context": 100,
        "id": "tiny-prm-1",
        "parameters": 1,
        "temperature": 2.0,
    }
    (folder / "verifier.json").write_text(json.dumps(fields))
    ids = tokenizer.encode("What is 2+2?\n\nTwo and two\nis four", add_special_tokens=False)
    with torch.inference_mode():
        logits = trained.eval()(torch.tensor([ids])).logits[0, [25, 32], 0]
    return folder, (logits / 2).sigmoid().tolist()


def test_an_adapter_on_its_base(adapter) -> None:
    folder, wanted = adapter
    verifier = open_reward_model(folder, device="cpu")
    assert scores(verifier) == pytest.approx(wanted, abs=1e-4)
    assert (verifier.id, verifier.model, verifier.kind) == ("tiny-prm-1", "tiny-prm-1", "process")
    assert (verifier.separator, verifier.aggregation, verifier.max_context) == ("\n", "min", 100)
    assert verifier.parameters == 15553  # counted, whatever the file says; the adapter is merged
    assert open_reward_model(folder, device="cpu", aggregation="last").aggregation == "last"


def test_an_adapter_on_the_first_layers_of_its_base(tmp_path: Path) -> None:
    folder, wanted = make_adapter(tmp_path, 1)
    verifier = open_reward_model(folder, device="cpu")
    assert scores(verifier) == pytest.approx(wanted, abs=1e-4)
    assert verifier.parameters == 15553 - 7744
    assert verifier.weights.bytes_per_token == 1 * 2 * 2 * 8 * 4
    fields = json.loads((folder / "verifier.json").read_text()) | {"layers": 3}
    (folder / "verifier.json").write_text(json.dumps(fields))
    with pytest.raises(BadInput, match="layers: 3 is above the base's 2"):
        open_reward_model(folder, device="cpu")


def test_an_adapter_without_its_head(adapter) -> None:
    path = adapter[0] / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if "score" not in name}, path)
    with pytest.raises(BadInput, match="holds no head"):
        open_reward_model(adapter[0], device="cpu")


def test_the_embedded_base_must_be_given(adapter, tmp_path: Path) -> None:
    folder = adapter[0]
    fields = json.loads((folder / "verifier.json").read_text()) | {"base": "embedded"}
    (folder / "verifier.json").write_text(json.dumps(fields))
    with pytest.raises(BadInput, match="fetch it: outthink pull; from Python, give its file as embedded="):
        open_reward_model(folder, device="cpu")
    with pytest.raises(BadInput, match="is not there; fetch it: outthink pull"):
        open_reward_model(folder, device="cpu", embedded=tmp_path / "missing.gguf")


def test_a_whole_model(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("TokenClassification", tokenizer)
    wanted = scores(RewardModelVerifier(model, tokenizer, "newline"))
    folder = save(tmp_path / "orm", model, tokenizer, id="orm-1", kind="outcome")
    verifier = open_reward_model(folder, device="cpu")
    assert verifier.kind == "outcome"
    assert scores(verifier) == pytest.approx(wanted[-1:], abs=1e-5)
    with pytest.raises(BadInput, match="is not that of orm"):
        open_reward_model(folder, "skywork", device="cpu")


def published(folder: Path, format: str) -> RewardModelVerifier:
    """Save a checkpoint as its publisher does; returns the verifier that was saved."""
    names = {
        "math-shepherd": ("ки",),
        "rlhflow": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "qwen-prm": ("<|im_start|>", "<|im_end|>", "<extra_0>"),
    }.get(format, ())
    template = {"rlhflow": LLAMA, "qwen-prm": CHATML}.get(format)
    tokenizer = tiny_tokenizer(*names, template=template, prefix_space=format == "math-shepherd")
    if format in ("math-shepherd", "rlhflow"):
        model = tiny_model("CausalLM", tokenizer)
        save(folder, model, tokenizer)
        return RewardModelVerifier(model, tokenizer, format)
    body = tiny_model("Model", tokenizer, "Qwen2")
    if format == "skywork":
        head, prefix = torch.nn.Linear(32, 1), "v_head.summary."
    else:
        head = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))
        prefix = "score."
    save(folder, body, tokenizer)
    weights = {f"model.{name}": value for name, value in body.state_dict().items()}
    weights |= {prefix + name: value.clone() for name, value in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    architecture = {"skywork": "Qwen2ForPrmModel", "qwen-prm": "Qwen2ForProcessRewardModel"}[format]
    # Code that comes with a model is never run.
    config |= {"architectures": [architecture], "auto_map": {"AutoModel": f"evil.{architecture}"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    return RewardModelVerifier(WithHead(body, "v_head" if format == "skywork" else "score", head), tokenizer, format)


@pytest.mark.parametrize(
    ("format", "name"),
    [
        ("math-shepherd", "math-shepherd-mistral-7b-prm"),
        ("rlhflow", "Llama3.1-8B-PRM-Deepseek-Data"),
        ("skywork", "some-model"),
        ("qwen-prm", "another-model"),
    ],
)
def test_published_checkpoints_tell_their_format(tmp_path: Path, format: str, name: str) -> None:
    saved = published(tmp_path / name, format)
    verifier = open_reward_model(tmp_path / name, device="cpu")
    assert verifier.format.name == format
    assert scores(verifier) == pytest.approx(scores(saved), abs=1e-5)
    assert verifier.parameters == saved.parameters
    assert verifier.id.startswith(f"{name}@")
    assert verifier.id.endswith(f"/{format}")


def test_ids_tell_weights_apart(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("TokenClassification", tokenizer)
    first = RewardModelVerifier(model, tokenizer, "newline").id
    assert RewardModelVerifier(model, tokenizer, "newline").id == first
    with torch.no_grad():
        model.score.weight.mul_(1 + 1e-3)
    assert RewardModelVerifier(model, tokenizer, "newline").id != first


def test_models_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be loaded"):
        open_reward_model(tmp_path / "nothing", device="cpu")
    tokenizer = tiny_tokenizer()
    save(tmp_path / "plain", tiny_model("CausalLM", tokenizer), tokenizer)
    with pytest.raises(BadInput, match="does not tell its format; give one of newline"):
        open_reward_model(tmp_path / "plain", device="cpu")
    with pytest.raises(BadInput, match="has no token 'ки'"):
        open_reward_model(tmp_path / "plain", "math-shepherd", device="cpu")
    with pytest.raises(BadInput, match="holds no weights named 'v_head"):
        open_reward_model(tmp_path / "plain", "skywork", device="cpu")
    with pytest.raises(BadInput, match="holds no head for scores"):
        open_reward_model(tmp_path / "plain", "newline", device="cpu")
    with pytest.raises(BadInput, match="format: 'shepherd' is not known"):
        open_reward_model(tmp_path / "plain", "shepherd", device="cpu")


def test_without_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInput, match=r"pip install '\.\[transformers\]'"):
        open_reward_model(tmp_path)


def test_a_nan_in_the_head_reaches_the_score(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model("TokenClassification", tokenizer)
    with torch.no_grad():
        model.score.bias.fill_(math.nan)
    verifier = open_reward_model(save(tmp_path / "broken", model, tokenizer, id="broken"), device="cpu")
    assert all(math.isnan(step) for step in scores(verifier))
