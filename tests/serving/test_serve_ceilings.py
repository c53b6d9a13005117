"""What a request may cost: every body that some server would answer keeps its key's ceiling, or is refused by name."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.core.request import Budget
from outthink.engines.openai.body import Facts, file_for, remember
from outthink.serving.pool import BackendSettings
from outthink.serving.pool.rules import FieldSettings
from outthink.serving.protocols import Key
from support.chat_server import whole
from support.ledgers import KeyRing
from support.lenient_server import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Dialect, LenientServer
from support.proxy_server import Got, ProxyServer

CEILING = 260
KEYS = (
    Key("capped", budget=Budget(tokens=CEILING)),
    Key("wide", budget=Budget(tokens=40_000)),
    Key("daily", limited=True),
    Key("priced", limited=True, priced=True),
    Key("quick", budget=Budget(seconds=20)),
    Key("free"),
    Key("narrow", models=("toy",)),
)
SAID = {"messages": [{"role": "user", "content": "Hello"}]}
OPERATED = FieldSettings(
    setting="[backends.gpu]", allow_fields=("vendor_mode", "web_search"), image_tokens=900, audio_tokens_per_second=50
)


@pytest.fixture
def server() -> Iterator[LenientServer]:
    with LenientServer() as running:
        yield running


@pytest.fixture
def proxy(server: LenientServer) -> Iterator[ProxyServer]:
    with ProxyServer(server.url, ledger=KeyRing(*KEYS)) as running:
        yield running


@pytest.fixture
def operated(server: LenientServer) -> Iterator[ProxyServer]:
    """A proxy whose operator has bounded what requests do not show."""
    with ProxyServer(BackendSettings(url=server.url, fields=OPERATED), ledger=KeyRing(*KEYS)) as running:
        yield running


def send(proxy: ProxyServer, body: dict[str, Any] | bytes, *, path: str = CHAT, key: str = "capped") -> Got:
    if not isinstance(body, bytes):
        own = SAID if path == CHAT else {}
        body = json.dumps({"model": "toy", **own, **body}).encode()
    return proxy.send("POST", path, body, authorization=f"Bearer {key}")


def refused(got: Got, field: str, *parts: str) -> None:
    """The request was refused, naming the field first, and more."""
    assert got.status == 400, got.content
    assert got.error["param"] == field
    assert got.error["message"].startswith(f"{field}: ")
    for part in parts:
        assert part in got.error["message"]


@pytest.mark.parametrize("nested", ["", "options.", "generation_config.", "extra_body.sampling_params."])
@pytest.mark.parametrize("name", ["n_predict", "num_predict", "max_new_tokens", "maxOutputTokens", "MAX-TOKENS"])
def test_a_length_under_any_name_is_told_and_taken_out(
    server: LenientServer, proxy: ProxyServer, name: str, nested: str
) -> None:
    server.dialect = Dialect(lengths=(nested + name,))
    for value, cap in ((90, 90), ("30", 30), (7.0, 7), (9999, CEILING)):
        inner: Any = {name: value}
        for holder in reversed(nested.split(".")[:-1]):
            inner = {holder: inner}
        assert send(proxy, inner).status == 200
        assert set(server.bodies[-1]) == {"model", "messages", "max_tokens"}
        assert server.bodies[-1]["max_tokens"] == min(cap, CEILING - len(json.dumps({"model": "toy", **SAID, **inner})))
        assert server.work[-1].tokens <= CEILING


def test_the_smallest_length_is_written_under_the_name_that_the_endpoint_knows(
    server: LenientServer, proxy: ProxyServer
) -> None:
    text = {"prompt": "Hello"}
    asked = {"max_tokens": 40, "max_completion_tokens": 30, "n_predict": 50}
    for path, body, name in (
        (CHAT, {}, "max_tokens"),
        (CHAT, {"max_completion_tokens": 20}, "max_completion_tokens"),
        (CHAT, {"max_output_tokens": 20}, "max_tokens"),
        (COMPLETIONS, {**text, "max_completion_tokens": 20}, "max_tokens"),
        (RESPONSES, {"input": "Hello", "max_tokens": 20}, "max_output_tokens"),
        (CHAT, asked, "max_tokens"),
    ):
        assert send(proxy, body, path=path).status == 200
        lengths = {field: value for field, value in server.bodies[-1].items() if "tokens" in field}
        assert list(lengths) == [name]
        assert lengths[name] <= min([value for value in body.values() if isinstance(value, int)], default=CEILING)


@pytest.mark.parametrize("value", [0, -1, 1.5, "ten", "1e9", "٨", True, [5], {"value": 5}])
@pytest.mark.parametrize("name", ["max_tokens", "n_predict", "n", "best_of"])
def test_a_count_that_is_none_is_refused(proxy: ProxyServer, name: str, value: Any) -> None:
    refused(send(proxy, {name: value}), name, "whole number from 1")


def test_equal_names_are_sent_once(server: LenientServer, proxy: ProxyServer) -> None:
    server.dialect = Dialect(first=True)
    body = json.dumps({"model": "toy", **SAID})[:-1].encode()
    assert send(proxy, body + b', "max_tokens": 4000, "max_tokens": 9}').status == 200
    assert server.work[-1].completion == 9


@pytest.mark.parametrize(
    "value", [240, "240", 240.0, [240], {"deep": [{"er": "240"}]}, {"240": True}, "at most 240", "inf", "http://a.b/c"]
)
def test_an_unknown_field_with_a_number_is_refused_by_name(
    server: LenientServer, proxy: ProxyServer, value: Any
) -> None:
    remedy = '[[serve.backends]] allow_fields = ["max_reply_words"]'
    refused(send(proxy, {"max_reply_words": value}), "max_reply_words", remedy)
    refused(
        send(proxy, {"options": {"max_reply_words": value}}), "options.max_reply_words", '["options.max_reply_words"]'
    )
    if not isinstance(value, dict | bool) and value not in ("at most 240", "inf", "http://a.b/c"):
        refused(send(proxy, {"prompt_cache_options": {"most_words": value}}), "prompt_cache_options", "allow_fields")
    assert not server.work


def test_an_unknown_field_without_a_number_passes(server: LenientServer, proxy: ProxyServer) -> None:
    known = {"prompt_cache_options": {"ttl": "30m"}, "tool_choice": {"name": "f7"}, "logit_bias": {"7": -100}}
    assert send(proxy, known).status == 200
    more = {"vendor_mode": {"fast": True, "style": ["plain", None]}, "cache_prompt": False}
    assert send(proxy, more).status == 200
    assert {name: server.bodies[-1][name] for name in more} == more


def test_what_an_operator_allows_passes_but_sets_no_length(server: LenientServer, operated: ProxyServer) -> None:
    assert send(operated, {"vendor_mode": {"level": 3, "max_tokens": 4000}}).status == 200
    assert server.bodies[-1]["vendor_mode"] == {"level": 3}
    server.dialect = Dialect(deep=True)
    assert send(operated, {"vendor_mode": {"n": 4}}).status == 200
    assert server.work[-1].choices == 4
    assert server.work[-1].tokens <= CEILING
    assert send(operated, {"tools": [{"type": "web_search"}]}).status == 200
    refused(send(operated, {"other": 3}), "other", '[backends.gpu] allow_fields = ["other"]')


@pytest.mark.parametrize(
    ("path", "body", "choices"),
    [
        (CHAT, {"n": "8", "max_tokens": 20}, 8),
        (CHAT, {"n_cmpl": 8.0}, 8),
        (CHAT, {"options": {"num_return_sequences": 4}, "num_beams": "2"}, 8),
        (COMPLETIONS, {"prompt": ["a"] * 10, "max_tokens": 20}, 10),
        (COMPLETIONS, {"prompt": [[1, 2], [3]], "best_of": 3}, 6),
        (CHAT, {"logit_bias": {"7": -1, "max_tokens": 4000}, "n": 2}, 2),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
    ],
)
def test_several_completions_share_the_ceiling(
    server: LenientServer, proxy: ProxyServer, path: str, body: dict[str, Any], choices: int
) -> None:
    server.dialect = Dialect(holders=("options",))
    assert send(proxy, body, path=path).status == 200
    assert server.work[-1].choices == choices
    assert CEILING * 0.5 < server.work[-1].tokens <= CEILING


def test_prompts_that_are_none_are_refused(proxy: ProxyServer) -> None:
    for prompt in ([["a"]], ["a", {"text": "b"}], [[[1]]]):
        got = send(proxy, {"prompt": prompt}, path=COMPLETIONS)
        refused(got, f"prompt[{len(prompt) - 1}]", "neither a text nor a list of tokens")
    refused(send(proxy, {"prompt": {"prompts": ["a", "b"]}}, path=COMPLETIONS), "prompt[0]", "neither a text")


def test_thinking_is_reserved_beside_the_completion(server: LenientServer, proxy: ProxyServer) -> None:
    for body, name in (
        ({"thinking_budget": "80"}, "thinking_budget"),
        ({"reasoning": {"max_tokens": 80}}, "reasoning.max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 80}}, "thinking.budget_tokens"),
    ):
        server.dialect = Dialect(thinking=(name,))
        assert send(proxy, body).status == 200
        assert server.bodies[-1]["max_tokens"] + 80 + len(json.dumps({"model": "toy", **SAID, **body})) == CEILING
        assert server.work[-1].tokens <= CEILING


def test_a_least_length_keeps_the_ceiling_too(server: LenientServer, proxy: ProxyServer) -> None:
    server.dialect = Dialect(floors=("min_tokens",))
    assert send(proxy, {"min_tokens": 100}).status == 200
    refused(send(proxy, {"min_tokens": 240}), "min_tokens", "is more than the")


def test_embeddings_get_no_length(server: LenientServer, proxy: ProxyServer) -> None:
    for body in ({"input": "hello"}, {"input": "hello", "max_tokens": 5}, {"input": [[1, 2], [3]], "dimensions": 8}):
        got = send(proxy, body, path=EMBEDDINGS, key="daily")
        assert got.status == 200
        assert not [name for name in server.bodies[-1] if "tokens" in name]
        record = proxy.ledger.records[got.headers["x-outthink-receipt"]]  # type: ignore[attr-defined]
        assert record.tokens == server.work[-1].prompt
    refused(send(proxy, {"input": "a" * 300}, path=EMBEDDINGS), "input", "does not fit")


IMAGE = {"type": "image_url", "image_url": {"url": "http://pictures.example/a.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"\0" * 30_000).decode(), "format": "mp3"}}
FILE = {"type": "input_file", "file_url": "http://pictures.example/a.pdf"}


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, *parts]}]}


@pytest.mark.parametrize(
    ("path", "body", "field", "setting"),
    [
        (CHAT, said(IMAGE), "messages[0].content[1]", "image_tokens = N"),
        (CHAT, said(SOUND), "messages[0].content[1]", "audio_tokens_per_second = N"),
        (CHAT, said({"type": "file", "file": {"file_id": "f"}}), "messages[0].content[1]", 'allow_fields = ["file"]'),
        (CHAT, said({"type": "video_url", "video_url": {"url": "a"}}), "messages[0].content[1]", '["video_url"]'),
        (CHAT, said({"type": "text", "text": "a", "image_url": "b"}), "messages[0].content[1]", "image_tokens"),
        (CHAT, {"messages": [{"role": "user", "content": "a", "images": ["abc"]}]}, "messages[0]", "images"),
        (RESPONSES, {"input": [{"role": "user", "content": [FILE]}]}, "input[0].content[0]", "input_file"),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "abc"}]}, "input[0]", "item_reference"),
        (RESPONSES, {"input": [{"id": "msg_abc"}]}, "input[0]", "item_reference"),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "rs_abc", "summary": []}]}, "input[0]", "reasoning"),
        (CHAT, said({"url": "http://pictures.example/a.png"}), "messages[0].content[1]", "url"),
        (CHAT, said({"type": "text", "text": "a", "photo": "b"}), "messages[0].content[1]", '["photo"]'),
        (CHAT, said({"type": "text", "text": "a", "shown": ["HTTPS://a.b/c"]}), "messages[0].content[1]", "shown"),
        (CHAT, {"messages": [{"role": "user", "content": "a", "imageUrls": ["b"]}]}, "messages[0]", "imageUrls"),
        (RESPONSES, {"input": "a", "reasoning": {"mode": "pro"}}, "reasoning.mode", "allow_fields"),
        (CHAT, {"extra_body": {"reasoning": {"mode": "pro"}}}, "extra_body.reasoning.mode", "allow_fields"),
        (RESPONSES, {"input": "a", "previous_response_id": "resp_abc"}, "previous_response_id", "allow_fields"),
        (RESPONSES, {"input": "a", "conversation": "abc"}, "conversation", "allow_fields"),
        (RESPONSES, {"input": "a", "prompt": {"id": "pmpt_abc"}}, "prompt", "allow_fields"),
        (RESPONSES, {"input": "a", "background": True}, "background", "allow_fields"),
        (RESPONSES, {"input": "a", "tools": [{"type": "file_search"}]}, "tools[0]", '["file_search"]'),
        (CHAT, {"tools": [{"google_search": {}}]}, "tools[0]", '["google_search"]'),
        (CHAT, {"tools": [{"name": "f", "googleSearch": {}}]}, "tools[0]", '["googleSearch"]'),
        (CHAT, {"tools": [{"type": "function", "function": {}, "web_search": {}}]}, "tools[0]", '["web_search"]'),
        (CHAT, {"web_search_options": {}}, "web_search_options", "allow_fields"),
        (CHAT, {"prediction": {"type": "content", "content": "a"}}, "prediction", "allow_fields"),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities", "allow_fields"),
        (CHAT, {"chat_template": "{{ messages }}"}, "chat_template", "allow_fields"),
        (COMPLETIONS, {"prompt": {"prompt_string": "a", "multimodal_data": ["b"]}}, "prompt", "multimodal_data"),
        (EMBEDDINGS, {"input": [{"image": "abc"}]}, "input[0]", "image_tokens"),
    ],
)
def test_what_a_request_does_not_show_is_refused_by_name(
    server: LenientServer, proxy: ProxyServer, path: str, body: dict[str, Any], field: str, setting: str
) -> None:
    for key in ("capped", "daily"):
        refused(send(proxy, body, path=path, key=key), field, setting)
    assert not server.work
    for key in ("free", "quick"):
        assert send(proxy, body, path=path, key=key).status == 200
        assert (
            server.server.seen[-1].content
            == json.dumps({"model": "toy", **(SAID if path == CHAT else {}), **body}).encode()
        )


def test_pictures_and_sound_count_what_the_operator_says(server: LenientServer, operated: ProxyServer) -> None:
    server.dialect = Dialect(picture=900, second=50)
    data = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 60_000}}
    for parts, unseen in (((IMAGE,), 900), ((IMAGE, data), 1800), ((SOUND,), 1500)):
        got = send(operated, said(*parts) | {"max_tokens": 40_000}, key="wide")
        assert got.status == 200, got.content
        assert unseen < server.work[-1].tokens <= 40_000
        refused(send(operated, said(*parts)), "max_tokens", "does not fit")
    film = {"type": "image_url", "image_url": {"url": "data:video/mp4;base64,AAAA"}}
    refused(send(operated, said(film), key="wide"), "messages[0].content[1]", '["video/mp4"]')


@pytest.mark.parametrize("begin", [b"fLaC", b"OggS", b"\xff\xf1", b"RIFF....WAVEjunk", b"....ftyp", b".snd", b"RF64"])
def test_sound_that_bytes_do_not_bound_is_refused(operated: ProxyServer, begin: bytes) -> None:
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(begin + b"\0" * 200).decode()}}
    refused(send(operated, said(part), key="wide"), "messages[0].content[1]", "send its bytes, as wav or mp3")
    linked = {"type": "audio_url", "audio_url": {"url": "http://sounds.example/a.mp3"}}
    refused(send(operated, said(linked), key="wide"), "messages[0].content[1]", "unknown length")


def test_a_slow_wave_is_as_long_as_its_head_says(operated: ProxyServer, server: LenientServer) -> None:
    def wave(rate: int) -> dict[str, Any]:
        shape = (1).to_bytes(2, "little") * 2 + rate.to_bytes(4, "little") * 2 + b"\1\0\x08\0"
        sound = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + shape + b"data\0\0\0\0" + b"\0" * 8000
        return {"type": "input_audio", "input_audio": {"data": base64.b64encode(sound).decode(), "format": "wav"}}

    assert send(operated, said(wave(8000)) | {"max_tokens": 10}, key="wide").status == 200
    assert send(operated, said(wave(1)) | {"max_tokens": 10}, key="wide").status == 400


def test_another_tier_has_another_price(server: LenientServer, proxy: ProxyServer) -> None:
    for name, value in (("service_tier", "priority"), ("speed", "fast"), ("provider", {"sort": "throughput"})):
        refused(send(proxy, {name: value}, key="priced"), name, "price")
        refused(send(proxy, {name: {"max_tokens": 4000}}), name, "holds a number")
    limited = {"outthink": {"budget": {"usd": 1}}}
    refused(ask(proxy, "free", service_tier="priority", **limited), "service_tier", "price")
    refused(ask(proxy, "free", extra_body={"speed": "fast"}, **limited), "extra_body.speed", "price")
    for key, tier in (("priced", "auto"), ("priced", "default"), ("daily", "priority"), ("free", "flex")):
        assert send(proxy, {"service_tier": tier}, key=key).status == 200
        assert server.bodies[-1]["service_tier"] == tier


def test_no_other_spelling_names_another_model_or_a_stream(proxy: ProxyServer) -> None:
    refused(send(proxy, {"Model": "dear"}), "Model", "another spelling", "send model alone")
    refused(send(proxy, {"extra_body": {"model": "dear"}}), "extra_body.model", "another spelling")
    refused(send(proxy, {"stream": "true"}), "stream", "true nor false")
    refused(send(proxy, {"Stream": True}), "Stream", "send stream alone")


def test_a_key_for_some_models_names_no_other_one_behind_our_back(server: LenientServer, proxy: ProxyServer) -> None:
    said = json.dumps(SAID)[1:].encode()
    assert send(proxy, b'{"model": "dear", "model": "toy", ' + said, key="narrow").status == 200
    assert server.server.seen[-1].content.count(b"model") == 1
    refused(send(proxy, {"Model": "dear"}, key="narrow"), "Model", "another spelling")
    hidden = {"model": "outthink/single", "Model": "dear", "extra_body": {"model": "dear"}}
    assert send(proxy, hidden, key="free").status == 200  # strategies write the model themselves, whoever asks
    assert b"dear" not in server.server.seen[-1].content


def test_several_backends_of_a_model_allow_what_all_of_them_allow(server: LenientServer) -> None:
    with LenientServer() as second:
        strict = FieldSettings(setting="[backends.old]", allow_fields=("vendor_mode",), image_tokens=1000)
        backends = [BackendSettings(url=server.url, fields=OPERATED), BackendSettings(url=second.url, fields=strict)]
        with ProxyServer(*backends, ledger=KeyRing(*KEYS)) as proxy:
            assert send(proxy, {"vendor_mode": 3}).status == 200
            got = send(proxy, {"tools": [{"type": "web_search"}]})
            refused(got, "tools[0]", '[backends.old] allow_fields = ["web_search"]')
            refused(send(proxy, said(SOUND), key="wide"), "messages[0].content[1]", "[backends.old] audio_tokens_per")
            assert send(proxy, said(IMAGE), key="wide").status == 200


def test_an_operator_says_which_name_a_length_has(server: LenientServer) -> None:
    fields = FieldSettings(length_name="max_completion_tokens")
    with ProxyServer(BackendSettings(url=server.url, fields=fields), ledger=KeyRing(*KEYS)) as proxy:
        assert send(proxy, {"max_tokens": 9}).status == 200
        assert server.bodies[-1] == {"model": "toy", **SAID, "max_completion_tokens": 9}
        names_of_strategies(server, proxy, "max_completion_tokens")


def names_of_strategies(server: LenientServer, proxy: ProxyServer, name: str) -> None:
    """Calls of strategies write their length under this name alone."""
    for key in ("wide", "free"):
        server.server.seen.clear()
        assert ask(proxy, key, model=BOTH, max_tokens=9).status == 200
        assert [{field: body[field] for field in body if "tokens" in field} for body in server.bodies] == [
            {name: 9}
        ] * 2


def test_servers_that_tell_their_kind_get_the_name_that_they_know(server: LenientServer) -> None:
    rows = [{"id": "toy", "object": "model", "owned_by": "library"}]
    server.server.routes["/v1/models"] = whole({"object": "list", "data": rows})
    with ProxyServer(server.url, ledger=KeyRing(*KEYS)) as proxy:
        assert send(proxy, {"max_completion_tokens": 9}).status == 200
        assert server.bodies[-1] == {"model": "toy", **SAID, "max_tokens": 9}


def test_what_doctor_has_found_out_names_the_length(
    server: LenientServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path))
    facts = Facts()
    facts.learn(length_name="max_completion_tokens")
    remember(file_for(tmp_path / "servers", server.url, "toy"), facts, server.url, "toy")
    assert send(proxy, {"max_tokens": 9}).status == 200
    assert server.bodies[-1] == {"model": "toy", **SAID, "max_completion_tokens": 9}
    names_of_strategies(server, proxy, "max_completion_tokens")


STRATEGY, BOTH = "outthink/self-consistency@3", "outthink/self-consistency@2"
"""Of three samples two may decide, and the third is left; of two none is."""


def ask(proxy: ProxyServer, key: str, **body: Any) -> Got:
    """One question to a strategy."""
    return send(proxy, {"model": STRATEGY, **body}, key=key)


@pytest.mark.parametrize("key", ["free", "wide"])
def test_strategies_pass_no_length_and_no_multiplicity_on(server: LenientServer, proxy: ProxyServer, key: str) -> None:
    more = {"n_predict": "90", "options": {"num_predict": 4000, "best_of": 2}, "n_cmpl": 4.0, "maxTokens": 70}
    got = ask(proxy, key, model=BOTH, **more)
    assert got.status == 200, got.content
    assert got.json["outthink"]["receipt"]["tokens"] == sum(work.tokens for work in server.work)
    for body in server.bodies:
        assert not {"options", *more} & set(body)
        assert body["max_tokens"] == 70
    assert "n_cmpl: a strategy decides that itself, so it was left out" in got.json["outthink"]["receipt"]["notes"]


def test_a_strategys_count_may_be_a_text(server: LenientServer, proxy: ProxyServer) -> None:
    for value, count in (("2", 2), (2.0, 2)):
        assert len(ask(proxy, "wide", n=value, max_tokens="9").json["choices"]) == count
    assert {body["max_tokens"] for body in server.bodies} == {9}
    for name in ("n", "max_tokens", "n_predict"):
        for value in ("two", 1.5, 0, [2]):
            refused(ask(proxy, "free", **{name: value}), name, "whole number from 1")


def test_a_limited_keys_strategy_keeps_to_the_table_too(server: LenientServer, proxy: ProxyServer) -> None:
    refused(ask(proxy, "wide", max_reply_words=9), "max_reply_words", "allow_fields")
    refused(ask(proxy, "wide", **said(IMAGE)), "messages[0].content[1]", "image_tokens")
    refused(ask(proxy, "priced", service_tier="priority"), "service_tier", "price")
    assert not server.work
    assert ask(proxy, "free", max_reply_words=9, **said(IMAGE)).status == 200


def test_pictures_count_for_every_sample(server: LenientServer, operated: ProxyServer) -> None:
    server.dialect = Dialect(picture=900)
    got = ask(operated, "capped", **said(IMAGE))
    assert got.json["outthink"]["receipt"]["stopped"] == "budget:tokens"
    assert not server.work
    budget = {"budget": {"tokens": 2500}}
    got = ask(operated, "wide", max_tokens=64, outthink=budget, **said(IMAGE))
    assert got.status == 200
    assert 900 < sum(work.tokens for work in server.work) <= 2500


def test_tools_count_for_every_sample(server: LenientServer, proxy: ProxyServer) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "word " * 200, "parameters": {}}}
    assert ask(proxy, "wide", tools=[tool], max_tokens=64, outthink={"budget": {"tokens": 2600}}).status == 200
    assert 1000 < sum(work.tokens for work in server.work) <= 2600


def test_thinking_beside_a_strategys_completions_is_reserved(server: LenientServer, proxy: ProxyServer) -> None:
    server.dialect = Dialect(thinking=("thinking_budget",))
    assert ask(proxy, "wide", thinking_budget=500, max_tokens=100).status == 200
    assert {(work.completion, body["max_tokens"]) for work, body in zip(server.work, server.bodies, strict=True)} == {
        (600, 100)
    }
    server.work.clear()
    assert ask(proxy, "wide", thinking_budget=500, outthink={"budget": {"tokens": 600}}).status == 200
    assert sum(work.tokens for work in server.work) <= 600
