"""Policies of a few lines, made without any samples."""

from __future__ import annotations

from typing import Any

from outthink.controller.policy.artefact import SCHEMA, Policy
from outthink.controller.policy.regime import Regime
from outthink.controller.policy.rules import COEFFICIENTS
from outthink.controller.router.text import NAMES, hand_features
from support.samples import question

SIZES = (1, 2, 4, 8)


def arm(n: int, rule: dict[str, Any] | None = None) -> dict[str, Any]:
    """At n samples 0.5 + 0.05 x its place in SIZES is right, at 100 tokens and 20 of the prompt a sample."""
    accuracy = 0.5 + 0.05 * SIZES.index(n)
    figures = {"accuracy": accuracy, "accuracy_low": accuracy - 0.05, "accuracy_high": accuracy + 0.05}
    figures |= {"problems": 100, "spread": 0.4, "samples": float(n), "tokens": 100.0 * n, "tokens_low": 90.0 * n}
    figures |= {"tokens_high": 110.0 * n, "prompt_tokens": 20.0 * n, "seconds": 2.0 * n, "flops": 1e9 * n, "usd": None}
    return {"n": n, "rule": rule or {"kind": "fixed"}, "held_out": figures, "coverage": {"splits": 1, "covered": 1}}


def regime(**more: Any) -> Regime:
    """That of the questions of `support.samples`."""
    rows = [hand_features(question(number)) for number in range(60)]
    columns = list(zip(*rows, strict=True))
    mean = tuple(sum(column) / len(column) for column in columns)
    spread = tuple(
        max(0.1, (sum((value - middle) ** 2 for value in column) / len(column)) ** 0.5)
        for column, middle in zip(columns, mean, strict=True)
    )
    assert len(mean) == len(NAMES)
    known = {"answer": "number", "characters": (40.0, 160.0), "prompt_tokens": (10.0, 40.0), "prompts": (20.0, 5.0)}
    known |= {"sample_tokens": (50.0, 200.0), "mean": mean, "spread": spread, "distance": 4.0}
    return Regime(**(known | more))


def content(**more: Any) -> dict[str, Any]:
    """A policy's content: the model `tiny` on `sums`, fixed sizes 1, 2, 4 and 8, 4 chosen."""
    revision = more.pop("revision", None)
    rule = more.pop("rule", None)
    task = {
        "model": "tiny",
        "dataset": "sums",
        "answer": "number",
        "arms": [arm(n, rule) for n in SIZES],
        "chosen": 4,
        "controls": [],
        "coverage": {"splits": 1, "covered": 1},
        "regime": more.pop("regime", regime()).json(),
        "problems": [],
        "questions": [],
        "notes": [],
    }
    return {
        "schema_version": SCHEMA,
        "created": "2026-01-01",
        "expires": "2027-01-01",
        "code": "outthink 0",
        "seed": 0,
        "folds": 5,
        "models": 1,
        "pool": [{"model": "tiny", "served_as": "Tiny-Instruct.gguf", "revision": revision}],
        "target": {"text": "match=self-consistency@8", "margin": 0.005, "by": "tokens", "risk": 0.1},
        "tasks": [task],
    } | more


def policy(**more: Any) -> Policy:
    """The policy of this content."""
    return Policy.of(content(**more))


def carrying(verifier: str) -> Policy:
    """The usual policy with an arm that this verifier weighs the votes of."""
    made = content()
    (chosen,) = (arm for arm in made["tasks"][0]["arms"] if arm["n"] == 4)
    scale = {"logprob": [0.0, 1.0], "confidence": [0.0, 1.0], "tokens": [100.0, 10.0]}
    rule = {"kind": "linear-gain", "scale": scale, "horizon": 4, "sway": {"cut": -1.0}, "price": 0.5}
    rule["coefficients"] = [0.0] * COEFFICIENTS
    about = {"id": verifier, "model": "wise", "parameters": 10, "aggregation": "last", "temperature": 1.0}
    held = chosen["held_out"] | {"verifier_tokens": 50.0}
    arm = {**chosen, "rule": rule, "held_out": held}
    made["tasks"][0]["verifier"] = {**about, "exponent": 1.0, "tokens": 0.5, "arm": arm}
    return Policy.of(made)
