"""Scores every recorded sample with the shipped verifier once, and says what the kept scores are worth.

Without a flag: ranking and weighted votes of the scores in benchmarks/data, beside what prm.py found for the same
verifier; a quarter of a minute, without torch. With --score: scores what is missing of the four recorded sets, the
greedy samples included (105,000; 50 million tokens: ten minutes on a GPU, days on two cores), in single precision, and
keeps logits and tokens read every 2,000 samples: a run that was ended goes on from there. At the end of each set some
of its samples are judged again on this machine's CPU, as `outthink verify` judges them, and compared.

Needs the recorded sets in ../shared/data/traces or $OUTTHINK_TRACES; for --score also the `transformers` extra and the
embedded model (`outthink pull`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import NO_TRACES, RESULTS, ROOT, Table, judged, load_average, parser, save_evidence, show, skip, traces
from kept_scores import DATA, ScoreColumns, digest, kept_scores, read_columns, scores_file
from outthink.core.errors import BadInput
from outthink.core.request import Request
from outthink.core.sample import Sample, split_steps
from outthink.evaluation.sample_file import SampleFile
from outthink.evaluation.verify import candidate
from outthink.training.base import EMBEDDED, locate, require
from outthink.training.examples import Collection, Examples, Solution, encode_all, read_questions, read_solutions
from outthink.training.judgement import curve, probabilities, solution_metrics, step_logits
from outthink.training.metrics import ScoredProblem, number_answers
from outthink.verifiers.reward_model import open_reward_model
from outthink.verifiers.reward_model.opening import Artefact
from verifier_figures import load_verifier

PIECE = 2_000
"""Samples that are scored, and saved, together."""
SIZES = (8, 32)
MOST = max(SIZES)
AGREE = 0.01
"""The most by which a kept logit may differ from the CPU's; half precision alone rounds by 0.002 at 4."""


@dataclass(frozen=True, slots=True)
class RecordedSet:
    """One recorded set as the verifier reads it: a question and steps for each sample."""

    rows: Sequence[tuple[str, Sample]]
    questions: Mapping[str, str]
    solutions: Sequence[Solution]

    @classmethod
    def read(cls, path: Path, separator: str) -> RecordedSet:
        """All samples of a file; its problems lie beside it."""
        rows = SampleFile(path).samples()
        cut = [Solution(key, sample.index, split_steps(sample.text, separator), False) for key, sample in rows]
        return cls(rows, read_questions(problems_file(path), path), cut)

    @property
    def digest(self) -> str:
        """What `kept_scores.digest` says of these samples."""
        return digest((key, sample.index, self.questions[key], sample.text) for key, sample in self.rows)

    @property
    def order(self) -> np.ndarray:
        """Rows from the longest to the shortest, so that little of a batch is padding."""
        lengths = [len(self.questions[key]) + len(sample.text) for key, sample in self.rows]
        return np.argsort(-np.array(lengths), kind="stable")

    def part(self, places: Sequence[int]) -> Collection:
        """Some of the samples."""
        return Collection(self.questions, [self.solutions[place] for place in places])


def problems_file(path: Path) -> Path:
    """The problems of a recorded file."""
    return path.with_name(f"problems-{path.stem.rpartition('--')[2]}.parquet")


def begun(path: Path, data: RecordedSet, identity: dict[str, Any]) -> ScoreColumns | None:
    """What is scored so far; None where another run has left its file there."""
    if not path.exists():
        count = len(data.rows)
        names = np.array([key for key, _ in data.rows])
        numbers = np.array([sample.index for _, sample in data.rows], np.uint16)
        value, tokens = np.full(count, np.nan, np.float16), np.zeros(count, np.uint16)
        return ScoreColumns(names, numbers, value, tokens, {**identity, "scored": 0, "seconds": 0.0})
    found = read_columns(path)
    return found if all(found.about.get(name) == value for name, value in identity.items()) else None


def score_set(kept: ScoreColumns, path: Path, data: RecordedSet, model: Any, encode: Any, device: str | None) -> None:
    """Score what is missing, a piece at a time; `encode` turns a collection into examples."""
    order, about = data.order, kept.about
    starts = range(about["scored"], len(order), PIECE)
    parts = [[i for i in order[start : start + PIECE].tolist() if data.solutions[i].steps] for start in starts]
    began, before = time.monotonic(), about["seconds"]
    with ThreadPoolExecutor(1) as pool:  # texts of the next pieces are cut into tokens meanwhile
        ready: Iterator[Examples] = pool.map(lambda part: encode(data.part(part)), parts)
        for start, part, examples in zip(starts, parts, ready, strict=True):
            logits = step_logits(model, examples, device=device, dtype="fp32")
            places = np.array(part, np.int64)[examples.source]
            kept.value[places] = [steps[-1] for steps in logits]
            kept.tokens[places] = examples.lengths
            about |= {"scored": min(start + PIECE, len(order)), "seconds": before + time.monotonic() - began}
            kept.write(path)
            print(f"{path.name}: {about['scored']:,} of {len(order):,} in {about['seconds']:.0f} s", flush=True)


def checked(kept: ScoreColumns, data: RecordedSet, folder: Path, count: int) -> dict[str, Any]:
    """How far the logits of some samples are from those of `outthink verify` on this machine's CPU."""
    verifier = open_reward_model(folder, device="cpu", embedded=Path(locate(EMBEDDED)))
    scored = np.flatnonzero(kept.tokens)
    chosen = np.unique(scored[np.linspace(0, len(scored) - 1, min(count, len(scored))).astype(int)])
    work = []
    for key, sample in (data.rows[place] for place in chosen.tolist()):
        work.append((Request.of(data.questions[key], problem=key), [candidate(sample, verifier)]))
    scores = [score for (score,) in verifier.score_many(work)]
    share = np.array([score.value(verifier.aggregation) for score in scores])
    away = np.abs(kept.about["temperature"] * np.log(share / (1 - share)) - kept.value[chosen].astype(np.float64))
    same = sum(score.prompt_tokens == kept.tokens[place] for score, place in zip(scores, chosen, strict=True))
    return {"samples": len(chosen), "largest": float(away.max()), "mean": float(away.mean()), "tokens equal": int(same)}


def score_all(chosen: Any, files: dict[str, Path]) -> int:
    """Score what is missing of every set."""
    torch, transformers = require()
    model, tokenizer, artefact = load_verifier(chosen.verifier)
    if artefact.aggregation != "last":
        return skip(f"{artefact.id} joins steps by {artefact.aggregation}; one logit says only the last step's")
    device = chosen.device or ("cuda" if torch.cuda.is_available() else "cpu")
    name_of = torch.cuda.get_device_name() if device == "cuda" else device
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    most = artefact.max_context or 2048
    for name, path in files.items():
        data, out = RecordedSet.read(path, artefact.separator), scores_file(name, chosen.out)
        kept = begun(out, data, identity(name, data, artefact))
        if kept is None:
            return skip(f"{out} is of another verifier or other samples: remove it, or give another --out")
        kept.about.update({"device": name_of, "precision": "float32", "versions": versions})
        score_set(kept, out, data, model, lambda part: encode_all(part, tokenizer, max_context=most), device)
        if "check" not in kept.about:
            kept.about["check"] = checked(kept, data, chosen.verifier, chosen.check)
            kept.write(out)
        print(f"{name}: {json.dumps(kept.about)}", flush=True)
    return 0


def identity(name: str, data: RecordedSet, artefact: Artefact) -> dict[str, Any]:
    """What decides the scores; a file that says otherwise is of another run."""
    about = {"set": name, "samples": len(data.rows), "digest": data.digest, "verifier": artefact.id}
    about |= {"aggregation": artefact.aggregation, "temperature": artefact.temperature}
    return about | {"parameters": artefact.parameters}


def votes(path: Path, scores: Mapping[tuple[str, int], tuple[float, int]], temperature: float) -> ScoredProblem:
    """The samples of prm.py's tables: 32 of each problem. One without a score has 0."""
    solutions = read_solutions(path, problems_file(path), per_problem=MOST).solutions
    pairs = [scores.get((one.problem_id, one.sample_idx), (-np.inf, 0)) for one in solutions]

    def table(values: Sequence[Any]) -> np.ndarray:
        return np.array(values).reshape(-1, MOST)

    return ScoredProblem(
        number_answers(table([one.answer for one in solutions]).tolist()),
        table([one.correct for one in solutions]),
        table(probabilities(np.array([value for value, _ in pairs]), temperature)),
        table([float(one.tokens) for one in solutions]),
        table([float(one.prompt_tokens) for one in solutions]),
        table([float(tokens) for _, tokens in pairs]),
    )


def row_of(name: str, path: Path, folder: Path, known: dict[str, Any]) -> dict[str, Any]:
    """What one set's scores are worth; `known` are prm.py's tables."""
    file = scores_file(name, folder)
    scores, about = kept_scores(name, folder), read_columns(file).about
    data = votes(path, scores, about["temperature"])
    found = solution_metrics(data)
    read = sum(tokens for _, tokens in scores.values())
    row = {"set": name, "samples": about["samples"], "without score": about["samples"] - len(scores), "read": read}
    row |= {"seconds": about["seconds"], "read a second": read / about["seconds"], "bytes": file.stat().st_size}
    row |= {key: found[key] for key in ("auc", "auc_within", "ece")} | {"prm.py auc": known.get("auc")}
    theirs = {(one["method"], one["n"]): one["accuracy"] for one in known.get("equal_samples", ())}
    for one in curve(data, SIZES):
        if one["method"] in ("majority", "weighted"):
            key = f"{one['method']}@{one['n']}"
            row |= {key: one["accuracy"], f"prm.py {key}": theirs.get((one["method"], one["n"]))}
    check = {f"check {key}": value for key, value in about["check"].items()}
    return row | check | {"device": about["device"], "versions": about["versions"]}


def targets(rows: Table) -> Table:
    """Agreement with the CPU and with prm.py, and the size of all files."""
    votes_apart, auc_apart = [0.0], [0.0]
    for row in rows:
        theirs = {key.removeprefix("prm.py "): row[key] for key in row if key.startswith("prm.py ")}
        apart = {key: abs(row[key] - value) for key, value in theirs.items() if value is not None}
        auc_apart.append(apart.pop("auc", 0.0))
        votes_apart += apart.values()
    unequal = sum(row["check samples"] - row["check tokens equal"] for row in rows)
    return [
        judged("largest difference of a kept logit to a CPU's", max(row["check largest"] for row in rows), AGREE),
        judged("checked samples whose count of tokens differs", unequal, 0),
        judged("largest difference of an AUC to prm.py's", max(auc_apart), 0.002),
        judged("largest difference of a vote's accuracy to prm.py's", max(votes_apart), 0.005),
        judged("bytes of all scores", sum(row["bytes"] for row in rows), 5_000_000),
    ]


def main() -> int:
    """Score or measure."""
    options = parser(__doc__)
    options.add_argument("--score", action="store_true", help="score what is missing, and measure nothing")
    options.add_argument("--verifier", type=Path, default=ROOT / "data" / "verifiers" / "smollm2-135m-gsm8k")
    options.add_argument("--out", type=Path, default=DATA, help="folder of the scores (default benchmarks/data)")
    options.add_argument("--device", help="cuda or cpu (default: a GPU if there is one)")
    options.add_argument("--check", type=int, default=50, help="samples of each set to judge again on the CPU")
    chosen, files = options.parse_args(), traces()
    if len(files) < 4:
        return skip(NO_TRACES)
    before = load_average()
    known = json.loads((RESULTS / "prm.json").read_text())["sets"]
    try:
        if chosen.score:
            return score_all(chosen, files)
        rows = [row_of(name, path, chosen.out, known.get(name, {})) for name, path in files.items()]
    except BadInput as error:  # no scores, no model, no torch
        return skip(str(error))
    show("kept scores", [{key: value for key, value in row.items() if not isinstance(value, dict)} for row in rows])
    save_evidence("score_samples", rows=rows, targets=targets(rows), load_before=before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
