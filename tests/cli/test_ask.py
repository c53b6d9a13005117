"""`outthink ask`: answers, receipts and exit codes."""

from __future__ import annotations

import io
import json

import pytest

from support.chat_server import ChatServer, Drop, Hang, Reply, Seen, chat, chunk, refusal, stream, whole


def test_json_is_one_object_with_the_contracts_keys(cli, server) -> None:
    done = cli("ask", "What?", "--model", server.url, "--answer", "number", "--seed", 1, "--json")
    assert done.code == 0
    assert set(done.json) == {"answer", "text", "strategy", "model", "stopped", "receipt"}
    assert set(done.json["receipt"]) >= {"tokens", "seconds", "usd", "joules", "flops", "known", "at_most", "entries"}
    assert done.json["answer"] == "42"
    assert done.json["strategy"] == "adaptive-consistency:n=16"
    entries = done.json["receipt"]["entries"]
    assert done.json["receipt"]["tokens"] == sum(
        entry["prompt_tokens"] + entry["completion_tokens"] + entry["cancelled_tokens"] for entry in entries
    )


def test_free_text_is_one_sample(cli, server) -> None:
    done = cli("ask", "What?", "--model", server.url, "--json")
    assert done.code == 0
    assert done.json["strategy"] == "single"
    assert len(server.calls) == 1
    assert done.json["text"].startswith("The answer is")


def test_what_was_only_thought_is_not_shown_as_the_answer(cli) -> None:
    with ChatServer(chat("<think>Blue or red?</think>\nIt is Red.")) as server:
        done = cli("ask", "Which colour?", "--model", server.url)
    assert (done.code, done.out) == (0, "It is Red.\n")
    with ChatServer(chat("<think>Blue or red?")) as server:
        done = cli("ask", "Which colour?", "--model", server.url)
    assert (done.code, done.out) == (3, "<think>Blue or red?\n")


def test_defaults_are_sent_explicitly(cli, server) -> None:
    cli("ask", "What?", "--model", server.url)
    body = server.calls[0].body
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"], body["max_tokens"]) == (0.8, 1, 0, 0, 512)


def test_prompt_from_standard_input(cli, server, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe?\n"))
    assert cli("ask", "--model", server.url).code == 0
    assert server.calls[0].body["messages"][-1]["content"] == "From a pipe?"


def test_answer_goes_to_standard_output_and_the_receipt_to_standard_error(cli, server) -> None:
    done = cli(
        "ask", "What?", "--model", server.url, "--answer", "number", "--strategy", "self-consistency:n=3", "--seed", 1
    )
    assert done.out.strip() == "42"
    assert "sample 1: 42" in done.err
    assert "receipt" in done.err
    assert "dollars  unknown" in " ".join(done.err.split(" ")).replace("dollars unknown", "dollars  unknown")


def test_a_price_turns_unknown_dollars_into_known_ones(cli, server) -> None:
    done = cli("ask", "What?", "--model", server.url, "--price", "1,2", "--json")
    assert done.json["receipt"]["usd"] == pytest.approx((7 * 1 + 5 * 2) / 1e6)


def test_unreadable_answer_exits_with_3(cli) -> None:
    with ChatServer(chat(["no idea"])) as server:
        done = cli("ask", "What?", "--model", server.url, "--answer", "number", "--strategy", "single", "--json")
    assert (done.code, done.json["answer"]) == (3, None)


def test_cached_samples_are_not_paid_twice(cli, server) -> None:
    command = ("ask", "What?", "--model", server.url, "--answer", "number", "--seed", 1, "--cache", "--json")
    first, second = cli(*command), cli(*command)
    assert len({call.body["seed"] for call in server.calls}) == len(server.calls)
    assert second.json["receipt"]["tokens"] == 0
    assert all(entry["cached"] for entry in second.json["receipt"]["entries"])
    assert second.json["answer"] == first.json["answer"]


def test_a_token_budget_holds_and_is_named(cli, server) -> None:
    budget = ("--budget", "tokens=300", "--strategy", "self-consistency:n=64", "--answer", "number", "--seed", 1)
    done = cli("ask", "What?", "--model", server.url, *budget, "--json")
    assert done.json["stopped"] == "budget:tokens"
    assert done.json["receipt"]["tokens"] <= 300
    assert done.json["answer"] == "42"


def test_a_deadline_holds_with_a_server_that_hangs(cli) -> None:
    with ChatServer(stream(chunk("The answer is 7."), Hang())) as server:
        done = cli("ask", "What?", "--model", server.url, "--answer", "number", "--budget", "seconds=0.5", "--json")
    assert done.json["stopped"] == "budget:seconds"
    assert 0.5 <= done.json["receipt"]["seconds"] <= 0.75
    assert done.json["answer"] == "7"  # stated before the server hung
    assert done.json["receipt"]["tokens"] is None  # nobody has told what was generated
    assert done.json["receipt"]["at_most"]["tokens"] >= 512


BAD = {
    "empty prompt": (("ask", "  "), "prompt", 2),
    "unknown strategy": (("ask", "x", "--strategy", "magic"), "self-consistency", 2),
    "unknown parameter": (("ask", "x", "--strategy", "esc:wide=3"), "window", 2),
    "bad parameter": (("ask", "x", "--strategy", "esc:window=zero"), "window", 2),
    "zero size": (("ask", "x", "--strategy", "esc:n=0"), "not positive", 2),
    "budget of zero": (("ask", "x", "--budget", "tokens=0"), "budget tokens", 2),
    "unknown currency": (("ask", "x", "--budget", "euros=3"), "euros", 2),
    "no number": (("ask", "x", "--budget", "tokens=many"), "many", 2),
    "model that is nothing": (("ask", "x", "--model", "no-such-thing"), "no-such-thing", 2),
    "bad price": (("ask", "x", "--price", "cheap"), "price", 2),
    "negative temperature": (("ask", "x", "--temperature", "-1"), "temperature", 2),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_the_remedy(cli, server, name) -> None:
    command, word, code = BAD[name]
    if "--model" not in command:
        command = (*command, "--model", server.url)
    done = cli(*command)
    assert done.code == code
    assert done.out == ""
    assert len(done.err.strip().splitlines()) == 1
    assert word in done.err
    assert server.calls == []


def test_a_budget_that_cannot_be_accounted_for_is_refused_before_any_call(cli, server) -> None:
    for budget in ("usd=1", "joules=5"):
        done = cli("ask", "x", "--model", server.url, "--budget", budget)
        assert done.code == 2
        assert budget.split("=")[0] in done.err
    assert server.calls == []


SERVERS = {
    "answers HTML": (whole("<html><body>Welcome</body></html>", kind="text/html"), "HTML"),
    "dies in mid-stream": (stream(chunk("The"), Drop()), "dropped"),
    "refuses the key": (whole({"error": {"message": "bad key"}}, 401), "OPENAI_API_KEY"),
    "has too small a context": (
        whole(
            {
                "error": {
                    "code": 400,
                    "message": "request (50031 tokens) exceeds the available context size (1024 tokens)",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 50031,
                    "n_ctx": 1024,
                }
            },
            400,
        ),
        "50031",
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_broken_server_is_one_line_and_exit_1(cli, name) -> None:
    reply, word = SERVERS[name]
    with ChatServer(reply) as server:
        done = cli("ask", "x" * 100_000 if "context" in name else "x", "--model", server.url)
    assert done.code == 1
    assert word in done.err
    assert len(done.err.splitlines()) == 1


def test_a_server_that_is_down(cli) -> None:
    done = cli("ask", "x", "--model", "http://127.0.0.1:9/v1")
    assert done.code == 1
    assert "127.0.0.1:9" in done.err


def test_a_server_that_hangs_is_given_up(cli) -> None:
    with ChatServer(stream(Hang())) as server:
        done = cli("ask", "x", "--model", server.url, "--idle-timeout", "0.3")
    assert done.code == 1
    assert "hangs" in done.err


def test_a_file_that_is_no_gguf(cli, tmp_path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model at all")
    done = cli("ask", "x", "--model", path)
    assert done.code == 2
    assert "GGUF" in done.err
    assert str(path) in done.err


def test_a_dash_answers_one_question_a_line(cli, server, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("First?\n\nSecond?\n"))
    done = cli("ask", "-", "--model", server.url, "--answer", "number", "--strategy", "single", "--seed", 1, "--json")
    results = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, [result["answer"] for result in results]) == (0, ["42", "42"])
    assert [call.body["messages"][-1]["content"] for call in server.calls] == ["First?", "Second?"]
    assert sum(seen.path == "/v1/models" for seen in server.seen) == 1  # the engine was opened once


def test_a_question_that_fails_does_not_end_the_others(cli, monkeypatch) -> None:
    def answer(seen: Seen) -> Reply:
        return refusal("too long", 400) if "Second" in str(seen.body["messages"]) else chat(["391"])

    monkeypatch.setattr("sys.stdin", io.StringIO("First?\nSecond?\nThird?"))
    with ChatServer(answer) as server:
        done = cli("ask", "-", "--model", server.url, "--answer", "number", "--strategy", "single", "--json")
    first, second, third = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, first["answer"], third["answer"]) == (1, "391", "391")
    assert "too long" in second["error"]
    assert "outthink ask: " in done.err


def test_a_line_without_a_readable_answer_is_told_by_the_exit_code(cli, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("First?\n"))
    with ChatServer(chat(["no idea"])) as server:
        done = cli("ask", "-", "--model", server.url, "--answer", "number", "--strategy", "single")
    assert done.code == 3
    assert "no readable answer" in done.err


def test_a_flag_that_is_wrong_ends_all_lines(cli, server, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("First?\nSecond?\n"))
    done = cli("ask", "-", "--model", server.url, "--strategy", "magic")
    assert (done.code, done.out, server.calls) == (2, "", [])
    assert len(done.err.strip().splitlines()) == 1
