"""Plugins of other distributions: found when asked for, refused in one line, and never in anybody's way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import outthink as ot
from outthink.answers import grade, read_sync
from outthink.cli.main import main
from outthink.controller.plugins import load_plugins
from outthink.controller.verifier import open_verifier
from outthink.core import plugins
from outthink.core.errors import BadInput, Unsupported
from outthink.engines.locate import locate
from outthink.strategies import Spec, registry, strategies
from support.plugins import install
from support.recorded import DEMO, needs_demo

STRATEGY = '''
import outthink as ot


async def first(session, request, *, n=4):
    """The first sample that can be read."""
    async for sample in session.sample(request, n=n):
        if sample.answer is not None:
            return ot.Verdict(sample.answer, sample.text)
    return ot.Verdict(None, "")
'''
DECLARED = STRATEGY.replace("\nasync def", '\n@ot.strategy("declared", source="a test", stops_early=True)\nasync def')
ENGINE = """
import outthink as ot


def open_engine(rest):
    return ot.ScriptedEngine.sequence([rest], tokens=100)


def open_verifier(rest):
    from outthink.verifiers import FunctionVerifier

    return FunctionVerifier(lambda request, text: 1.0, name=f"liked-{rest}")


def read_roman(text):
    return str(["I", "II", "III"].index(text.strip()) + 1)


def fail(rest):
    raise OSError("no such\\ndevice")


number = 3
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the path; what is loaded from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def engine() -> ot.ScriptedEngine:
    return ot.ScriptedEngine.sequence([None, "7", "8"], tokens=100)


def test_a_strategy_is_loaded_when_its_name_is_asked_for(site: Path) -> None:
    install(site, "alpha", {"strategies": {"plugged-first": "alpha_code:first"}}, modules={"alpha_code": STRATEGY})
    assert "plugged-first" not in strategies()
    result = ot.ask_sync("?", model=engine(), answer="number", strategy="plugged-first:n=3", ahead=1)
    assert (result.answer, result.strategy) == ("7", "plugged-first:n=3")
    assert strategies()["plugged-first"].source == "alpha 1.0"


def test_a_strategy_keeps_the_traits_that_it_declares(site: Path) -> None:
    install(site, "alpha", {"strategies": {"declared": "declaring_code:first"}}, modules={"declaring_code": DECLARED})
    spec = Spec.parse("declared:n=9", importing=True)
    assert (spec.strategy.source, spec.waits, spec.n) == ("a test", True, 9)


def test_without_leave_nothing_is_looked_for(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "alpha", {"strategies": {"plugged-first": "alpha_code:first"}}, modules={"alpha_code": STRATEGY})
    monkeypatch.setattr(plugins, "installed", lambda *groups: pytest.fail("looked for plugins"))
    for text in ("plugged-first", "python:alpha_code:first", "python:alpha_code:first,n=2"):
        with pytest.raises(BadInput, match="is not known; use one of single"):
            Spec.parse(text)
    assert "alpha_code" not in sys.modules


def test_engines_verifiers_and_answers_go_by_name(site: Path) -> None:
    entries = {
        "engines": {"parrot": "beta_code:open_engine"},
        "verifiers": {"liked": "beta_code:open_verifier"},
        "answers": {"roman": "beta_code:read_roman"},
    }
    install(site, "beta", entries, modules={"beta_code": ENGINE})
    result = ot.ask_sync("?", model="parrot:12", answer="number", strategy="single")
    assert result.answer == "12"
    assert open_verifier("liked:much").id == "liked-much"
    assert open_verifier("liked").id == "liked-"
    assert read_sync("roman", "II").answer == "2"  # type: ignore[arg-type]
    assert read_sync("roman", "nothing").rule == "function-error"  # type: ignore[arg-type]
    assert grade("roman", "3", "III")  # type: ignore[arg-type]
    assert not grade("roman", "3", "II")  # type: ignore[arg-type]
    result = ot.ask_sync("?", model="parrot:II", answer="roman", strategy="best-of-n:n=1", verifier="liked")
    assert result.strategy == "best-of-n:n=1"
    assert plugins.loaded("answers") == ("roman",)


def test_two_of_one_name_are_refused_by_their_distributions(site: Path) -> None:
    for name in ("alpha", "beta"):
        install(site, name, {"strategies": {"twice": f"{name}_code:first"}}, modules={f"{name}_code": STRATEGY})
    with pytest.raises(BadInput) as caught:
        Spec.parse("twice", importing=True)
    assert "alpha 1.0" in str(caught.value)
    assert "beta 1.0" in str(caught.value)
    assert not {"alpha_code", "beta_code"} & set(sys.modules)


def test_our_own_names_are_refused_and_keep_working(site: Path) -> None:
    entries = {
        "strategies": {"single": "alpha_code:first"},
        "answers": {"number": "alpha_code:first"},
        "verifiers": {"judge": "alpha_code:first"},
        "engines": {"https": "alpha_code:first"},
    }
    install(site, "alpha", entries, modules={"alpha_code": STRATEGY})
    for plugin, problem in load_plugins():
        assert problem.count("outthink 0.") == problem.count("alpha 1.0") == 1
        assert problem.startswith(f"{plugin.field}: {plugin.name!r} is offered by")
    assert strategies()["single"].source == "baseline"
    assert "alpha_code" not in sys.modules


def test_a_declared_name_that_is_ours_is_refused_by_distribution(site: Path) -> None:
    source = DECLARED.replace('"declared"', '"esc"')
    install(site, "alpha", {"strategies": {"other": "esc_code:first"}}, modules={"esc_code": source})
    with pytest.raises(Unsupported) as caught:
        Spec.parse("other", importing=True)
    received = str(caught.value)
    assert "'esc' is offered by outthink 0." in received
    assert "entry point esc_code:first of alpha 1.0" in received
    assert "alpha 1.0;" in received or "by alpha 1.0" in received
    assert strategies()["esc"].source == "Li et al. 2401.10480"


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("missing_code:first", "ModuleNotFoundError: No module named 'missing_code'"),
        ("gamma_code:nobody", "AttributeError"),
        ("broken_code:first", "ZeroDivisionError: division by zero"),
        ("leaving_code:first", "SystemExit: 3"),
        ("gamma_code", "no function is named"),
        ("gamma_code:number", "is no function"),
    ],
)
def test_one_that_cannot_be_loaded_costs_one_line_where_it_is_asked_for(site: Path, target: str, part: str) -> None:
    modules = {"gamma_code": ENGINE, "broken_code": "1 / 0", "leaving_code": "import sys\nsys.exit(3)"}
    entries = {"strategies": {"bad": target}, "engines": {"parrot": "gamma_code:open_engine"}}
    install(site, "gamma", entries, modules=modules)
    with pytest.raises(Unsupported) as caught:
        Spec.parse("bad", importing=True)
    received = str(caught.value)
    assert received.startswith(f"strategy 'bad': entry point {target} of gamma 1.0 ")
    assert part in received
    assert "\n" not in received
    assert Spec.parse("single", importing=True).n == 1
    assert locate("parrot:1").model


def test_a_plugin_that_fails_later_is_one_line_too(site: Path) -> None:
    entries = {"engines": {"broken": "delta_code:fail"}, "strategies": {"plain": "delta_code:fail"}}
    install(site, "delta", entries, modules={"delta_code": ENGINE})
    with pytest.raises(Unsupported, match=r"model 'broken': the plugin failed \(OSError: no such device\)"):
        locate("broken:x")
    with pytest.raises(BadInput, match="'plain' is no async function"):
        Spec.parse("plain", importing=True)
    assert Spec.parse("single", importing=True).n == 1


def test_a_function_can_be_named_by_its_module(site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "beside_code.py").write_text(DECLARED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = Spec.parse("python:beside_code:first,n=3,style=no-thinking", importing=True)
    assert str(spec) == "python:beside_code:first,n=3,style=no-thinking"
    assert spec.canonical == "python:beside_code:first,style=no-thinking"
    assert str(Spec.parse(str(spec), importing=True)) == str(spec)
    assert spec.waits
    result = ot.ask_sync("?", model=engine(), answer="number", strategy="python:beside_code:first", ahead=1)
    assert (result.answer, result.strategy) == ("7", "python:beside_code:first,n=4")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("python:nowhere_code:first", "cannot be imported (ModuleNotFoundError"),
        ("python:json", "no function is named"),
        ("python:json:nobody", "cannot be imported (AttributeError"),
        ("python:json:dumps", "is no async function"),
        ("python:asyncio:to_thread", "does not take (session, request)"),
        ("python:", "cannot be imported"),
    ],
)
def test_what_is_no_strategy_is_named(text: str, part: str) -> None:
    with pytest.raises(BadInput) as caught:
        Spec.parse(text, importing=True)
    assert part in str(caught.value)
    assert str(caught.value).startswith(f"strategy: '{text}'")


def test_doctor_lists_them(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = {"alpha_code": STRATEGY}
    entries = {"strategies": {"plugged-first": "alpha_code:first"}, "answers": {"worse": "nowhere_code:read"}}
    install(site, "alpha", entries, version="2.1", modules=modules)
    assert main(["doctor", "--json"]) == 0
    result = {row["name"]: row for row in json.loads(capsys.readouterr().out)["findings"]}
    assert result["strategy plugged-first"] == {"name": "strategy plugged-first", "state": "yes", "detail": "alpha 2.1"}
    assert result["answer worse"]["state"] == "no"
    assert "of alpha 2.1 cannot be loaded" in result["answer worse"]["detail"]


def test_they_are_listed_with_the_strategies(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = '"""The first.\\n\\n    Args:\\n        n: how many are\\n            asked for.\\n    """'
    source = STRATEGY.replace('"""The first sample that can be read."""', about.encode().decode("unicode_escape"))
    entries = {"strategies": {"plugged-first": "alpha_code:first", "worse": "nowhere_code:read"}}
    install(site, "alpha", entries, version="2.1", modules={"alpha_code": source})
    assert main(["strategies", "--json"]) == 0
    told = capsys.readouterr()
    row = {row["name"]: row for row in json.loads(told.out)}["plugged-first"]
    assert (row["plugin"], row["summary"]) == ("alpha 2.1", "The first.")
    assert [each["description"] for each in row["parameters"]] == ["how many are asked for."]
    assert told.err.startswith("outthink strategies: strategy 'worse'")
    assert len(told.err.splitlines()) == 1
    assert main(["strategies"]) == 0
    assert "plugin alpha 2.1" in " ".join(capsys.readouterr().out.split())


def test_the_command_line_takes_them(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = {"engines": {"parrot": "beta_code:open_engine"}, "answers": {"roman": "beta_code:read_roman"}}
    install(site, "beta", entries, modules={"beta_code": ENGINE})
    (site / "named_code.py").write_text(STRATEGY)
    arguments = ["ask", "?", "--model", "parrot:III", "--answer", "roman", "--json"]
    assert main([*arguments, "--strategy", "python:named_code:first,n=2"]) in (0, 3)
    assert json.loads(capsys.readouterr().out)["strategy"] == "python:named_code:first,n=2"
    with pytest.raises(SystemExit):
        main(["ask", "?", "--answer", "runes"])
    assert "invalid choice: 'runes'" in capsys.readouterr().err


@needs_demo
def test_compare_replays_them_in_other_processes_too(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "alpha", {"strategies": {"plugged-first": "alpha_code:first"}}, modules={"alpha_code": STRATEGY})
    from outthink.evaluation.compare import CompareSettings, compare

    monkeypatch.setattr("outthink.evaluation.replay._SMALL", 0)
    demo = DEMO / "qwen2.5-coder-0.5b-instruct-q4--demo.parquet"
    names = ["plugged-first:n=2", "python:alpha_code:first,n=2"]
    specs = [Spec.parse(name, importing=True) for name in names]
    rows = {}
    for workers in (1, 2):
        for row in compare([demo], specs, CompareSettings(seeds=2, workers=workers)):
            rows[workers, row["strategy"]] = row["accuracy"]
    assert rows[1, "plugged-first"] == rows[2, "plugged-first"] == rows[1, "python:alpha_code:first"]
    assert rows[1, "plugged-first"] > 0


def test_importing_the_package_looks_for_nothing() -> None:
    code = "import sys, outthink; outthink.Request; sys.exit('importlib.metadata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
