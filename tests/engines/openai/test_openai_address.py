"""URLs as users write them."""

from __future__ import annotations

import pytest

from outthink.core.errors import BadInput
from outthink.engines.openai import OpenAIEngine
from outthink.http.server import Address


@pytest.mark.parametrize(
    ("url", "base", "root"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        (" http://127.0.0.1:8000/v1/ ", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://h/v1/chat/completions", "http://h/v1", "http://h"),
        ("http://h/v1/models/", "http://h/v1", "http://h"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
        ("https://h/api", "https://h/api/v1", "https://h/api"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai", "https://h/v1beta/openai"),
        ("https://h/api/paas/v4", "https://h/api/paas/v4", "https://h/api/paas"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1", "http://[::1]:80"),
    ],
)
def test_an_address_is_read(url: str, base: str, root: str) -> None:
    address = Address.parse(url)
    assert (address.base, address.root) == (base, root)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://h", "http://", "http://h:port", "http://[", "h/v1"])
def test_what_is_no_address_is_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(BadInput, match="give something like http"):
        Address.parse(url)


def test_user_password_and_query_are_sent_but_not_shown() -> None:
    address = Address.parse("https://me:s%40cret@h/v1?api-version=1&key=hidden")
    assert address.userinfo == "Basic bWU6c0BjcmV0"
    assert address.url("/models") == "https://h/v1/models?api-version=1&key=hidden"
    assert address.url("/tokenize", root=True) == "https://h/tokenize?api-version=1&key=hidden"
    assert "cret" not in repr(address)
    assert "hidden" not in repr(address)


def test_a_bad_url_with_a_password_is_not_quoted() -> None:
    with pytest.raises(BadInput) as caught:
        Address.parse("me:secret@host")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "local"),
    [("http://localhost:1", True), ("http://127.0.0.1", True), ("http://[::1]", True), ("http://h", False)],
)
def test_local_servers_are_recognised(url: str, local: bool) -> None:
    assert Address.parse(url).local is local


@pytest.mark.parametrize("key", ["se\ncret", "s\u00e9cret", "se\x00cret"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(BadInput) as caught:
        OpenAIEngine("http://h", api_key=key, memory=None)
    assert "cret" not in str(caught.value)


def test_a_key_with_blanks_around_it_is_trimmed() -> None:
    engine = OpenAIEngine("http://h", api_key=" secret\n", memory=None)
    assert "secret" not in repr(engine) + repr(engine.server) + repr(engine.facts)


def test_concurrency_below_one() -> None:
    with pytest.raises(BadInput, match="concurrency"):
        OpenAIEngine("http://h", concurrency=0, memory=None)
