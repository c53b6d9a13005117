"""From the text of `--verifier` to a verifier.

Knows: the names, and that anything else is a folder with a reward model or a server's address. Does
not know how any verifier judges; each is imported when it is asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import aclosing
from functools import lru_cache
from inspect import isfunction
from pathlib import Path

from outthink.answers import grade, read_sync
from outthink.controller.stored import JsonObject
from outthink.core.errors import BadInput
from outthink.core.plugins import make
from outthink.core.request import AnswerKind, AnswerReader, Request
from outthink.core.sample import MEASURES
from outthink.engines.protocol import Engine
from outthink.verifiers.protocol import Verifier

CHOICES = (
    "exact",
    "schema:FILE",
    "code",
    *MEASURES,
    "judge[:URL]",
    "a reward model's folder or hub name",
    "a reward model server's URL",
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def open_verifier(
    text: str,
    *,
    answer: AnswerKind | AnswerReader = "text",
    keys: Mapping[str, str] | None = None,
    code: Mapping[str, JsonObject] | None = None,
    engine: Engine | None = None,
) -> Verifier:
    """The verifier for NAME, PATH or URL.

    Args:
        answer: kind of answer, by which `exact` compares with the gold answer.
        keys: gold answers by `request.problem`, for `exact`.
        code: rows with `prompt`, `entry_point` and `test` by `request.problem`, for `code`.
        engine: where `judge` gets its tokens from, unless it names a URL.

    Raises BadInput for an unknown name (it lists the choices), a missing file or missing keys.
    """
    name, _, rest = text.partition(":")
    if text in MEASURES:
        from outthink.verifiers.checks import ConfidenceVerifier

        return ConfidenceVerifier(text)
    if text == "exact":
        return _exact(answer, keys)
    if text == "code":
        return _code(code)
    if name == "schema":
        return _schema(Path(rest))
    if name == "judge":
        return _judge(rest, engine)
    if text.startswith(("http://", "https://")):
        from outthink.verifiers.remote import RemoteRewardModel

        return RemoteRewardModel(text)
    if Path(text).is_dir() or _HUB_NAME.fullmatch(text):
        from outthink.engines.embedded.fetch import find_model
        from outthink.verifiers.reward_model import open_reward_model

        return open_reward_model(text, embedded=find_model())
    # Last, so that no plugin takes over a name of ours.
    plugged: Verifier | None = make("verifiers", name, rest)
    if plugged is not None:
        return plugged
    raise BadInput("verifier", text, "is not known", f"use one of {', '.join(CHOICES)}")


def verifier_id(text: str) -> str:
    """Id of the verifier for NAME, PATH or URL, of a folder of ours without reading its weights.

    Raises as `open_verifier` does, and EngineError where a server does not answer.
    """
    from outthink.verifiers.reward_model.opening import FILE, read_artefact

    if (Path(text) / FILE).is_file():
        return read_artefact(Path(text)).id
    verifier = open_verifier(text)

    async def told() -> str:
        async with aclosing(verifier):
            await verifier.prepare()  # a server tells its model's name, which is part of the id
            return verifier.id

    return asyncio.run(told())


def open_beside(text: str) -> Verifier:
    """The verifier for NAME, PATH or URL, for programs that serve: what loads a model or is a plugin's runs beside.

    It opens when it is prepared, a process of its own first, and raises then as `open_verifier` does.
    """
    ours = text in MEASURES or text.partition(":")[0] in ("exact", "code", "schema", "judge", "http", "https")
    if ours:
        return open_verifier(text)
    from outthink.verifiers.process import ProcessVerifier

    return ProcessVerifier(f"{__name__}:{open_verifier.__name__}", text)


def _exact(answer: AnswerKind | AnswerReader, keys: Mapping[str, str] | None) -> Verifier:
    """Compares the answer that a text gives with the gold answer of its problem."""
    from outthink.verifiers.checks import ExactVerifier

    if keys is None:
        raise BadInput("verifier", "exact", "has no gold answers", "give problems with a column answer (--problems)")

    def check(request: Request, text: str) -> bool:
        key = keys.get(request.problem or "")
        if key is None:
            raise BadInput("problem_id", request.problem, "has no gold answer", "add it to the problems")
        return grade(answer, read_sync(answer, text).answer, key)

    kind = (answer.__name__ if isfunction(answer) else "function") if callable(answer) else answer
    return ExactVerifier(check, id=f"exact-{kind}")


def _schema(path: Path) -> Verifier:
    """Checks the JSON in a text against the schema in a file."""
    from outthink.verifiers.checks import SchemaVerifier

    try:
        content = path.read_bytes()
        schema = json.loads(content)
    except OSError as error:
        raise BadInput("verifier", f"schema:{path}", f"cannot be read ({error.strerror})", "check the path") from None
    except (ValueError, RecursionError) as error:
        raise BadInput("verifier", f"schema:{path}", f"is not JSON ({error})", "mend the file") from None
    # Part of the id: scores by another schema in a file of this name are never mixed with these.
    digest = hashlib.sha256(content).hexdigest()[:12]
    return SchemaVerifier(schema, read=lambda text: read_sync("json", text).answer, id=f"schema-{path.stem}@{digest}")


def _code(problems: Mapping[str, JsonObject] | None) -> Verifier:
    """Runs the code in a text against the tests of its problem."""
    from outthink.verifiers.code import CodeProblem, CodeVerifier

    if problems is None:
        raise BadInput("verifier", "code", "has no tests", "give problems with prompt, entry_point and test")

    @lru_cache(maxsize=1024)
    def made(name: str) -> CodeProblem:
        row = problems[name]
        texts = [row[column] if isinstance(row[column], str) else "" for column in ("prompt", "entry_point", "test")]
        return CodeProblem(*texts)

    def problem(request: Request) -> CodeProblem:
        # One at a time: a problem without a test leaves its own samples unscored, not those of the others.
        if request.problem not in problems:
            raise BadInput("problem_id", request.problem, "has no code problem", "add it to the problems")
        return made(request.problem)

    return CodeVerifier(problem)


def _judge(url: str, engine: Engine | None) -> Verifier:
    """Asks the model at a URL, or the one of the engine at hand."""
    from outthink.configuration.models import choose_model
    from outthink.session.scoring import Asking
    from outthink.verifiers.judge import JudgeVerifier

    if url:
        return JudgeVerifier(Asking(choose_model(url).open(), owned=True))
    if engine is None:
        raise BadInput("verifier", "judge", "has no model to ask", "name one: judge:URL")
    return JudgeVerifier(Asking(engine))
