"""Bodies of OpenAI-compatible servers: JSON in and out, and the one table of what their request fields mean.

Knows: orjson where it is installed; which fields cap a completion, multiply it, or bring in what a request does not
show, by endpoint and with the source of each row; how leniently servers read names and numbers. Does not know which
field a server accepts, nor what a key may use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from outthink.http.events import Json

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

JsonDict = dict[str, Any]
"""A decoded JSON object: what a server or client has put into it is not known before it is looked at."""

decode: Callable[[bytes], Any] = json.loads if orjson is None else orjson.loads
"""Raises ValueError; orjson also refuses invalid UTF-8, and reads a chat five times as fast."""


def encode(value: object) -> bytes:
    """A value as JSON."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # numbers beyond 64 bits, lone surrogates
            pass
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


CHAT_LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
"""The old name and the new one; a server that knows one may refuse the other."""

Endpoint = Literal["chat", "completions", "responses", "embeddings"]
ENDPOINTS: tuple[Endpoint, ...] = ("chat", "completions", "responses", "embeddings")
Kind = Literal[
    "length",  # caps a completion
    "thinking",  # caps its thinking, which some servers grant beside the cap
    "floor",  # the least that is generated
    "choices",  # completions of one prompt
    "beams",  # completions that are followed for each of them
    "holder",  # an object of such fields
    "input",  # what the model reads
    "tools",
    "hidden",  # brings in, or sets going, what the request does not show
    "tier",  # changes the price
    "fixed",  # has one spelling alone
    "plain",  # changes neither count nor price: numbers, texts, and flat lists of them
    "free",  # the same, of any shape, in which nothing but the id of a token names a number
    "named",  # the same, in which clients choose most names
    "schema",  # the same, in which numbers stand under the words of JSON Schema
    "labels",  # for the client's own records, whatever they say
]


class FieldRow(NamedTuple):
    """Fields of one kind, on some endpoints (`*`: on all), and whose documentation says so."""

    kind: Kind
    source: str
    endpoints: str
    names: str


TABLE = (
    FieldRow("length", "OpenAI, chat and completions", "*", "max_tokens max_completion_tokens"),
    FieldRow("length", "OpenAI, responses and realtime; Gemini", "*", "max_output_tokens max_response_output_tokens"),
    FieldRow("length", "llama.cpp server README", "*", "n_predict"),
    FieldRow("length", "Ollama Modelfile parameters", "*", "num_predict"),
    FieldRow("length", "transformers GenerationConfig; TGI and SGLang /generate", "*", "max_new_tokens max_length"),
    FieldRow("length", "Anthropic; Bedrock Llama and Titan", "*", "max_tokens_to_sample max_gen_len max_token_count"),
    FieldRow("length", "TensorRT-LLM Triton backend", "*", "request_output_len output_len max_output_len"),
    FieldRow("length", "NeMo, Aleph Alpha, Replicate", "*", "tokens_to_generate maximum_tokens max_length_tokens"),
    FieldRow("thinking", "vLLM, Qwen, Anthropic", "*", "thinking_token_budget thinking_budget budget_tokens"),
    FieldRow("thinking", "llama.cpp, NIM", "*", "thinking_budget_tokens reasoning_budget reasoning_max_tokens"),
    FieldRow("floor", "vLLM, Mistral, transformers", "*", "min_tokens min_new_tokens min_length"),
    FieldRow("choices", "OpenAI; llama.cpp; transformers", "*", "n best_of n_cmpl num_return_sequences"),
    FieldRow("choices", "Cohere, Gemini, AI21", "*", "num_generations candidate_count num_results"),
    FieldRow("beams", "transformers, TensorRT-LLM, CTranslate2", "*", "num_beams beam_width beam_size"),
    FieldRow("holder", "Ollama; Gemini and transformers; SGLang, TGI", "*", "options generation_config parameters"),
    FieldRow("holder", "OpenAI clients, SGLang", "*", "extra_body sampling_params sampling_parameters custom_params"),
    FieldRow("holder", "OpenAI responses, OpenRouter; Anthropic", "*", "reasoning thinking thinking_config"),
    FieldRow("holder", "OpenAI; vLLM, llama.cpp, SGLang", "*", "stream_options chat_template_kwargs vllm_xargs"),
    FieldRow("input", "OpenAI", "chat embeddings", "messages"),
    FieldRow("input", "OpenAI; TGI and Text Embeddings Inference", "completions", "prompt suffix prompts inputs"),
    FieldRow("input", "OpenAI", "responses", "input instructions"),
    FieldRow("input", "OpenAI", "embeddings", "input"),
    FieldRow("tools", "OpenAI", "chat responses", "tools"),
    FieldRow("hidden", "OpenAI, responses", "*", "previous_response_id conversation background context_management"),
    FieldRow("hidden", "OpenAI: a stored prompt", "chat responses embeddings", "prompt prompt_id"),
    FieldRow("hidden", "OpenAI, responses: a mode that may sample more", "*", "reasoning.mode"),
    FieldRow("hidden", "vendors: a picture beside the messages", "chat completions embeddings", "image video file"),
    FieldRow("hidden", "OpenAI, chat: paid for beside the text", "*", "prediction modalities audio"),
    FieldRow("hidden", "OpenAI, xAI, Qwen, Perplexity: search", "*", "web_search_options search_parameters"),
    FieldRow("hidden", "Qwen, Z.ai, Azure, Cohere", "*", "enable_search web_search data_sources connectors"),
    FieldRow("hidden", "OpenAI assistants, Anthropic", "*", "file_ids attachments thread_id assistant_id mcp_servers"),
    FieldRow("hidden", "OpenRouter, LiteLLM: other models and tools", "*", "plugins models fallbacks preset"),
    FieldRow("hidden", "Gemini, SGLang: an earlier context", "*", "cached_content session_params conversation_id"),
    FieldRow("hidden", "vLLM: templates, costs of pictures", "*", "chat_template template mm_processor_kwargs"),
    FieldRow("hidden", "vLLM, SGLang, Ollama", "*", "prompt_embeds input_embeds images image_data audio_data"),
    FieldRow(
        "tier", "OpenAI; Anthropic, Bedrock, OpenRouter", "*", "service_tier speed inference_geo performance_config"
    ),
    FieldRow("tier", "OpenRouter: who serves it, at which price", "*", "provider route"),
    FieldRow("fixed", "OpenAI", "*", "model stream"),
    FieldRow("plain", "OpenAI", "*", "user store seed stop temperature top_p logprobs top_logprobs echo"),
    FieldRow("plain", "OpenAI", "*", "presence_penalty frequency_penalty parallel_tool_calls reasoning_effort"),
    FieldRow("plain", "OpenAI", "*", "safety_identifier prompt_cache_key prompt_cache_retention include truncation"),
    FieldRow("plain", "OpenAI", "*", "max_tool_calls dimensions encoding_format include_usage verbosity effort"),
    FieldRow("labels", "OpenAI", "*", "metadata"),
    FieldRow("schema", "OpenAI", "*", "response_format functions text"),
    FieldRow("free", "OpenAI", "*", "logit_bias tool_choice function_call"),
    FieldRow("free", "OpenAI", "*", "moderation prompt_cache_options background_options summary include_obfuscation"),
    FieldRow("plain", "vLLM", "*", "continuous_usage_stats length_penalty repetition_penalty top_k min_p"),
    FieldRow("plain", "vLLM", "*", "stop_token_ids truncate_prompt_tokens prompt_logprobs logprob_token_ids"),
    FieldRow("plain", "vLLM", "*", "allowed_token_ids bad_words priority request_id session_id cache_salt"),
    FieldRow("schema", "vLLM", "*", "guided_json guided_choice guided_regex guided_grammar structured_outputs"),
    FieldRow("named", "vLLM", "*", "documents"),
    FieldRow("plain", "SGLang", "*", "regex ebnf stop_regex rid extra_key lora_path routed_dp_rank sampling_seed"),
    FieldRow("plain", "llama.cpp", "*", "n_probs min_keep n_keep n_discard n_indent t_max_predict_ms id_slot"),
    FieldRow("plain", "llama.cpp", "*", "typical_p top_n_sigma xtc_probability xtc_threshold dynatemp_range samplers"),
    FieldRow("plain", "llama.cpp", "*", "dynatemp_exponent repeat_last_n repeat_penalty dry_multiplier dry_base"),
    FieldRow("plain", "llama.cpp", "*", "dry_allowed_length dry_penalty_last_n dry_sequence_breakers mirostat"),
    FieldRow("plain", "llama.cpp", "*", "mirostat_tau mirostat_eta adaptive_target adaptive_decay n_cache_reuse"),
    FieldRow("schema", "llama.cpp", "*", "json_schema grammar lora"),
    FieldRow("free", "llama.cpp", "*", "response_fields"),
    FieldRow("plain", "Ollama", "*", "num_ctx num_keep num_batch num_gpu main_gpu num_thread keep_alive"),
    FieldRow(
        "plain", "TGI, transformers, Mistral", "*", "truncate no_repeat_ngram_size penalty_alpha random_seed top_a"
    ),
)


def normalised(name: str) -> str:
    """A name as lenient servers compare it: without regard to capitals, underscores and hyphens."""
    return name.replace("_", "").replace("-", "").casefold()


_KINDS: dict[str, dict[str, Kind]] = {
    endpoint: {
        spelled: row.kind
        for row in TABLE
        if row.endpoints == "*" or endpoint in row.endpoints.split()
        for name in row.names.split()
        for spelled in (name, normalised(name))
    }
    for endpoint in ENDPOINTS
}


_MULTIPLE: tuple[Kind, ...] = ("choices", "beams", "holder")
_SINGLE = {
    endpoint: frozenset(name for name, kind in kinds.items() if kind not in _MULTIPLE)
    for endpoint, kinds in _KINDS.items()
}
"""Names that leave a request at one completion of each prompt."""


def names_of(kind: Kind) -> tuple[str, ...]:
    """Every name of a kind as it is documented."""
    return tuple(name for row in TABLE if row.kind == kind for name in row.names.split())


@lru_cache(64)
def endpoint_of(path: str) -> Endpoint:
    """The endpoint of a path; what is not known is read as a chat."""
    if path.endswith("/chat/completions"):
        return "chat"
    return next((endpoint for endpoint in ENDPOINTS if path.endswith(endpoint)), "chat")


def kind_of(endpoint: Endpoint, name: str) -> Kind | None:
    """What a field of a request does, None where nobody has told."""
    kinds = _KINDS[endpoint]
    return kinds.get(name) or kinds.get(normalised(name))


def length_field(path: str) -> str | None:
    """The field that caps a completion on every server of an endpoint; None where nothing is generated."""
    return {"responses": "max_output_tokens", "embeddings": None}.get(endpoint_of(path), CHAT_LENGTH_FIELDS[0])


def with_length_name(content: bytes, name: str) -> bytes:
    """A chat's body with its length under one of the two names; as it was where it has none."""
    body = decode(content)
    told = [body.pop(each) for each in CHAT_LENGTH_FIELDS if each in body]
    return encode({**body, name: told[0]}) if told else content


_WHOLE = re.compile(r"\+?(\d{1,15})(?:\.0*+)?\Z", re.ASCII)


def read_whole(value: Json) -> int | None:
    """A whole number as lenient servers read it, from a number or a text; None for anything else."""
    if isinstance(value, str):
        return int(match[1]) if (match := _WHOLE.match(value.strip())) is not None else None
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if number and 0 <= value < 1e15 else None  # type: ignore[arg-type, operator]


PROMPTS = ("prompt", "prompts", "inputs")
"""Fields of a text completion that may hold several."""


def prompts_in(prompt: Json) -> int:
    """How many prompts a text completion has: one text, one list of tokens, or a list of these."""
    return len(prompt) if isinstance(prompt, list) and not set(map(type, prompt)) <= {int} else 1


def completions_in(path: str, body: JsonDict) -> int:
    """How many completions a request asks for, over all of its prompts, read as a lenient server would."""
    endpoint = endpoint_of(path)
    prompts = max(prompts_in(body.get(name)) for name in PROMPTS) if endpoint == "completions" else 1
    if _SINGLE[endpoint].issuperset(body):
        return prompts
    waiting, most = [*body.items()], {"choices": 1, "beams": 1}
    for name, value in waiting:  # grows by what holders have in them
        kind = kind_of(endpoint, name)
        if kind in most:
            most[kind] = max(most[kind], read_whole(value) or 1)
        elif kind == "holder" and isinstance(value, dict):
            waiting += value.items()
    return most["choices"] * most["beams"] * prompts
