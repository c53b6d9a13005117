"""The policy file: versioned, hashed, and the same bytes after a round trip.

Knows: the keys of the file, its refusals, and which task of it serves a model. Does not know how a rule decides, nor
how anything was fitted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from outthink.controller.policy.arms import HeldOut, JudgedArm, PolicyArm, Task
from outthink.controller.policy.judging import JUDGING
from outthink.controller.policy.promise import Promise
from outthink.controller.policy.regime import Regime
from outthink.controller.policy.rules import rule_from_json
from outthink.controller.stored import Json, JsonObject
from outthink.core.display import Displayed, Rows
from outthink.core.errors import BadInput
from outthink.core.paths import write_file

# JSON in one form only (sorted keys, one a line, long lists of numbers wrapped), so that equal contents are equal
# bytes and two versions can be compared in review.

_A_LINE = 24
"""Numbers or short texts of a list on one line."""


def canonical(value: Json) -> str:
    """The text of a JSON value, with a newline at its end. Raises ValueError for NaN and infinity."""
    return _text(value, 0) + "\n"


def digest(value: Json) -> str:
    """`sha256:` and the hash of the canonical text."""
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def _text(value: Json, depth: int) -> str:
    inner, outer = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        pairs = (f"{_scalar(str(key))}: {_text(value[key], depth + 1)}" for key in sorted(value))
        return "{" + inner + ("," + inner).join(pairs) + outer + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(item, (Mapping, list, tuple)) for item in value):
            return "[" + inner + ("," + inner).join(_text(item, depth + 1) for item in value) + outer + "]"
        lines = [", ".join(map(_scalar, value[at : at + _A_LINE])) for at in range(0, len(value), _A_LINE)]
        return "[" + ("," + inner).join(lines) + "]"
    return _scalar(value)


def _scalar(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


SCHEMA = 2
_AGAIN = "calibrate again (`outthink calibrate`)"


_READ = frozenset(field.name for field in fields(Task)) | {"verifier"}
# What a policy's file holds, as far as it is ever read. Rules and regimes have readers of their own.


@dataclass(frozen=True, slots=True)
class _StoredTarget:
    text: str
    margin: float
    by: Literal["tokens", "flops", "usd", "seconds"]
    risk: float


@dataclass(frozen=True, slots=True)
class _StoredModel:
    model: str
    served_as: str | None = None
    revision: str | None = None
    sampling: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _StoredPrices:
    date: str
    text: str


@dataclass(frozen=True, slots=True)
class _StoredCoverage:
    splits: int
    covered: int


@dataclass(frozen=True, slots=True)
class _StoredMean:
    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class _StoredDrift:
    agreement: _StoredMean
    sample_tokens: _StoredMean | None = None


@dataclass(frozen=True, slots=True)
class _StoredControl:
    strategy: str
    n: int
    held_out: HeldOut


@dataclass(frozen=True, slots=True)
class _StoredArm:
    n: int
    rule: dict[str, Any]
    held_out: HeldOut
    promise: Promise | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredVerifier:
    """How its scores weigh stands here, beside its name, and not in the arm's rule once more."""

    id: str
    model: str
    parameters: int | None
    aggregation: str
    temperature: float
    exponent: float
    tokens: float
    arm: _StoredArm


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredTask:
    model: str
    dataset: str | None
    answer: str | None
    arms: tuple[_StoredArm, ...]
    chosen: int
    regime: dict[str, Any]
    problems: frozenset[str]
    questions: frozenset[str]
    coverage: _StoredCoverage
    promise: Promise | None = None
    controls: tuple[_StoredControl, ...] = ()
    drift: _StoredDrift | None = None
    difficulty: dict[str, Any] | None = None
    verifier: _StoredVerifier | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredPolicy:
    created: str
    expires: str
    code: str
    seed: int
    folds: int
    models: int
    target: _StoredTarget
    pool: tuple[_StoredModel, ...]
    tasks: tuple[_StoredTask, ...]
    promise: Promise | None = None
    prices: _StoredPrices | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Policy(Displayed):
    """A policy: its content as JSON values, and what is read off it. Make one with `of`, `read` or `load`."""

    content: JsonObject
    id: str
    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, content: JsonObject, source: str = "policy") -> Policy:
        """From its content without id; BadInput, with the place in it, for a content that is no policy."""
        from outthink.validation import Border, read_json

        try:
            text = canonical(content)
        except (ValueError, TypeError, RecursionError) as error:
            raise BadInput(source, type(error).__name__, f"is no policy ({error})", _AGAIN) from None
        border = Border(source=source, remedy=_AGAIN)
        stored, content = read_json(_StoredPolicy, text, border), json.loads(text)  # missing parts are refused now
        tasks = []
        for place, (task, values) in enumerate(zip(stored.tasks, content["tasks"], strict=True)):
            with border.part("tasks", place):
                tasks.append(_task(task, values))
        if not tasks:
            raise BadInput(source, [], "has no tasks", _AGAIN)
        return cls(content, digest(content), tuple(tasks))

    @classmethod
    def read(cls, text: str, source: str = "policy") -> Policy:
        """From the text of a file. BadInput for another schema_version, or a content that was changed."""
        try:
            content = dict(json.loads(text))
            version, stated = content["schema_version"], content.pop("id")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput("policy", source, "is no policy", _AGAIN) from None
        # It fails closed: a policy of another version promises figures that nobody here has measured.
        if version != SCHEMA:
            raise BadInput("policy", source, f"has schema_version {version!r}, this version reads {SCHEMA}", _AGAIN)
        try:
            actual = digest(content)
        except ValueError:  # NaN or infinity, which no policy holds
            actual = ""
        if stated != actual:
            raise BadInput("policy", source, "was changed after it was written (its id differs)", _AGAIN)
        return cls.of(content, source)

    @classmethod
    def load(cls, path: Path | str, revisions: Mapping[str, str] | None = None) -> Policy:
        """From a file.

        Args:
            revisions: of the models at hand, those that are known; a policy of another one is refused.

        Raises BadInput for a file that cannot be read, and as `read` and `check_revision` do.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise BadInput("policy", str(path), "does not exist", "make one with `outthink calibrate`") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("policy", str(path), f"cannot be read ({error})", _AGAIN) from None
        policy = cls.read(text, str(path))
        for model, revision in (revisions or {}).items():
            policy.check_revision(model, revision)
        return policy

    @property
    def text(self) -> str:
        """What stands in its file."""
        return canonical({"id": self.id, **self.content})

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; BadInput where it cannot be written."""
        try:
            write_file(path, self.text)
        except OSError as error:
            raise BadInput("--out", str(path), f"cannot be written ({error.strerror})", "check the folder") from None

    @property
    def by(self) -> str:
        """The currency in which its operating point is the cheapest."""
        return str(self.content["target"]["by"])

    @property
    def verifiers(self) -> frozenset[str]:
        """Ids of the verifiers that its tasks were calibrated with."""
        return frozenset(task.judged.verifier for task in self.tasks if task.judged is not None)

    @property
    def created(self) -> str:
        """The day it was made."""
        return str(self.content["created"])

    def sampling(self, model: str) -> JsonObject | None:
        """How the calibration's samples of a model were drawn, None where that was not recorded."""
        sampling = self._member(model).get("sampling")
        return sampling if isinstance(sampling, dict) else None

    def _member(self, model: str) -> JsonObject:
        """What the pool says of a model, by its name in the samples or on its server."""
        named = (member for member in self.content["pool"] if model in (member["model"], member.get("served_as")))
        return next(named, {})

    def check_revision(self, model: str, revision: str | None) -> None:
        """BadInput where both revisions are known and differ."""
        known = self._member(model).get("revision")
        if revision is not None and known is not None and revision != known:
            raise BadInput("policy", f"{model} at {known}", f"is not the model at hand, which is at {revision}", _AGAIN)

    def of_model(self, model: str) -> list[Task]:
        """The tasks that were calibrated on this model, by its name in the samples or on its server."""
        served = {member["model"] for member in self.content["pool"] if member.get("served_as") == model}
        return [task for task in self.tasks if task.model == model or task.model in served]

    def display(self) -> tuple[str, Rows]:
        """What it chooses by task, and what that did on held-out problems."""
        rows = [("created", self.created), ("cheapest in", self.by)]
        for task in self.tasks:
            arm = task.arm(task.chosen)
            held = arm.held_out
            figures = f"accuracy {held.accuracy:.3f}, {held.tokens:,.0f} tokens on {held.problems:,} held-out problems"
            rows.append((f"{task.model} on {task.dataset}", f"{arm.name}: {figures}"))
        return f"policy {self.id}", rows


def _task(stored: _StoredTask, values: JsonObject) -> Task:
    """A task of a policy; its values are kept as they stand for what only reports read."""
    from outthink.validation import Border

    border = Border()
    arms = []
    for place, arm in enumerate(stored.arms):
        with border.part("arms", place):
            arms.append(_arm(arm, arm.rule))
    judged = None
    if (told := stored.verifier) is not None:
        judging = {name: getattr(told, name) for name in JUDGING}
        with border.part("verifier", "arm"):
            own = _arm(told.arm, {**told.arm.rule, "judging": judging})
        judged = JudgedArm(told.id, told.model, told.parameters, own)
    with border.part("regime"):
        regime = Regime.of(stored.regime)
    task = Task(
        model=stored.model,
        dataset=stored.dataset,
        answer=stored.answer,
        arms=tuple(sorted(arms, key=lambda arm: arm.n)),
        chosen=stored.chosen,
        regime=regime,
        problems=stored.problems,
        questions=stored.questions,
        other={key: value for key, value in values.items() if key not in _READ},
        promise=stored.promise,
        judged=judged,
    )
    if stored.chosen not in [arm.n for arm in arms]:
        raise BadInput("chosen", stored.chosen, "is the size of no arm", _AGAIN)
    return task


def _arm(stored: _StoredArm, rule: JsonObject) -> PolicyArm:
    """An arm under this rule."""
    from outthink.validation import Border

    with Border().part("rule"):
        read = rule_from_json(rule)
    return PolicyArm(stored.n, read, stored.held_out, stored.promise)
