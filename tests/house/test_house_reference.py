"""Every flag, field, key, header, path, error code and variable of the program stands in the reference, and no other.

The names come from the program: parsers, dataclasses, the OpenAPI document, and codes in the source. Metrics are held
to their page where they are read from a running proxy (tests/serving/test_observability.py).
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from outthink.cli.main import VERBS, parser
from outthink.client.options import BatchOptions, CommonOptions, Options
from outthink.configuration.file import Alias, Written
from outthink.core.receipt import Entry, Receipt, Result
from outthink.serving.config.config import SECTIONS
from outthink.serving.config.sections import BackendConfig, keys_of
from outthink.serving.observe.logs import json_line
from outthink.serving.openapi import document
from outthink.serving.protocols import RequestRecord

DOCS = Path(__file__).resolve().parents[2] / "docs"
SOURCE = DOCS.parent / "src" / "outthink"
_CODE = re.compile(r"`([^`]+)`")


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next of its level or above. ValueError where there is none."""
    level = len(heading) - len(heading.lstrip("#"))
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    start = text.index(f"\n{heading}\n") + len(heading) + 2
    return re.split(rf"^#{{1,{level}}} ", text[start:], maxsplit=1, flags=re.M)[0]


def first_column(text: str) -> set[str]:
    """The code spans of the first column of a section's tables."""
    return {name for line in text.splitlines() if line.startswith("| `") for name in _CODE.findall(line.split("|")[1])}


def own(page: str, heading: str) -> str:
    """A section without those below it."""
    return re.split(r"^#{3,} ", section(page, heading), maxsplit=1, flags=re.M)[0]


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A command and those below it, with what is written for each after `outthink`."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below, command in action.choices.items():
                yield from commands(command, f"{name} {below}".strip())


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_of_a_verb_is_in_its_section(verb: str) -> None:
    text = section("cli.md", f"## {verb}")
    for name, command in commands(parser()):
        if name.partition(" ")[0] != verb:
            continue
        assert name == verb or f"\n### {name}\n" in text
        actions = [action for action in command._actions if not isinstance(action, argparse._SubParsersAction)]
        named = [action.option_strings or [shown(action)] for action in actions if action.dest != "help"]
        assert not [each for names in named for each in names if f"`{each}" not in text]


def shown(action: argparse.Action) -> str:
    """An argument without a flag, as help writes it."""
    return str(action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else action.dest.upper()))


def test_shared_flags_are_explained() -> None:
    """A flag that a verb's section only names stands among those of several verbs, with its meaning."""
    shared = section("cli.md", "## Flags of several verbs")
    for verb in VERBS:
        for line in section("cli.md", f"## {verb}").splitlines():
            if line.startswith("- and "):
                assert not [name for name in _CODE.findall(line) if not re.search(rf"`{name}[ `].*: \w", shared)]


def test_every_key_of_the_configuration_is_there() -> None:
    kinds: dict[str, type] = {"": Written, "models.NAME": Alias, "serve.backends": BackendConfig}
    kinds |= {f"serve.{name}": kind for name, kind in SECTIONS.items()}
    parts = re.split(r"^\*\*", section("configuration.md", "## All keys"), flags=re.M)[1:]
    told = {part.partition("]")[0].removeprefix("`[") if part.startswith("`[") else "": part for part in parts}
    assert {name: set(re.findall(r"^- `(\w+)[^`]*`: \S", part, re.M)) for name, part in told.items()} == {
        name: set(keys_of(kind)) for name, kind in kinds.items()
    }


def test_every_field_of_a_result_is_there() -> None:
    entry = Entry("router", "m", "finished", router="r", chances={})
    result = Result("1", "1", "single", "m", "finished", Receipt((entry,), 0.0)).json()
    assert first_column(section("reference.md", "## Result")) == set(result)
    assert first_column(own("reference.md", "## Receipt")) == set(result["receipt"])
    assert first_column(section("reference.md", "### Entries")) == set(result["receipt"]["entries"][0])
    assert set(entry.json()) == {field.name for field in fields(Entry)}


def test_every_field_of_a_stored_request_and_of_its_line_in_the_log_is_there() -> None:
    text = section("reference.md", "## Stored requests")
    assert first_column(text) == {field.name for field in fields(RequestRecord)}
    record = RequestRecord("rcpt-1", "key-1", "/v1/chat/completions", "m", "m", "single", "finished", 0.0, 1.0, 200)
    more, less = (_CODE.findall(part) for part in text.partition("A line of the")[2].partition("|")[0].split(" but "))
    assert (first_column(text) | set(more)) - set(less) == set(json.loads(json_line(record)))


def test_every_path_header_and_wish_is_there() -> None:
    text = section("reference.md", "## Endpoints and headers")
    found, paths = first_column(text), document((), ())["paths"]
    assert not set(paths) - found
    replies = [method for path in paths.values() for method in path.values()]
    headers = {each["name"] for reply in replies for each in reply.get("parameters", ()) if each["in"] == "header"}
    headers |= {name for reply in replies for each in reply["responses"].values() for name in each.get("headers", ())}
    body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    wishes = body["properties"]["outthink"]["properties"]
    assert not set(wishes) - first_column((DOCS / "serve.md").read_text(encoding="utf-8"))
    headers |= {name for name in constants(SOURCE / "serving") if re.fullmatch(r"x-outthink-[a-z]+", name)}
    assert len(headers) >= 5
    assert not headers - found


def test_every_option_is_explained_and_listed() -> None:
    """What a class of options does not inherit is listed by name, since a typed dictionary does not tell."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for kind in (Options, BatchOptions):
        own = set(kind.__annotations__) - set(CommonOptions.__annotations__)
        listed = re.search(rf"outthink\.{kind.__name__}\n   :members: (.*)", text)
        assert listed is not None
        assert set(listed[1].split(", ")) == own
    for kind in (CommonOptions, Options, BatchOptions):
        assert not [name for name in set(kind.__annotations__) if f"{name}: " not in explained(kind)]


def explained(kind: type) -> str:
    """The docstrings of a class of options and of what it inherits from."""
    return f"{kind.__doc__}\n{CommonOptions.__doc__}"


def constants(folder: Path) -> set[str]:
    """Every text in the source."""
    nodes = (node for path in folder.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def codes(path: Path) -> Iterator[str]:
    """The error codes that a module gives: the argument `code` wherever it is passed or has a default."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = [(node.targets[0], node.value) for node in tree.body if isinstance(node, ast.Assign)]
    for target, value in tuple(assigned):
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            assigned += zip(target.elts, value.elts, strict=True)
    named = {ast.unparse(target): value for target, value in assigned}
    for node in ast.walk(tree):
        given: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            given += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            given += node.args[2:] if ast.unparse(node.func) == "bad_body" else []
        elif isinstance(node, ast.FunctionDef):
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            given += [default for argument, default in pairs if argument.arg == "code"]
        for value in given:
            value = named.get(ast.unparse(value), value) if isinstance(value, ast.Name) else value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def test_every_error_code_is_there() -> None:
    given = {code for path in (SOURCE / "serving").rglob("*.py") for code in codes(path)}
    assert len(given) > 30
    assert first_column(section("reference.md", "## Errors")) == given


def test_every_variable_is_there() -> None:
    known = {name for name in constants(SOURCE) if re.fullmatch(r"OUTTHINK_[A-Z]+", name)} - {"OUTTHINK_PROBE"}
    assert {"OUTTHINK_MODEL", "OUTTHINK_CONFIG", "OUTTHINK_CACHE"} < known
    assert not known - first_column((DOCS / "cli.md").read_text(encoding="utf-8"))
