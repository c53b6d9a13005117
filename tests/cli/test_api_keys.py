"""OPENAI_API_KEY goes to the server that it was made for, and to others only where the user says so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outthink.engines.locate import usual_key
from outthink.serving.config import read_config
from support.chat_server import ChatServer, Reply, Seen, chat, refusal, whole

KEY = "a-key-of-openai"


@pytest.fixture
def elsewhere() -> Iterator[ChatServer]:
    with ChatServer(chat(["The answer is 4."])) as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, cli) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OTHER", "another-key")


def sent(server: ChatServer) -> set[str | None]:
    """Keys that have reached a server."""
    assert server.seen
    return {seen.headers.get("authorization") for seen in server.seen}


Verbs = Callable[[str], tuple[object, ...]]


@pytest.fixture
def verbs(tmp_path: Path) -> Verbs:
    """The beginning of a command that ends in a server's address; each writes files of its own."""
    data, numbers = tmp_path / "sums.jsonl", itertools.count()
    data.write_text(json.dumps({"question": "What is 2 + 2?", "answer": "4"}))

    def begun(verb: str) -> tuple[object, ...]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return _commands(data, folder)[verb]

    return begun


def _commands(data: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    out = folder / "toy--sums.parquet"
    return {
        "ask": ("ask", "x", "--model"),
        "doctor": ("doctor",),
        "record": ("record", data, "--samples", 1, "--answer", "number", "--out", out, "--model"),
        "compare": (
            "compare",
            data,
            "--live",
            "--answer",
            "number",
            "--strategy",
            "single",
            "--out",
            folder,
            "--model",
        ),
        "batch": ("batch", data, "--model"),
        "serve": ("serve", "--check", "--ledger", "memory:", "--model"),
    }


@pytest.mark.parametrize("verb", ["ask", "doctor", "record", "compare", "batch", "serve"])
def test_the_key_reaches_its_own_server_alone(cli, verbs, verb, server, elsewhere, monkeypatch) -> None:
    cli(*verbs(verb), elsewhere.url)
    assert sent(elsewhere) == {None}
    cli(*verbs(verb), elsewhere.url, "--api-key-env", "OPENAI_API_KEY")
    assert sent(elsewhere) == {None, f"Bearer {KEY}"}
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
    elsewhere.seen.clear()
    cli(*verbs(verb), elsewhere.url)
    assert sent(elsewhere) == {None}
    cli(*verbs(verb), server.url.removesuffix("/v1"))
    assert sent(server) == {f"Bearer {KEY}"}
    server.seen.clear()
    cli(*verbs(verb), server.url, "--api-key-env", "OTHER")
    assert sent(server) == {"Bearer another-key"}


def test_the_key_follows_the_base_url_and_not_a_judge(cli, server, elsewhere, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    done = cli("ask", "x", "--strategy", "best-of-n:n=2", "--verifier", f"judge:{elsewhere.url}")
    assert done.code in (0, 3), done.err
    assert (sent(server), sent(elsewhere)) == ({f"Bearer {KEY}"}, {None})


def test_a_named_key_is_not_a_judges_either(cli, server, elsewhere) -> None:
    judge = f"judge:{elsewhere.url}"
    cli("ask", "x", "--model", server.url, "--api-key-env", "OTHER", "--strategy", "best-of-n:n=2", "--verifier", judge)
    assert (sent(server), sent(elsewhere)) == ({"Bearer another-key"}, {None})


@pytest.mark.parametrize("verb", ["ask", "record", "batch", "compare"])
def test_a_401_says_that_no_key_was_sent(cli, verbs, verb, server) -> None:
    server.routes["/v1/chat/completions"] = refusal("who are you?", 401)
    done = cli(*verbs(verb), server.url)
    assert done.code == 1
    assert "none was sent" in done.err
    assert "--api-key-env" in done.err
    assert "none was sent" not in cli(*verbs(verb), server.url, "--api-key-env", "OTHER").err


def test_doctor_says_it_too(cli, server) -> None:
    server.routes["/v1/chat/completions"] = server.routes["/v1/models"] = refusal("who are you?", 401)
    assert "none was sent" in cli("doctor", server.url, "--json").out


@pytest.mark.parametrize("verb", ["ask", "doctor", "record", "serve"])
def test_a_named_variable_that_is_not_set_is_refused_before_anything_is_sent(cli, verbs, verb, server) -> None:
    done = cli(*verbs(verb), server.url, "--api-key-env", "NO_SUCH_KEY")
    assert (done.code, server.seen) == (2, [])
    assert "--api-key-env: 'NO_SUCH_KEY' is not set" in done.err


@pytest.mark.parametrize("key", ["sk-proj-abc123", "abcdef0123456789", "a key"])
@pytest.mark.parametrize("verb", ["ask", "doctor", "record", "serve"])
def test_a_key_in_place_of_its_variable_is_not_printed(cli, verbs, verb, key, server) -> None:
    done = cli(*verbs(verb), server.url, "--api-key-env", key)
    assert (done.code, server.seen) == (2, [])
    assert "--api-key-env: '***' is not set" in done.err
    assert key not in done.err + done.out


def test_a_redirect_is_named_without_what_is_secret_in_it(cli, server) -> None:
    server.routes["/v1/chat/completions"] = whole("", 307, location="http://me:hunter2@other/v1?token=hunter3")
    done = cli("ask", "hi", "--model", server.url)
    assert "redirects to http://me:***@other/v1?***" in done.err


def test_a_key_that_a_server_repeats_is_not_printed(cli, server) -> None:
    def answer(seen: Seen) -> Reply:
        return whole({"error": {"message": f"no: {seen.headers['authorization']}"}}, 400)

    server.routes["/v1/chat/completions"] = answer
    done = cli("ask", "x", "--model", server.url, "--api-key-env", "OTHER")
    assert "another-key" not in done.out + done.err
    assert "***" in done.err


@pytest.mark.parametrize(
    ("url", "base", "same"),
    [
        ("https://api.openai.com/v1", None, True),
        ("https://API.openai.com:443", None, True),
        ("https://api.openai.com/v1/chat/completions", "", True),
        ("http://api.openai.com/v1", None, False),
        ("https://api.openai.com:8443/v1", None, False),
        ("https://api.openai.com.example.org/v1", None, False),
        ("https://api.openai.com@example.org/v1", None, False),
        ("https://example.org/?https://api.openai.com/v1", None, False),
        ("https://eu.api.openai.com/v1", None, False),
        ("https://api.openai.com/v1", "http://127.0.0.1:8000/v1", False),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/other", True),
        ("http://localhost:8000", "http://127.0.0.1:8000", False),
        ("http://[::1]:8000/v1", "http://[::1]:8000", True),
        ("http://h/v1", "nonsense", False),
        ("http://h/v1", "http://h:80", True),
    ],
)
def test_one_origin_is_scheme_host_and_port(url: str, base: str | None, same: bool) -> None:
    environ = {"OPENAI_API_KEY": KEY, **({} if base is None else {"OPENAI_BASE_URL": base})}
    assert usual_key(url, environ) == (KEY if same else None)


def test_each_backend_of_serve_has_its_own_key_or_the_named_one() -> None:
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://one/v1"}
    config = read_config(models="http://one,http://two", environ=environ)
    assert [backend.key for backend in config.backends] == [KEY, None]
    environ["TOY_KEY"] = "named"
    config = read_config(models="http://one,http://two", api_key_env="TOY_KEY", environ=environ)
    assert [backend.key for backend in config.backends] == ["named", "named"]
