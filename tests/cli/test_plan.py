"""`outthink plan`: figures by flags, from a trace, by a data sheet, simulated; and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.model_configs import LLAMA_3_8B

LENGTHS = ("--prompt-tokens", 256, "--output-tokens", 128)
SERVER = ("--chunk", 256, "--kv-tokens", 40_000, "--step-seconds", 0.02)
BASIC = ("plan", *LENGTHS, *SERVER, "--rate", 10)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.parquet"
    arrival = [0.2 * at for at in range(200)]
    pq.write_table(pa.table({"arrival": arrival, "prompt_tokens": [256] * 200, "output_tokens": [128] * 200}), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "llama"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(LLAMA_3_8B))
    return path


def test_json_has_the_documented_figures(cli: Callable[..., Any]) -> None:
    done = cli(*BASIC, "--json")
    assert done.code == 0, done.err
    assert done.json["g"] == 41_280
    assert round(done.json["ceiling_requests_per_second"], 2) == 48.45
    assert round(done.json["reservation_requests_per_second"], 3) == 40.375
    assert round(done.json["effective_requests_per_second"], 2) == 47.98
    assert done.json["batch_at_saturation"] == 125.0
    assert done.json["gpus"] == done.json["gpus_reservation"] == 1
    assert done.json["stable"] is True


def test_the_table_says_what_is_needed(cli: Callable[..., Any]) -> None:
    done = cli(*BASIC)
    assert done.code == 0
    for part in ("GPUs", "memory", "48.45/s", "47.98/s", "41,280"):
        assert part in done.out


def test_a_trace_brings_its_own_rate(cli: Callable[..., Any], trace: Path) -> None:
    done = cli("plan", "--trace", trace, *SERVER, "--json")
    assert done.json["rate"] == pytest.approx(200 / 39.8)
    faster = cli("plan", "--trace", trace, *SERVER, "--rate", 100, "--json")
    assert faster.json["gpus"] == 3
    assert faster.json["stable"] is False


def test_a_model_on_a_gpu_by_its_data_sheet(cli: Callable[..., Any], model: Path) -> None:
    server = ("--model", model, "--gpu", "h100", "--gpu-hour", 2.5, "--slo", "ttft=0.5,tpot=0.05")
    done = cli("plan", *LENGTHS, *server, "--rate", 40, "--json")
    assert done.code == 0, done.err
    assert 400_000 < done.json["kv_tokens"] < 430_000
    assert done.json["usd_per_hour"] == 2.5 * max(done.json["gpus"], done.json["slo"]["gpus"])
    assert done.json["watts_source"] == "modelled"
    assert any("data sheet" in note for note in done.json["notes"])
    two = cli("plan", *LENGTHS, *server, "--rate", 40, "--tensor-parallel", 2, "--json")
    assert two.json["gpus"] % 2 == 0
    assert any("all-reduces" in note for note in two.json["notes"])


def test_slots_are_enough(cli: Callable[..., Any]) -> None:
    done = cli("plan", *LENGTHS, "--max-sequences", 4, "--step-seconds", 0.02, "--rate", 0.5, "--json")
    assert done.json["binding"] == "sequences"
    assert done.json["kv_tokens"] is None


def test_a_simulation_agrees_with_the_formulas(cli: Callable[..., Any]) -> None:
    done = cli(*BASIC, "--simulate", "--requests", 3000, "--json")
    assert done.code == 0, done.err
    simulated = done.json["simulated"]
    assert simulated["requests"] == 3000
    assert simulated["saturation_requests_per_second"] == pytest.approx(
        done.json["ceiling_requests_per_second"], rel=0.05
    )
    assert simulated["e2e"]["mean"] == pytest.approx(done.json["e2e"]["mean"], rel=0.05)
    assert simulated["tpot"]["p95"] == pytest.approx(0.02)
    assert simulated["preemptions"] == simulated["wasted_tokens"] == 0
    again = cli(*BASIC, "--simulate", "--requests", 3000, "--json")
    assert again.json["simulated"] == simulated
    lossy = cli("plan", *LENGTHS, "--chunk", 256, "--kv-tokens", 8000, "--step-seconds", 0.02, "--rate", 9.6,
                "--gpus", 1, "--simulate", "--preempt", "restart", "--requests", 2000, "--json")  # fmt: skip
    assert lossy.json["simulated"]["wasted_tokens"] > 0


def test_a_trace_is_simulated_as_it_arrived(cli: Callable[..., Any], trace: Path) -> None:
    done = cli("plan", "--trace", trace, *SERVER, "--simulate", "--json")
    assert done.json["simulated"]["requests"] == 200
    assert done.json["simulated"]["mean_queue"] == pytest.approx(0, abs=0.2)
    refused = cli("plan", "--trace", trace, *SERVER, "--simulate", "--requests", 201)
    assert (refused.code, "--requests" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--rate", 0), ("--rate", "0")),
        (("--rate", -1), ("--rate", "-1")),
        (("--rate", "nan"), ("--rate",)),
        (("--kv-tokens", 0), ("--kv-tokens",)),
        (("--kv-tokens", 200), ("384",)),
        (("--max-sequences", 0), ("--max-sequences",)),
        (("--utilisation", 1.5), ("utilisation", "1.5")),
        (("--gpus", 0), ("--gpus",)),
        (("--gpu-hour", -2), ("--gpu-hour",)),
        (("--gpu", "h1000"), ("h1000", "H100")),
        (("--model", "no-such-model"), ("no-such-model",)),
        (("--slo", "fast"), ("--slo",)),
        (("--step-seconds", 0), ("--step-seconds",)),
        (("--speed", "none.json"), ("--step-seconds", "--speed")),
        (("--trace", "none.parquet"), ("--prompt-tokens", "--trace")),
        (("--kv-type", "int3"), ("--kv-type",)),
        (("--prompt-tokens", "many"), ("--prompt-tokens", "many")),
    ],
)
def test_bad_input_is_one_line(cli: Callable[..., Any], arguments: tuple[Any, ...], parts: tuple[str, ...]) -> None:
    done = cli(*BASIC, *arguments)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    for part in parts:
        assert part in done.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "--step-seconds"),
        (SERVER, "--prompt-tokens"),
        ((*SERVER, "--prompt-tokens", 256), "--output-tokens"),
        ((*SERVER, *LENGTHS), "--rate"),
        ((*LENGTHS, "--rate", 1), "--step-seconds"),
        ((*LENGTHS, "--rate", 1, "--step-seconds", 0.02), "--kv-tokens"),
        ((*LENGTHS, "--rate", 1, "--gpu", "h100"), "--step-seconds"),
    ],
)
def test_what_is_missing_is_named(cli: Callable[..., Any], arguments: tuple[Any, ...], part: str) -> None:
    done = cli("plan", *arguments)
    assert done.code == 2
    assert part in done.err
    assert "Traceback" not in done.err


def test_a_gpu_too_small_says_what_would_do(cli: Callable[..., Any], model: Path) -> None:
    done = cli("plan", *LENGTHS, "--rate", 1, "--model", model, "--gpu", "l4", "--memory-share", 0.5)
    assert done.code == 2
    assert "GB short" in done.err
    assert "use 2 GPUs" in done.err


def test_lengths_beyond_the_context(cli: Callable[..., Any], model: Path) -> None:
    done = cli("plan", "--prompt-tokens", 9000, "--output-tokens", 10, "--rate", 1, "--model", model, "--gpu", "h100")
    assert done.code == 2
    assert "9,010" in done.err
    assert "8,192" in done.err


def test_the_page_of_a_plan_needs_no_matplotlib(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cli(*BASIC, "--html", tmp_path / "plan.html")
    assert done.code == 0, done.err
    page = (tmp_path / "plan.html").read_text()
    assert "<h1>Capacity for 10 requests a second</h1>" in page
    assert "48.45/s" in page
