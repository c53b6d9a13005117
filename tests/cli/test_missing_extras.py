"""A command that needs an extra says so in one line before it does anything; and what `pip install` is told to do."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement

from outthink.cli.main import VERBS
from outthink.core.plugins import EXTRAS, install_hint
from support.recorded import DEMO, needs_demo

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = DEMO / "qwen2.5-coder-1.5b-instruct-q4--demo.parquet"
PROBLEMS = ROOT / "data/demo/problems-demo.parquet"
VERIFIER = ROOT / "data/verifiers/smollm2-135m-gsm8k"
FIT = ("sklearn", "scipy", "threadpoolctl")
TORCH = ("torch", "transformers", "peft")
COMMANDS: list[tuple[str, tuple[str, ...], str]] = [
    ("calibrate", FIT, f"calibrate {SAMPLES} --out OUT"),
    ("calibrate", FIT, "router train ROUTES --out OUT"),
    ("calibrate", FIT, "router eval ROUTES --cross-fit"),
    ("schema", ("jsonschema",), "ask x --model URL --strategy best-of-n:n=2 --verifier schema:SCHEMA"),
    ("schema", ("jsonschema",), f"verify {SAMPLES} --problems {PROBLEMS} --verifier schema:SCHEMA --out OUT.jsonl"),
    ("transformers", TORCH, f"ask x --model URL --answer number --strategy weighted-vote:n=2 --verifier {VERIFIER}"),
    ("transformers", TORCH, f"verify {SAMPLES} --problems {PROBLEMS} --verifier {VERIFIER} --out OUT.jsonl"),
    ("train", TORCH, f"train prm --samples {SAMPLES} --problems {PROBLEMS} --out OUT"),
    ("datasets", ("reasoning_gym",), "record reasoning-gym:basic_arithmetic --model URL --out OUT.parquet"),
    ("hub", ("huggingface_hub",), "pull hf:owner/repo/file.gguf"),
    ("local", ("xllamacpp",), "ask x --model embedded"),
    ("local", ("xllamacpp",), "record QUESTIONS --model embedded --out OUT.parquet"),
    ("local", ("xllamacpp",), "batch QUESTIONS --model embedded"),
    ("local", ("xllamacpp",), "serve --model embedded --port 0 --ledger memory:"),
    ("serve", ("aiohttp", "jsonschema", "prometheus_client"), "serve --model URL --port 0 --ledger memory:"),
    ("serve", ("aiohttp", "jsonschema", "prometheus_client"), "keys list --ledger memory:"),
    ("report", ("matplotlib",), f"compare {DEMO} --plot OUT.pdf"),
    ("report", ("matplotlib",), f"compare {DEMO} --html OUT.html"),
    ("report", ("matplotlib",), "policy show no-such-policy --html OUT.html"),
    ("plan", ("numba",), "plan --trace no-such-trace --simulate"),
    ("report", ("matplotlib",), "plan --strategy single --traces no-such-traces --rate 1 --html OUT.html"),
    ("postgres", ("psycopg",), "serve --model URL --port 0 --ledger postgresql://localhost:9/x"),
    ("postgres", ("psycopg",), "keys list --ledger postgresql://localhost:9/x"),
    ("telemetry", ("opentelemetry",), "serve --model URL --port 0 --set telemetry.endpoint=http://127.0.0.1:9"),
]
CASES = [(extra, module, line) for extra, modules, line in COMMANDS for module in modules]


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Make a module unimportable, as if its distribution were not installed."""
    for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)


def files(folder: Path) -> dict[str, Path]:
    """Small inputs, by the words that stand for them in a command."""
    routes = {"prompt": ["a", "b", "c", "d"], "weak_correct": [0, 1, 0, 1], "strong_correct": [1, 1, 0, 1]}
    pq.write_table(pa.table(routes), folder / "routes.parquet")
    (folder / "schema.json").write_text('{"type": "object"}')
    (folder / "questions.jsonl").write_text('{"question": "What is 2 + 2?", "answer": "4"}\n')
    named = {"ROUTES": "routes.parquet", "SCHEMA": "schema.json", "QUESTIONS": "questions.jsonl", "OUT": "out"}
    return {word: folder / name for word, name in named.items()}


@needs_demo
@pytest.mark.parametrize(("extra", "module", "line"), CASES, ids=[f"{m}-{line[:24]}" for _, m, line in CASES])
def test_a_missing_extra_is_one_line_before_anything_is_done(
    extra: str, module: str, line: str, cli, server, monkeypatch, tmp_path
) -> None:
    for word, value in {**files(tmp_path), "URL": server.url}.items():
        line = line.replace(word, str(value))
    before = sorted(tmp_path.rglob("*.*"))
    hide(monkeypatch, module)
    done = cli(*line.split())
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert install_hint(extra) in done.err
    assert module in done.err
    assert not server.calls
    assert sorted(tmp_path.rglob("*.*")) == before


def test_doctor_lists_every_extra(cli, monkeypatch) -> None:
    hide(monkeypatch, "scipy")
    found = {row["name"]: row for row in cli("doctor", "--json").json["findings"]}
    assert {f"extra {extra}" for extra in EXTRAS} <= set(found)
    assert (found["extra calibrate"]["state"], found["extra calibrate"]["detail"]) == ("no", install_hint("calibrate"))


def test_extras_bring_what_is_looked_for() -> None:
    """Each module belongs to a distribution that the extra names, or to one that a named distribution requires."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(declared) == set(EXTRAS)
    brought = {"scipy": "scikit-learn", "threadpoolctl": "scikit-learn", "referencing": "jsonschema"}
    homes = packages_distributions()
    for extra, modules in EXTRAS.items():
        named = {Requirement(line).name.lower() for line in declared[extra]}
        if extra == "train":
            named |= {Requirement(line).name.lower() for line in declared["transformers"]}
        for module in modules:
            top = module.partition(".")[0]
            owners = {brought.get(top, top), *(home.lower() for home in homes.get(top, []))}
            assert any(owner.replace("_", "-") in {name.replace("_", "-") for name in named} for owner in owners), (
                module
            )


def test_the_hint_names_no_distribution_of_a_registry() -> None:
    assert install_hint("serve") == "pip install '.[serve]' in a checkout of outthink"
    assert "CPU build of torch" in install_hint("transformers")


@needs_demo
def test_an_installation_that_is_broken_is_one_line_too(cli, monkeypatch, tmp_path) -> None:
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy/__init__.py").write_text("raise ImportError('libblas.so.3: cannot open shared object file')")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("scipy", "sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    done = cli("calibrate", SAMPLES, "--out", tmp_path / "policy.json")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "libblas.so.3" in done.err


WALK = {
    "ask": "ask x --model embedded",
    "serve": "serve --print-config",
    "keys": "keys list --ledger memory:",
    "batch": "batch QUESTIONS --model embedded",
    "compare": f"compare {SAMPLES} --strategy single --seeds 1",
    "record": "record QUESTIONS --model embedded --out OUT.parquet",
    "verify": f"verify {SAMPLES} --problems {PROBLEMS} --verifier confidence --out OUT.parquet",
    "label": f"label {SAMPLES} --problems {PROBLEMS} --model embedded --out OUT.parquet",
    "train": f"train prm --samples {SAMPLES} --problems {PROBLEMS} --out OUT",
    "calibrate": f"calibrate {SAMPLES} --out OUT",
    "policy": "policy show SCHEMA",
    "router": "router train ROUTES --out OUT",
    "plan": "plan --prompt-tokens 9 --output-tokens 9 --max-sequences 4 --step-seconds 0.1 --rate 1 --json",
    "feedback": "feedback OUT",
    "strategies": "strategies",
    "doctor": "doctor",
    "models": "models --offline",
    "pull": "pull hf:owner/repo/file.gguf",
    "cache": "cache path",
}
"""A command of every verb, those that need no extra too."""
ALONE = """
import contextlib, io, json, sys, traceback
hidden = set(json.loads(sys.argv[1]))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from outthink.cli.main import main

for verb, line in json.loads(sys.argv[2]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(line.split())
        except SystemExit as leaving:
            code = leaving.code
        except BaseException:
            code, err = "traceback", io.StringIO(traceback.format_exc())
    print(json.dumps([verb, code, err.getvalue()]))
"""


@needs_demo
def test_no_verb_ends_in_a_traceback_without_any_extra(tmp_path, monkeypatch) -> None:
    """In an interpreter of its own, in which nothing has been imported before."""
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    assert set(WALK) == set(VERBS)
    lines = dict(WALK)
    for word, value in files(tmp_path).items():
        lines = {verb: line.replace(word, str(value)) for verb, line in lines.items()}
    hidden = sorted({module.partition(".")[0] for modules in EXTRAS.values() for module in modules})
    command = [sys.executable, "-c", ALONE, json.dumps(hidden), json.dumps(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    told = {verb: (code, err) for verb, code, err in map(json.loads, done.stdout.splitlines())}
    assert set(told) == set(VERBS)
    wrong = {verb: found for verb, found in told.items() if found[0] not in (0, 2)}
    assert not wrong
    need = {"ask", "serve", "keys", "batch", "record", "train", "calibrate", "router", "pull"}
    assert {verb for verb, (_, err) in told.items() if "in a checkout of outthink" in err} == need
