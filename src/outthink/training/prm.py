"""Trains a verifier from recorded samples: read, split by problem, train, choose, store.

Knows: the order of the steps, what makes two trainings the same, and what `training.json` says. The parts know the
rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from outthink.core.errors import BadInput
from outthink.core.plugins import need_extra
from outthink.evaluation.sample_file import JsonObject
from outthink.training.base import BaseShape, Model, active_parameters, build, compress, require, write_verifier
from outthink.training.examples import (
    SEPARATOR,
    Collection,
    Examples,
    Floats,
    Labels,
    Targets,
    encode_all,
    read_solutions,
)
from outthink.training.judgement import (
    choose,
    curve,
    scored,
    solution_metrics,
    solution_scores,
    step_logits,
    step_metrics,
)
from outthink.training.loop import Checkpoint, TrainingRun, TrainingSettings
from outthink.verifiers.protocol import Aggregation
from outthink.verifiers.reward_model.opening import FILE, Artefact

_SIZES = (1, 4, 8)
_TINY_PROBLEMS, _TINY_SAMPLES = 30, 8  # 80 problems with all samples took minutes on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """What to train from what, and how.

    Args:
        samples, problems, steps: the data card's files; without `steps` it is an outcome model.
        out: the artefact's folder.
        labels: see `read_labels`.
        holdout: share of the problems that is never learnt from.
        limit: only the first so many problems.
        per_problem: only the first so many samples of each.
        delta: store a full fine-tune as an adapter of this rank; the stored one is what is judged.
        base_name: how the artefact names its base; None for `shape.base`.
        command: kept with the artefact, so that it can be trained again.
    """

    samples: Path
    problems: Path
    out: Path
    steps: Path | None = None
    labels: Labels = "soft"  # these converge to human labels, hard ones do not
    holdout: float = 0.05
    limit: int | None = None
    per_problem: int | None = None
    max_context: int = 2048
    targets: Targets = field(default_factory=Targets)
    shape: BaseShape = field(default_factory=BaseShape)
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    base_name: str | None = None
    delta: int | None = None
    command: str = ""

    def about(self) -> JsonObject:
        """What makes two trainings the same, in JSON."""
        files = {"samples": self.samples.name, "problems": self.problems.name}
        if self.steps is not None:
            files["steps"] = self.steps.name
        chosen: JsonObject = {
            "labels": self.labels,
            "holdout": self.holdout,
            "limit": self.limit,
            "max_context": self.max_context,
            "delta": self.delta,
        }
        if self.per_problem is not None:
            chosen["per_problem"] = self.per_problem
        shape = {**asdict(self.shape), "base": self.name}
        return {**files, **chosen, "targets": asdict(self.targets), "shape": shape, **self.settings.about()}

    @property
    def name(self) -> str:
        """What the artefact calls its base."""
        return self.base_name or self.shape.base


def split(collection: Collection, share: float, seed: int) -> tuple[Collection, Collection]:
    """Training and held-out part; a problem is in one of them with all its solutions.

    Raises BadInput for a share outside 0...0.9, or one that leaves either part empty.
    """
    problems = collection.problems
    count = round(share * len(problems))
    if not 0 < share <= 0.9 or not 0 < count < len(problems):
        raise BadInput("--holdout", share, f"leaves nothing of {len(problems)} problems", "give 0.05 and more problems")
    # By problem, never by solution: solutions of one problem share its answer.
    drawn = np.random.default_rng(seed).permutation(len(problems))[:count]
    held = {problems[i] for i in drawn.tolist()}
    return collection.only(set(problems) - held), collection.only(held)


def train_prm(plan: TrainingPlan, *, say: Callable[[str], None] = print) -> JsonObject:
    """Train and store a verifier; returns what `training.json` holds.

    A killed run goes on from its last checkpoint when called again with the same plan. Raises BadInput for
    a folder that holds a verifier already, another run's checkpoint, or unusable data.
    """
    need_extra("train", "verb", "train")
    require()
    if (plan.out / FILE).exists():
        raise BadInput("--out", str(plan.out), "holds a verifier already", "give another name or remove it")
    sizes = {"limit": plan.limit, "per_problem": plan.per_problem}
    collection = read_solutions(plan.samples, plan.problems, plan.steps, labels=plan.labels, **sizes)
    learnt, held = split(collection, plan.holdout, plan.settings.seed)
    model, tokenizer = build(plan.shape)
    examples, judged = (
        encode_all(part, tokenizer, targets=plan.targets, max_context=plan.max_context) for part in (learnt, held)
    )
    say(_summary(collection, examples, judged))
    settings = plan.settings

    def after(epoch: int) -> JsonObject:
        logits = step_logits(model, judged, device=settings.device, dtype=settings.dtype, micro=settings.micro_tokens)
        # Aggregation and temperature are chosen once, on the weights that are stored: epochs are compared without.
        figures = _judge(held, judged, logits, "last", 1.0)
        say(f"epoch {epoch}: held out {_line(figures)}")
        return {name: figures[name] for name in ("auc", "auc_within", "step_auc") if name in figures}

    checkpoint = Checkpoint(plan.out, plan.about())
    run = TrainingRun(model, examples, settings, checkpoint=checkpoint, say=say, after_epoch=after)
    points = run.train()
    if run.done < run.total:
        say(f"stopped after step {run.done} of {run.total}: run the same command without the limit to go on")
        return {"curve": points}
    if plan.delta is not None and plan.shape.rank is None:
        model, share = compress(model, plan.shape, plan.delta)
        say(f"stored as a difference of rank {plan.delta}, which keeps {100 * share:.1f} % of what was learnt")
    logits = step_logits(model, judged, device=settings.device, dtype=settings.dtype, micro=settings.micro_tokens)
    how, temperature, tried = choose(held, judged, logits)
    metrics = _judge(held, judged, logits, how, temperature)
    say(f"held out, {how} at temperature {temperature:g}: {_line(metrics)}")
    history = _history(plan, model, examples, points, metrics, tried)
    history["seconds"], history["tokens"] = round(run.seconds, 1), run.tokens
    description = _description(plan, model, how, temperature)
    size = write_verifier(plan.out, model, tokenizer, description, history)
    checkpoint.remove()  # only now: a run that is killed while it writes goes on from there
    say(f"wrote {plan.out} ({size / 1e6:.1f} MB, {description.parameters:,} active parameters)")
    return history


def _description(plan: TrainingPlan, model: Model, how: Aggregation, temperature: float) -> Artefact:
    return Artefact(
        base=plan.name,
        adapter=not plan.shape.tiny and (plan.shape.rank is not None or plan.delta is not None),
        layers=plan.shape.layers,
        separator=SEPARATOR,
        aggregation=how,
        kind="process" if plan.steps is not None else "outcome",
        max_context=plan.max_context,
        id=f"{plan.out.name}-newline-seed{plan.settings.seed}",
        parameters=active_parameters(model),
        temperature=temperature,
    )


def _judge(held: Collection, judged: Examples, logits: Sequence[Floats], how: str, temperature: float) -> JsonObject:
    data = scored(held, judged, solution_scores(logits, how, temperature))
    sizes = sorted({size for size in (*_SIZES, data.answers.shape[1]) if size <= data.answers.shape[1]})
    # Votes alone mix the policy's answers with the verifier's skill, so steps are judged too.
    return {**solution_metrics(data), **step_metrics(judged, logits), "votes": curve(data, sizes)}


def _line(metrics: JsonObject) -> str:
    votes = {(row["method"], row["n"]): row["accuracy"] for row in metrics["votes"]}
    most = max(n for _, n in votes)
    figures = {"AUC": metrics["auc"], "within problems": metrics["auc_within"], "steps": metrics.get("step_auc")}
    shown = [f"{name} {value:.3f}" for name, value in figures.items() if value is not None]
    shown += [f"{method}@{most} {100 * votes[method, most]:.1f}" for method in ("majority", "weighted", "best_of_n")]
    return ", ".join(shown)


def _summary(collection: Collection, examples: Examples, judged: Examples) -> str:
    left = dict(collection.left_out) | {"too long": examples.too_long + judged.too_long}
    away = ", ".join(f"{count} {reason}" for reason, count in left.items() if count)
    return (
        f"{len(examples)} solutions of {len(set(examples.problem.tolist()))} problems to learn from"
        f" ({len(examples.ids):,} tokens, {int((~np.isnan(examples.labels)).sum()):,} labelled steps),"
        f" {len(judged)} of {len(judged.names)} problems held out" + (f"; left out: {away}" if away else "")
    )


def _history(
    plan: TrainingPlan,
    model: Model,
    examples: Examples,
    points: list[JsonObject],
    metrics: JsonObject,
    tried: list[JsonObject],
) -> JsonObject:
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "command": plan.command,
        "settings": plan.about(),
        "versions": _versions(),
        "trained_parameters": learning,
        "solutions": len(examples),
        "curve": points,
        "choice": tried,
        "held_out": metrics,
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("torch", "transformers", "peft", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def as_smoke_test(plan: TrainingPlan) -> TrainingPlan:
    """The plan made so small that it takes seconds: a random model of two layers, all weights learning, few samples."""
    settings = replace(plan.settings, batch_tokens=min(plan.settings.batch_tokens, 8_192))
    shape = replace(plan.shape, tiny=True, rank=None, layers=None)
    few = replace(plan, limit=plan.limit or _TINY_PROBLEMS, per_problem=_TINY_SAMPLES)
    return replace(few, delta=None, shape=shape, settings=settings, holdout=max(plan.holdout, 0.2))
