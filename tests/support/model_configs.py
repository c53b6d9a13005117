"""Facts of well-known models' config.json, as far as their sizes go."""

from __future__ import annotations

from typing import Any


def _config(
    family: str, width: int, layers: int, heads: int, kv: int, inner: int, words: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": inner,
        "vocab_size": words,
        "torch_dtype": "bfloat16",
        **more,
    }


LLAMA_3_8B = _config("llama", 4096, 32, 32, 8, 14336, 128256, max_position_embeddings=8192)
LLAMA_3_70B = _config("llama", 8192, 80, 64, 8, 28672, 128256, max_position_embeddings=8192)
MISTRAL_7B = _config("mistral", 4096, 32, 32, 8, 14336, 32000, sliding_window=4096)
GEMMA_2_9B = _config("gemma2", 3584, 42, 16, 8, 14336, 256000, head_dim=256, sliding_window=4096)
GEMMA_3_27B = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
    "text_config": _config("gemma3_text", 5376, 62, 32, 16, 21504, 262208, head_dim=128, sliding_window=1024),
}
QWEN_2_5_HALF_B = _config(
    "qwen2",
    896,
    24,
    14,
    2,
    4864,
    151936,
    tie_word_embeddings=True,
    sliding_window=32768,
    max_window_layers=21,
    use_sliding_window=False,
)
MIXTRAL_8X7B = _config(
    "mixtral", 4096, 32, 32, 8, 14336, 32000, sliding_window=None, num_local_experts=8, num_experts_per_tok=2
)
QWEN_3_30B = _config(
    "qwen3_moe",
    2048,
    48,
    32,
    4,
    6144,
    151936,
    head_dim=128,
    moe_intermediate_size=768,
    num_experts=128,
    num_experts_per_tok=8,
    decoder_sparse_step=1,
    mlp_only_layers=[],
    tie_word_embeddings=False,
)
DEEPSEEK_V3 = _config(
    "deepseek_v3",
    7168,
    61,
    128,
    128,
    18432,
    129280,
    moe_intermediate_size=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    first_k_dense_replace=3,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
)
GPT_OSS_20B = _config(
    "gpt_oss",
    2880,
    24,
    64,
    8,
    2880,
    201088,
    head_dim=64,
    num_local_experts=32,
    num_experts_per_tok=4,
    sliding_window=128,
    attention_bias=True,
    layer_types=["sliding_attention", "full_attention"] * 12,
    quantization_config={"quant_method": "mxfp4"},
)
