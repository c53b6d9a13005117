"""What one step of a continuous-batching server costs, in seconds or joules, and the files that say so.

A step gives every decoding sequence one token and reads a chunk of each prompt that is being read. Knows its cost as
a sum of four parts, and profiles kept for each GPU in the state folder. Does not know which calls run (the virtual
runner and the simulator do), or how a step is measured.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outthink.core.errors import BadInput, need_known
from outthink.core.paths import private_folder, state_dir, write_file
from outthink.core.request import need_amount
from outthink.economics.step_fit import fit_steps

SCHEMA = "outthink.step-profile/1"
Unit = Literal["seconds", "joules"]
_COST = "give a number of 0 or more"
_AGAIN = "mend the file, or measure and save it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """cost = base(tokens) + per_sequence x sequences + per_context x contexts + per_prefill x tokens of prompts.

    Args:
        base: (tokens, cost) by tokens computed in the step, decoding sequences and tokens of prompts: linear in
            between, constant before the first, the last slope beyond the last (if it rises). Two knots of the same
            tokens are a stair, at whose edge the first one holds.
        per_sequence: of a sequence in the step, whether it decodes, reads or waits for a prompt that another reads.
        per_context: of a token in the cache of a decoding sequence, the one it gains included.
        per_prefill: of a token of a prompt.
        unit: of all costs.
        chunk: tokens of a prompt that a sequence reads in one step.
        concurrency: sequences at once; more calls queue.
        judge: tokens a second that a verifier reads.
        gpu, model, engine, date: what was measured, and when (YYYY-MM-DD).
        measured: False for what was worked out.
        error: median relative error of the fit, None if there was none.

    Raises BadInput for numbers out of range and knots out of order.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    base: tuple[tuple[float, float], ...]
    per_sequence: float = 0.0
    per_context: float = 0.0
    per_prefill: float = 0.0
    unit: Unit = "seconds"
    chunk: int = 512
    concurrency: int = 256
    judge: float = 5000.0
    gpu: str | None = None
    model: str | None = None
    engine: str | None = None
    date: str | None = None
    measured: bool = False
    error: float | None = None

    def __post_init__(self) -> None:
        if not self.base:
            raise BadInput("base", list(self.base), "has no knots", "give (tokens, cost) of at least one")
        for place, knot in enumerate(self.base):
            for part, number in enumerate(knot):
                need_amount(f"base[{place}][{part}]", number, "is no finite number of 0 or more", _COST)
        for place, (before, after) in enumerate(zip(self.base, self.base[1:], strict=False), start=1):
            if after[0] < before[0]:
                raise BadInput(f"base[{place}][0]", after[0], "is below the knot before", "order knots by tokens")
        amounts = {"per_sequence": self.per_sequence, "per_context": self.per_context, "per_prefill": self.per_prefill}
        for name, amount in {**amounts, "error": self.error or 0.0}.items():
            need_amount(name, amount, "is no finite number of 0 or more", _COST)
        for name, count in (("chunk", self.chunk), ("concurrency", self.concurrency)):
            if not isinstance(count, int) or count < 1:
                raise BadInput(name, count, "is no whole number above 0", "give a whole number")
        need_amount("judge", self.judge, "is not a positive number", "give tokens a second", zero=False)
        need_known("unit", self.unit, ("seconds", "joules"))
        if self.date is not None and not _is_day(self.date):
            raise BadInput("date", self.date, "is no day", "write it as YYYY-MM-DD")

    @property
    def slope(self) -> float:
        """Cost of a token beyond the last knot."""
        (left, low), (right, high) = self.base[-2:] if len(self.base) > 1 else self.base * 2
        return max(0.0, (high - low) / (right - left)) if right > left else 0.0

    def fixed(self, tokens: float) -> float:
        """The base at so many tokens in the step."""
        knots = self.base
        place = bisect_left(knots, tokens, key=itemgetter(0))
        if place == 0:
            return knots[0][1]
        if place == len(knots):
            return knots[-1][1] + self.slope * (tokens - knots[-1][0])
        (left, low), (right, high) = knots[place - 1], knots[place]
        return high if tokens == right else low + (high - low) * ((tokens - left) / (right - left))

    @overload
    def cost(self, sequences: float, contexts: float, prefill: float = 0) -> float: ...
    @overload
    def cost(self, sequences: NDArray[Any], contexts: ArrayLike, prefill: ArrayLike = 0) -> NDArray[np.float64]: ...
    def cost(self, sequences: Any, contexts: Any, prefill: Any = 0) -> Any:
        """Of a step that gives `sequences` a token each, beside reading `prefill` tokens of prompts.

        Args:
            sequences, contexts, prefill: numbers, or arrays of one shape; `contexts` is the sum over sequences.
        """
        tokens = sequences + prefill
        fixed = self._fixed(np.asarray(tokens, np.float64)) if np.ndim(tokens) else self.fixed(tokens)
        return fixed + self.per_sequence * sequences + self.per_context * contexts + self.per_prefill * prefill

    def table(self, limit: int) -> NDArray[np.float64]:
        """The base at 0, 1, ... `limit` tokens."""
        return self._fixed(np.arange(limit + 1.0))

    def _fixed(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """`fixed` of many at once."""
        knots, costs = np.array(self.base).T
        place = np.searchsorted(knots, tokens, side="left").clip(1, max(1, knots.size - 1))
        right = place.clip(max=knots.size - 1)
        left = place - 1
        width = np.maximum(knots[right] - knots[left], 1e-9)  # of a stair almost nothing
        inside = np.clip((tokens - knots[left]) / width, 0.0, 1.0)
        beyond = np.maximum(tokens - knots[-1], 0.0) * self.slope
        between = np.where(inside == 1, costs[right], costs[left] + (costs[right] - costs[left]) * inside)
        return np.asarray(between + beyond)

    # As a time model (`engines.time_model`).

    @property
    def stream(self) -> float:
        """Tokens a second of a lone sequence whose cache is empty."""
        seconds = self.cost(1, 0)
        return 1 / seconds if seconds else math.inf

    @property
    def prefill(self) -> float:
        """Tokens a second at which a lone prompt is read, by whole chunks."""
        seconds = self.fixed(self.chunk) + self.per_sequence + self.per_prefill * self.chunk
        return self.chunk / seconds if seconds else math.inf

    @property
    def told(self) -> str:
        """What a report says of it."""
        of = ", ".join(name for name in (self.gpu, self.model, self.engine, self.date) if name)
        off = "" if self.error is None else f", median error {self.error:.1%}"
        return (
            f"steps of {of or 'an unnamed server'} ({'measured' if self.measured else 'modelled'}{off}), "
            f"chunk {self.chunk}, verifier {self.judge:g}, concurrency {self.concurrency}"
        )

    @classmethod
    def fit(cls, rows: ArrayLike, *, buckets: Sequence[float] = (), **about: Any) -> StepProfile:
        """From measured steps; `rows` and `buckets` as of `fit_steps`, the rest are fields beside the costs.

        Its `error` is the fit's. Raises BadInput as `fit_steps` does.
        """
        return cls(**asdict(fit_steps(rows, buckets)), **{"measured": True, **about})

    def to_json(self) -> dict[str, Any]:
        """What stands in its file."""
        return {"schema": SCHEMA, **asdict(self)}

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; BadInput where it cannot be written."""
        with _writing(path):
            write_file(path, _text(self.to_json()))

    @classmethod
    def load(cls, path: Path | str) -> StepProfile:
        """From a file; BadInput names it and what in it cannot be used."""
        return cls.of(_values(path), str(path))

    @classmethod
    def of(cls, values: Any, source: str = "step profile") -> StepProfile:
        """From the values of its JSON; `source` is what errors call them."""
        from outthink.validation import Border, read_values

        if not isinstance(values, dict):
            raise BadInput(source, values, "is no object", _AGAIN)
        if values.get("schema") != SCHEMA:
            raise BadInput(f"{source}: schema", values.get("schema"), f"is not {SCHEMA}", _AGAIN)
        fields = {name: value for name, value in values.items() if name != "schema"}
        return read_values(cls, fields, Border(source=source))


# Profiles of this machine's user, one file a GPU.


def stored_path(gpu: str) -> Path:
    """The file of a GPU's profiles, whatever its case and spaces."""
    name = "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in gpu.strip().lower())
    return state_dir() / "step-profiles" / f"{name.lstrip('.') or 'unnamed'}.json"


def stored_profiles(gpu: str) -> list[StepProfile]:
    """All that is kept for a GPU, in the order in which it came. Raises BadInput for a damaged file."""
    path = stored_path(gpu)
    if not path.exists():
        return []
    values = _values(path)
    if not isinstance(values, list):
        raise BadInput(str(path), values, "is no list of step profiles", _AGAIN)
    return [StepProfile.of(each, f"{path}: [{place}]") for place, each in enumerate(values)]


def store_profile(profile: StepProfile) -> Path:
    """Keep a profile beside the others of its GPU; BadInput where it does not say what it is of, or no room is."""
    about = {"gpu": profile.gpu, "model": profile.model, "engine": profile.engine, "date": profile.date}
    for name, value in about.items():
        if not value:
            raise BadInput(name, value, "is missing in the step profile", "say what was measured, and when")
    gpu = profile.gpu or ""
    path = stored_path(gpu)
    with _writing(path):
        private_folder(path.parent)
        write_file(path, _text([each.to_json() for each in [*stored_profiles(gpu), profile]]))
    return path


def newest_profile(gpu: str, model: str, engine: str | None = None, unit: Unit = "seconds") -> StepProfile | None:
    """The newest that is kept for a model (served by an engine) on a GPU, None for none."""
    found = [
        profile
        for profile in stored_profiles(gpu)
        if (profile.model, profile.unit) == (model, unit) and engine in (None, profile.engine)
    ]
    return max(reversed(found), key=lambda profile: profile.date or "", default=None)  # of one day the last


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _values(path: Path | str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput("step profile", str(path), f"cannot be read ({error.strerror})", "check the path") from None
    except (ValueError, RecursionError) as error:
        raise BadInput("step profile", str(path), f"is no JSON ({error})", _AGAIN) from None


def _text(values: Any) -> str:
    return json.dumps(values, indent=1) + "\n"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput("step profile", str(path), f"cannot be written ({error.strerror})", "check the folder") from None
