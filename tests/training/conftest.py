"""A base model of a few thousand weights, made on the spot, and samples that can be told apart."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # controls and figures that only benchmarks use


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of three layers and a tokeniser of bytes."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Samples, problems and labels: a solution is right where its lines say `good`."""
    folder = tmp_path_factory.mktemp("recorded")
    draw = random.Random(0)
    rows, steps = [], []
    for problem in range(24):
        for index in range(1, 5):
            right = draw.random() < 0.5
            lines = ["good sum\n" if right else "bad guess\n" for _ in range(draw.randint(1, 3))]
            answer = "7" if right else str(draw.randint(0, 5))
            text = "".join(lines) + answer
            name = f"p{problem:02d}"
            about = {"problem_id": name, "sample_idx": index, "text": text, "correct": right}
            rows.append(
                {**about, "answer": answer, "n_tokens": len(text), "prompt_tokens": 12, "finish_reason": "stop"}
            )
            end = 0
            for place, line in enumerate(lines):
                end += len(line)
                hits = 8 * right
                steps.append(
                    {"problem_id": name, "sample_idx": index, "step_idx": place, "prefix_end": end, "n_correct": hits}
                )
    problems = [{"problem_id": f"p{i:02d}", "question": f"What is {i}?", "answer": "7"} for i in range(24)]
    files = tuple(folder / name for name in ("samples.parquet", "problems.parquet", "steps.parquet"))
    for path, table in zip(files, (rows, problems, steps), strict=True):
        parquet.write_table(pa.Table.from_pylist(table), path)
    return files
