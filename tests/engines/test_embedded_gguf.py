"""The header reader: exact on real files, one clear error for everything else."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from embedded_files import F32, KEYS, MODEL, TENSORS, UNKNOWN_TYPE, Tensor, gguf, pair, string
from hypothesis import given, settings
from hypothesis import strategies as st

from outthink.core.errors import BadInput
from outthink.engines.embedded import GGUFInfo, read_gguf


def written(folder: Path, content: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def refused(folder: Path, content: bytes) -> str:
    path = written(folder, content)
    with pytest.raises(BadInput) as caught:
        read_gguf(path)
    message = str(caught.value)
    assert caught.value.value == str(path)
    assert caught.value.remedy
    assert "\n" not in message
    return message


def test_header_of_a_small_file(tmp_path: Path) -> None:
    content = gguf({"tokenizer.ggml.tokens": ["a", "bc", "d" * 100_000]})
    info = read_gguf(written(tmp_path, content))
    assert info.context == 512
    assert info.parameters == 32 * 100 + 32 * 32


def info_of(folder: Path, tensors: list[Tensor], **keys: int | list[str]) -> GGUFInfo:
    return read_gguf(written(folder, gguf({f"llama.{key}": value for key, value in keys.items()}, tensors)))


EMBEDDING: Tensor = ("token_embd.weight", (8, 50), F32)
LAYER: Tensor = ("blk.0.attn_q.weight", (8, 8), F32)


def test_an_input_embedding_counts_only_where_it_is_the_head_too(tmp_path: Path) -> None:
    tied = info_of(tmp_path, [EMBEDDING, LAYER])
    apart = info_of(tmp_path, [EMBEDDING, LAYER, ("output_norm.weight", (8,), F32), ("output.weight", (8, 50), F32)])
    assert (tied.parameters, tied.elements) == (8 * 50 + 8 * 8, 8 * 50 + 8 * 8)
    assert (apart.parameters, apart.elements) == (8 * 50 + 8 * 8 + 8, 2 * 8 * 50 + 8 * 8 + 8)


def test_the_smaller_coder_counts_as_published(tmp_path: Path) -> None:
    # Its table of tensors in two rows: the sum of all is 630,167,424.
    embedding, head = (
        ("token_embd.weight", (896, 151_936), UNKNOWN_TYPE),
        ("output.weight", (896, 151_936), UNKNOWN_TYPE),
    )
    rest = ("blk.0.rest.weight", (630_167_424 - 2 * 896 * 151_936,), UNKNOWN_TYPE)
    info = info_of(tmp_path, [embedding, rest, head])
    assert (info.elements, info.parameters) == (630_167_424, 494_032_768)
    assert info.size is None, "a type that is not known here"


@pytest.mark.parametrize("together", [True, False])
def test_experts_that_a_token_passes_through_count(tmp_path: Path, together: bool) -> None:
    names = ("gate", "up", "down")
    if together:
        experts: list[Tensor] = [(f"blk.0.ffn_{name}_exps.weight", (8, 4, 16), F32) for name in names]
    else:
        experts = [(f"blk.0.ffn_{name}.{number}.weight", (8, 4), F32) for name in names for number in range(16)]
    shared: Tensor = ("blk.0.ffn_up_shexp.weight", (8, 4), F32)
    router: Tensor = ("blk.0.ffn_gate_inp.weight", (8, 16), F32)
    info = info_of(tmp_path, [EMBEDDING, *experts, shared, router], expert_count=16, expert_used_count=2)
    assert info.parameters == 8 * 50 + 3 * 8 * 4 * 2 + 8 * 4 + 8 * 16
    assert info.elements == 8 * 50 + 3 * 8 * 4 * 16 + 8 * 4 + 8 * 16
    assert (info.size, info.expert_size) == (4 * info.elements, 4 * 3 * 8 * 4 * 16)
    unsaid = info_of(tmp_path, [EMBEDDING, *experts], expert_count=16)
    assert unsaid.parameters == unsaid.elements, "what is not said is not left out"


def test_sizes_of_layers_are_kept_by_their_keys(tmp_path: Path) -> None:
    by_layer = {"attention.head_count": 4, "attention.head_count_kv": ["2", "1"]}  # an array: each layer its own
    info = info_of(tmp_path, [EMBEDDING], block_count=3, feed_forward_length=32, **by_layer)
    assert info.architecture == "llama"
    assert info.sizes == {
        "context_length": 512,
        "block_count": 3,
        "attention.head_count": 4,
        "attention.head_count_kv": None,
    }


@pytest.mark.skipif(MODEL is None, reason="needs `outthink pull`")
def test_parameters_of_the_embedded_model() -> None:
    assert MODEL is not None
    info = read_gguf(MODEL)
    assert info.parameters == info.elements == 134_515_008
    assert (info.sizes["block_count"], info.sizes["attention.head_count_kv"]) == (30, 3)
    assert info.context == 8192


def test_version_two_file(tmp_path: Path) -> None:
    assert read_gguf(written(tmp_path, gguf(version=2))).context == 512


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "none.gguf", "does not exist"), (tmp_path, "cannot be read")):
        with pytest.raises(BadInput, match=problem):
            read_gguf(path)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04" + bytes(100)])
def test_not_a_gguf(tmp_path: Path, content: bytes) -> None:
    assert "is not a GGUF file" in refused(tmp_path, content)


def test_cut_off_anywhere(tmp_path: Path) -> None:
    content = gguf()
    for length in range(4, len(content), 97):
        assert "is cut off" in refused(tmp_path, content[:length])
    assert "is cut off" in refused(tmp_path, content[:-1])


def test_foreign_version_and_byte_order(tmp_path: Path) -> None:
    assert "GGUF version 1," in refused(tmp_path, gguf(version=1))
    assert "big-endian" in refused(tmp_path, b"GGUF" + struct.pack(">I", 3) + bytes(100))


@pytest.mark.parametrize("kind", ["adapter", "mmproj"])
def test_no_language_model(tmp_path: Path, kind: str) -> None:
    assert "holds no language model" in refused(tmp_path, gguf({"general.type": kind}))
    assert "holds no language model" in refused(tmp_path, gguf({"llama.context_length": 0}))


def test_part_of_a_model(tmp_path: Path) -> None:
    assert "one of 3 parts" in refused(tmp_path, gguf({"split.count": 3}))


HUGE = 1 << 62


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack("<QQ", HUGE, 0),  # tensors
        struct.pack("<QQ", 0, HUGE),  # keys
        struct.pack("<QQ", 0, 1) + struct.pack("<Q", HUGE),  # length of a key
        struct.pack("<QQ", 0, 1) + string("k") + struct.pack("<IQ", 8, HUGE),  # length of a string
        struct.pack("<QQ", 0, 1) + string("k") + struct.pack("<IIQ", 9, 4, HUGE),  # an array of numbers
        struct.pack("<QQ", 0, 1) + string("k") + struct.pack("<IIQ", 9, 8, HUGE),  # an array of strings
        struct.pack("<QQ", 0, 1) + string("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000,  # nesting
        struct.pack("<QQ", 0, 1) + string("k") + struct.pack("<I", 77),  # a type of metadata
        struct.pack("<QQ", 1, 0) + string("t") + struct.pack("<I", 1 << 31),  # dimensions
    ],
)
def test_hostile_sizes_end_at_once(tmp_path: Path, tail: bytes) -> None:
    message = refused(tmp_path, b"GGUF" + struct.pack("<I", 3) + tail + bytes(64))
    assert "is cut off" in message or "damaged" in message


def test_weights_beyond_the_end(tmp_path: Path) -> None:
    keys = b"".join(pair(key, value) for key, value in KEYS.items())
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(KEYS)) + keys
    tensor = string("t") + struct.pack("<IQIQ", 1, 4, 0, HUGE)
    assert "is cut off" in refused(tmp_path, head + tensor + bytes(100))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(gguf()) - 1), st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    content = bytearray(gguf(tensors=TENSORS))
    content[at] = value
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    path.write_bytes(content)
    with contextlib.suppress(BadInput):
        read_gguf(path)
