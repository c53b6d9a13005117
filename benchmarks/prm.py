"""Trains our process reward model and measures what it is worth: results/prm.json.

Training uses the training problems only; aggregation and temperature are chosen on held-out training
problems. Measured on the recorded test samples: the 0.5B's GSM8K (the policy it was trained on), the
1.5B's GSM8K (another policy) and the 0.5B's MATH-500 (out of domain): AUC, calibration, best-of-N and
weighted vote against majority and oracle at equal samples, and at equal total FLOPs, where the verifier
is charged 2 x its active parameters for every token of question and solution it reads.

Needs torch, transformers, peft, numpy, pyarrow, safetensors (and gguf for a GGUF base), nothing else of
outthink's dependencies; from a checkout without installation:

    export PYTHONPATH=src
    # 1. the reference: all weights, stored as a low-rank difference small enough to ship (one GPU, minutes)
    python benchmarks/prm.py --data DATA --base BASE --out VERIFIER --scores SCORES \\
        --train "--full --delta 24 --epochs 2 --lr 1e-4 --outcome-at tokens --outcome-weight 0.2"
    # 2. an adapter
    python benchmarks/prm.py --data DATA --base BASE --out VERIFIER --scores SCORES \\
        --train "--lora 16 --epochs 3 --lr 5e-4 --outcome-at tokens --outcome-weight 0.2 --rank-weight 0.5"
    # 3. a verifier that is there already, and scores that are there already
    python benchmarks/prm.py --data DATA --base BASE --verifier VERIFIER --scores SCORES
    python benchmarks/prm.py --data DATA --verifier VERIFIER --from-scores SCORES

DATA is the folder of the recorded samples; BASE the embedded model's GGUF (`outthink pull`) or an expanded
model folder. With --limit results go to results/prm-subset.json: the sets that a CPU cannot score whole.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from common import MODELS, NO_TRACES, ROOT, Table, interval, load_average, parser, save, show, skip, target
from outthink.cli.train import plan_of, train_arguments
from outthink.training.base import HISTORY, tokenizer_of
from outthink.training.examples import Collection, encode_all, read_solutions
from outthink.training.judgement import curve, scored, solution_metrics, solution_scores, step_logits
from outthink.training.metrics import ScoredProblem
from outthink.training.prm import train_prm
from outthink.verifiers.reward_model.opening import Artefact, read_artefact
from verifier_figures import equal_flops, load_verifier

SIZES = (1, 4, 8, 16, 32)
POLICIES = {"0.5B": 494_032_768, "1.5B": 1_543_714_304}
SETS = {
    "GSM8K 0.5B": (f"{MODELS[0]}--gsm8k.parquet", "problems-gsm8k.parquet", "0.5B"),
    "GSM8K 1.5B": (f"{MODELS[1]}--gsm8k.parquet", "problems-gsm8k.parquet", "1.5B"),
    "MATH 0.5B": (f"{MODELS[0]}--math500.parquet", "problems-math500.parquet", "0.5B"),
}
TRAIN = f"train-{MODELS[0]}--gsm8k"
MOST = max(SIZES)


def flags() -> argparse.Namespace:
    """The command line."""
    top = parser(__doc__)
    folder = os.environ.get("OUTTHINK_TRACES") or str(ROOT.parent / "shared" / "data" / "traces")
    top.add_argument("--data", type=Path, default=Path(folder), help="folder of the recorded samples")
    top.add_argument("--train", metavar="FLAGS", help="train first, with these flags of `outthink train prm`")
    top.add_argument("--out", type=Path, metavar="FOLDER", help="where --train puts the verifier")
    top.add_argument("--verifier", type=Path, metavar="FOLDER", help="measure this one")
    top.add_argument("--base", default="embedded", help="embedded, a GGUF file or a model folder")
    top.add_argument("--scores", type=Path, metavar="FOLDER", help="keep the logits of all steps here")
    top.add_argument("--from-scores", type=Path, metavar="FOLDER", help="logits kept before; needs only the tokeniser")
    top.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="what to measure on")
    top.add_argument("--device", help="cuda or cpu")
    top.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    top.add_argument("--limit", type=int, help="only the first so many problems of each set")
    return top.parse_args()


def train(chosen: argparse.Namespace) -> Path:
    """Train as `outthink train prm` does; returns the verifier's folder."""
    given = [
        *("prm", "--samples", str(chosen.data / f"{TRAIN}.parquet")),
        *("--problems", str(chosen.data / "train-problems-gsm8k.parquet")),
        *("--steps", str(chosen.data / f"{TRAIN}-steps.parquet")),
        *("--out", str(chosen.out), "--base", chosen.base, "--base-name", "embedded", "--dtype", chosen.dtype),
        *(["--device", chosen.device] if chosen.device else []),
        *shlex.split(chosen.train),
    ]
    flags_of_train = argparse.ArgumentParser()
    train_arguments(flags_of_train)
    command = "outthink train prm " + chosen.train  # without anybody's folders
    train_prm(plan_of(flags_of_train.parse_args(given), command), say=say)
    return Path(chosen.out)


def say(line: str) -> None:
    """Progress."""
    print(line, flush=True)


def collected(chosen: argparse.Namespace, name: str) -> Collection:
    """The samples of one set, 32 a problem."""
    samples, problems, _ = SETS[name]
    return read_solutions(chosen.data / samples, chosen.data / problems, limit=chosen.limit, per_problem=MOST)


def judged(
    chosen: argparse.Namespace, name: str, collection: Collection, model: Any, tokenizer: Any, artefact: Artefact
) -> tuple[ScoredProblem, dict[str, Any]]:
    """Scores of one set, and how long they took."""
    began = time.monotonic()
    examples = encode_all(collection, tokenizer, max_context=artefact.max_context or 2048)
    file = f"{name.replace(' ', '-')}.parquet"
    if chosen.from_scores:
        table = parquet.read_table(chosen.from_scores / file)
        kept = {
            (row["problem_id"], row["sample_idx"]): np.array(row["logits"], np.float32) for row in table.to_pylist()
        }
        solutions = [collection.solutions[i] for i in examples.source.tolist()]
        logits = [kept[solution.problem_id, solution.sample_idx] for solution in solutions]
    else:
        logits = step_logits(model, examples, device=chosen.device, dtype=chosen.dtype, say=say)
    seconds = time.monotonic() - began
    if chosen.scores:
        keep(chosen.scores / file, collection, examples.source.tolist(), logits)
    values = solution_scores(logits, artefact.aggregation, artefact.temperature)
    about = {"tokens": len(examples.ids), "too_long": examples.too_long, "seconds": round(seconds, 1)}
    return scored(collection, examples, values), about


def keep(path: Path, collection: Collection, source: Sequence[int], logits: Sequence[Any]) -> None:
    """Write the logits, so that other votes can be tried without the model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = [collection.solutions[i] for i in source]
    columns = {
        "problem_id": [solution.problem_id for solution in chosen],
        "sample_idx": [solution.sample_idx for solution in chosen],
        "logits": pa.array([steps.tolist() for steps in logits], pa.list_(pa.float32())),
    }
    parquet.write_table(pa.table(columns), path, compression="zstd")


def measure(name: str, data: ScoredProblem, artefact: Artefact) -> dict[str, Any]:
    """All tables of one set."""
    policy = POLICIES[SETS[name][2]]
    parameters = artefact.parameters or 0
    found = {
        **solution_metrics(data),
        "policy_parameters": policy,
        "equal_samples": curve(data, SIZES),
        "equal_flops": equal_flops(data, SIZES[1:], policy=policy, verifier=parameters),
    }
    show(f"{name}: AUC {found['auc']:.3f}, within problems {found['auc_within']:.3f}", readable(found["equal_samples"]))
    show(f"{name}, equal FLOPs", readable(found["equal_flops"]))
    return found


def readable(rows: Table) -> Table:
    """Rows for the terminal."""
    return [
        {"method": row["method"], "n": row["n"]}
        | ({"majority n": row["majority_n"]} if "majority_n" in row else {})
        | {"%": 100 * row["accuracy"], "to majority": interval(row["difference"], *row["difference_interval"])}
        for row in rows
    ]


def targets(tables: dict[str, dict[str, Any]]) -> Table:
    """What was promised of the 0.5B's GSM8K samples."""
    found = tables.get("GSM8K 0.5B")
    if found is None:
        return []

    def row(table: str, size: int, key: str = "n") -> dict[str, Any]:
        return next(row for row in found[table] if row["method"] == "weighted" and row[key] == size)

    equal, paid, most = row("equal_samples", 16), row("equal_flops", 16, "majority_n"), row("equal_samples", 32)
    gain = interval(equal["difference"], *equal["difference_interval"])
    ahead = interval(paid["difference"], *paid["difference_interval"])
    return [
        target("weighted vote over majority, 16 samples, 0.5B", "+5 points", gain, equal["difference"] >= 0.05),
        target("the same at equal total FLOPs", "above 0", ahead, paid["difference"] > 0),
        target("weighted vote, 32 samples, 0.5B", "45 %", f"{100 * most['accuracy']:.1f} %", most["accuracy"] > 0.45),
        target("AUC of solutions, 0.5B", "0.83 (reference)", round(found["auc"], 3), found["auc"] >= 0.83),
    ]


def main() -> int:
    """Train if asked to, measure, write."""
    chosen = flags()
    before = load_average()
    if not chosen.data.is_dir():
        return skip(NO_TRACES)
    if chosen.train is not None and chosen.out is None:
        return skip("--train needs --out")
    folder = train(chosen) if chosen.train is not None else chosen.verifier
    if folder is None:
        return skip("give --train FLAGS --out FOLDER, or --verifier FOLDER")
    artefact = read_artefact(folder)
    model = None
    if chosen.from_scores:
        tokenizer = tokenizer_of(chosen.base if artefact.adapter else str(folder))
    else:
        model, tokenizer, _ = load_verifier(folder, base=None if chosen.base == "embedded" else chosen.base)
    tables: dict[str, dict[str, Any]] = {}
    for name in chosen.sets:
        data, about = judged(chosen, name, collected(chosen, name), model, tokenizer, artefact)
        say(f"{name}: {about['tokens']:,} tokens in {about['seconds']} s")
        tables[name] = {**about, **measure(name, data, artefact)}
    met = targets(tables) if not chosen.limit else []
    history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    verifier = {"id": artefact.id, "parameters": artefact.parameters, "bytes": size, "adapter": artefact.adapter}
    verifier |= {"aggregation": artefact.aggregation, "temperature": artefact.temperature}
    settings = {"sizes": list(SIZES), "verifier": verifier, "training": history["command"]}
    if chosen.limit:  # too few problems for the targets: what a machine without a GPU can say of the other sets
        settings |= {"problems": chosen.limit, "precision": chosen.dtype}
        save("prm-subset", settings=settings, targets=[], load_before=before, sets=tables)
        return 0
    save("prm", settings=settings, targets=met, load_before=before, training=history, sets=tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
