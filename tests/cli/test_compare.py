"""`outthink compare`: rows, refusals and reports, on small files made here."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

KEYS = {
    "traces", "model", "strategy", "n", "accuracy", "accuracy_low", "accuracy_high", "tokens", "prompt_tokens",
    "cancelled_tokens", "flops", "seconds", "samples", "ahead", "seeds", "problems", "difference", "difference_low",
    "difference_high",
}  # fmt: skip


STEPS = {
    "schema": "outthink.step-profile/1", "gpu": "A10", "model": "toy", "base": [[0, 0.01]], "per_sequence": 0,
    "per_context": 0, "per_prefill": 0,
}  # fmt: skip
"""A server whose steps take 10 ms."""


def write(path: Path, *, problems: int = 6, samples: int = 8, greedy: bool = True, drop: tuple[str, ...] = ()) -> Path:
    """Problem i has i right samples of `samples`; tokens are 10, 20, ..."""
    rows = [
        {
            "problem_id": f"p{problem}",
            "sample_idx": index,
            "text": f"The answer is {'1' if right else index + 10}.",
            "n_tokens": 10 * (index + 1),
            "finish_reason": "stop",
            "prompt_tokens": 5,
            "mean_logprob": -0.1 * (index + 1),
            "chunk_conf": [10.0 + right] * (-(-10 * (index + 1) // 16)),
            "answer": "1" if right else str(index + 10),
            "extraction": "answer-is",
            "correct": right,
        }
        for problem in range(problems)
        for index in range(0 if greedy else 1, samples + 1)
        for right in [1 <= index <= problem]
    ]
    schema = {"sample_idx": pa.uint8(), "n_tokens": pa.uint16(), "prompt_tokens": pa.uint16()}
    table = pa.Table.from_pylist(rows).drop_columns(list(drop))
    for name, kind in schema.items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    parquet.write_table(table, path)
    return path


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    return write(tmp_path / "toy--numbers.parquet")


def rows_of(cli, traces: Path, *more: object) -> list[dict]:
    out = traces.with_suffix(".json")
    done = cli("compare", traces, "--seeds", 3, "--json", out, *more)
    assert done.code == 0, done.err
    return json.loads(out.read_text())


def pick(rows: list[dict], strategy: str, n: int) -> dict:
    return next(row for row in rows if (row["strategy"], row["n"]) == (strategy, n))


def test_rows_have_the_contracts_keys_and_the_ladder_ends_with_the_samples(cli, traces) -> None:
    rows = rows_of(cli, traces)
    assert all(set(row) >= KEYS for row in rows)
    assert {row["n"] for row in rows if row["strategy"] == "esc"} == {1, 2, 4, 8}
    assert {row["model"] for row in rows} == {"toy"}
    assert {row["traces"] for row in rows} == {"toy--numbers"}
    assert {row["strategy"] for row in rows} >= {"greedy", "oracle", "single", "deepconf"}


def test_all_samples_give_exact_figures(cli, traces) -> None:
    rows = rows_of(cli, traces)
    full = pick(rows, "self-consistency", 8)
    assert full["tokens"] == sum(range(20, 100, 10))
    assert full["prompt_tokens"] == 40
    assert full["accuracy"] == pytest.approx(
        5 / 6
    )  # five problems have votes for 1; one right sample wins by confidence
    assert pick(rows, "oracle", 8)["accuracy"] == pytest.approx(5 / 6)
    assert pick(rows, "oracle", 1)["accuracy"] == pytest.approx(sum(range(6)) / 8 / 6)
    assert pick(rows, "greedy", 1)["accuracy"] == 0
    assert full["flops"] is None
    assert full["difference"] == 0


def test_the_same_command_gives_the_same_rows(cli, traces) -> None:
    assert rows_of(cli, traces) == rows_of(cli, traces)


def test_replay_never_deals_out_the_greedy_sample(cli, traces) -> None:
    rows = rows_of(cli, traces, "--strategy", "self-consistency:n=8")
    assert pick(rows, "self-consistency", 8)["samples"] == 8
    assert pick(rows, "self-consistency", 8)["tokens"] == sum(range(20, 100, 10))


def test_n_beyond_the_recording_names_both_numbers(cli, traces) -> None:
    done = cli("compare", traces, "--strategy", "self-consistency:n=9")
    assert done.code == 2
    assert "9" in done.err
    assert "8 samples" in done.err


def test_regrade_reads_the_texts_again(cli, traces) -> None:
    table = parquet.read_table(traces)
    wrong = pa.array(["99"] * table.num_rows)
    spoilt = table.set_column(table.column_names.index("answer"), "answer", wrong)
    parquet.write_table(spoilt, traces)
    keys = [{"problem_id": f"p{i}", "question": "?", "answer": "1"} for i in range(6)]
    parquet.write_table(pa.Table.from_pylist(keys), traces.parent / "problems-numbers.parquet")
    rows = rows_of(cli, traces, "--regrade", "number")
    assert pick(rows, "self-consistency", 8)["accuracy"] == pytest.approx(5 / 6)


def test_files_without_the_columns_are_skipped_with_one_line(cli, traces, tmp_path) -> None:
    other = write(tmp_path / "other.parquet", drop=("correct",))
    done = cli("compare", traces, other, "--seeds", 1, "--strategy", "single")
    assert done.code == 0
    assert "correct" in done.err
    assert len(done.err.strip().splitlines()) <= 2
    alone = cli("compare", other)
    assert alone.code == 2


def test_a_truncated_file_is_one_line(cli, traces) -> None:
    traces.write_bytes(traces.read_bytes()[:-100])
    done = cli("compare", traces)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert str(traces) in done.err


def test_a_missing_file_and_bad_numbers(cli, traces) -> None:
    assert cli("compare", traces.with_name("none.parquet")).code == 2
    assert cli("compare", traces, "--seeds", 0).code == 2
    assert cli("compare", traces, "--speed", "stream=fast").code == 2
    refused = traces.with_name("profile.json")
    for content, told in (
        ('{"schema": "outthink.step-profile/9"}', "profile.json: schema"),
        ('{"stream": 0}', "speed stream"),
        ("[", "speed"),
        (json.dumps({**STEPS, "base": [[0, -1]]}), "profile.json: base[0][1]"),
        (json.dumps({**STEPS, "unit": "joules"}), "is a step profile in joules; give one in seconds"),
    ):
        refused.write_text(content)
        done = cli("compare", traces, "--speed", refused)
        assert (done.code, told in done.err) == (2, True), done.err
    assert cli("compare", traces, "--regrade", "poetry").code == 2


def test_nothing_is_half_written(cli, traces, tmp_path) -> None:
    done = cli("compare", traces, "--seeds", 1, "--strategy", "single", "--json", tmp_path / "nowhere" / "rows.json")
    assert done.code == 2
    assert not (tmp_path / "nowhere").exists()


def test_the_report_stands_alone(cli, traces, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"
    assert cli("compare", traces, "--seeds", 1, "--html", page, "--plot").code == 0
    text = page.read_text()
    assert "<svg" in text
    assert "https://" not in text.replace("http://www.w3.org", "")


@pytest.mark.parametrize(("name", "first"), [("plot.svg", b"<svg"), ("plot.png", b"\x89PNG"), ("plot.pdf", b"%PDF")])
def test_a_plot_is_a_file_by_its_suffix(cli, traces, tmp_path, name, first) -> None:
    pytest.importorskip("matplotlib")
    done = cli("compare", traces, "--seeds", 1, "--strategy", "self-consistency:n=4", "--plot", tmp_path / name)
    assert done.code == 0, done.err
    assert (tmp_path / name).read_bytes().startswith(first)
    assert "│" not in done.out, "nothing is drawn in the terminal"


@pytest.mark.parametrize(("name", "said"), [("plot.gif", ".svg, .png, .pdf"), ("none/plot.svg", "does not exist")])
def test_a_plot_that_cannot_be_written_is_refused_at_once(cli, traces, tmp_path, name, said) -> None:
    done = cli("compare", traces, "--plot", tmp_path / name)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "--plot" in done.err
    assert said in done.err


def test_slower_servers_take_longer(cli, traces) -> None:
    fast = pick(rows_of(cli, traces, "--strategy", "self-consistency:n=8"), "self-consistency", 8)
    slow_rows = rows_of(cli, traces, "--strategy", "self-consistency:n=8", "--speed", "stream=25", "--concurrency", 1)
    slow = pick(slow_rows, "self-consistency", 8)
    assert slow["seconds"] == pytest.approx(440 / 25 + 8 * 5 / 5000)
    assert fast["seconds"] < slow["seconds"]


def test_a_step_profile_is_a_time_model(cli, traces, tmp_path) -> None:
    profile = tmp_path / "steps.json"
    profile.write_text(json.dumps(STEPS))
    row = pick(rows_of(cli, traces, "--strategy", "self-consistency:n=8", "--speed", profile), "self-consistency", 8)
    # All at once, the longest of 90 tokens: a step for the prompt, and mostly another one that waits for it.
    assert row["seconds"] == pytest.approx(0.915, abs=0.005 + 1e-9)
    told = cli("compare", traces, "--strategy", "single", "--speed", profile, "--concurrency", 3).out
    assert "time model: steps of A10, toy (modelled), chunk 512, verifier 5000, concurrency 3" in told
