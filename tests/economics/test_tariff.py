"""Parameters by name, energy, and the tariff that joins them with a price."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.economics.tariff import Energy, Tariff, active_parameters


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("qwen2.5-coder-0.5b-instruct-q4", 494_032_768),
        ("qwen2.5-coder-1.5b-instruct-q4", 1_543_714_304),
        ("qwen2.5-coder-1.5b-instruct-q4--gsm8k.parquet", 1_543_714_304),
        ("Qwen/Qwen2.5-Coder-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", 1_543_714_304),
        ("/models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", 494_032_768),
        (r"C:\models\SmolLM2-135M-Instruct.Q4_1.gguf", 134_515_008),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
        ("smollm2:135m", 134_515_008),
        ("qwen2.5-coder:1.5b", 1_543_714_304),
        ("SmolLM2-1.7B-Instruct", None),
        ("Qwen2.5-Coder-14B", None),
        ("qwen2.5-coder-11.5b", None),
        ("qwen2.5-0.5b", None),
        ("qwen2.5-coder-1.5b/tokenizer.gguf", None),
        ("gpt-4o-mini", None),
        ("", None),
    ],
)
def test_parameters_by_name(name: str, count: int | None) -> None:
    assert active_parameters(name) == count


def test_energy_is_bounded_by_an_uncached_prompt() -> None:
    energy = Energy(prompt=0.5, completion=2.0)
    assert energy.cost(100, 60, 10) == 40.0
    assert energy.bound(100, 10) == 70.0
    with pytest.raises(BadInput, match="energy completion"):
        Energy(1.0, float("nan"))


def test_a_tariff_knows_what_it_was_given() -> None:
    tariff = Tariff.of("smollm2-135m", price=Price(1.0, 2.0), energy=Energy(0.5, 2.0))
    assert tariff.charge(1_000_000, 0, 1_000_000)[1] == 3.0
    assert tariff.usd_bound(1_000_000, 0) == 1.0
    assert tariff.joules_bound(100, 10) == 70.0
    assert tariff.charge(100, 60, 10)[::2] == (2 * 134_515_008 * 50, 40.0)


def test_a_tariff_does_not_guess() -> None:
    tariff = Tariff.of("mystery", url="http://localhost:8080/v1")
    assert tariff.usd_bound(1, 1) is None
    assert tariff.joules_bound(1, 1) is None
    assert tariff.charge(1, 0, 1) == (None, None, None)
    assert Tariff.of("gpt-4o-mini").price is None, "without a URL nobody is known to send an invoice"


def test_the_price_of_the_user_wins() -> None:
    url = "https://api.openai.com/v1"
    assert Tariff.of("gpt-4o-mini", url=url).price is not None
    assert Tariff.of("gpt-4o-mini", url=url, price=Price(7.0, 9.0)).charge(1_000_000, 0, 0)[1] == 7.0


@dataclass
class Known:
    """An engine as a tariff sees it."""

    model: str = "mystery"
    url: str | None = None
    parameters: int | None = None
    parameters_told: bool = False


def test_whose_count_of_parameters_is_believed() -> None:
    def of(engine: Known, parameters: int | None = None) -> tuple[int | None, str | None]:
        tariff = Tariff.of_engine(engine, parameters=parameters)
        return tariff.parameters, tariff.source

    named = Known("smollm2-135m", parameters=7)
    assert of(named, 5) == (5, "given")
    assert of(named) == (7, "file")
    assert of(Known(parameters=7)) == (7, "file")
    assert of(Known(parameters=7, parameters_told=True)) == (7, "server")
    assert of(Known()) == (None, None)


def test_a_count_that_a_server_told_is_marked() -> None:
    (note,) = Tariff.of_engine(Known(parameters=630_167_424, parameters_told=True)).notes
    assert note == "flops count the 630,167,424 parameters that the server of mystery tells"
    assert Tariff.of_engine(Known(parameters=7)).notes == ()
