"""Predicts success and tokens from the question alone, beside length and TF-IDF, and from hidden states.

    python benchmarks/difficulty.py [--states FOLDER]

Five folds over problems, penalty and calibration inside of them. The probe reads the embedded model's states
of the questions; it needs the `train` extra and `outthink pull`, takes some minutes, and is left out without
them. --states keeps them for another run. Writes results/difficulty.json and results/difficulty.svg. Samples
are read from ../shared/data/traces (or OUTTHINK_TRACES); without them the exit code is 77.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common import MODELS, NO_TRACES, RESULTS, load_average, parser, save, show, skip, target, traces
from difficulty_figures import difference, judged, judged_probe
from line_panels import Line, Square, draw_lines
from outthink.controller.router.artefact import load
from outthink.controller.routing_rules import Routing, Way
from outthink.core.errors import BadInput
from outthink.economics.tariff import active_parameters
from outthink.engines.traces import load as load_traces
from outthink.evaluation.dataset import Problems, SampleSet, open_source
from outthink.evaluation.routing.corpus import Corpus
from outthink.evaluation.routing.data import ModelOutcomes
from outthink.evaluation.routing.figures import drawn, ordering, success_figures
from outthink.evaluation.routing.routes import route_row, routed
from outthink.evaluation.routing.samples import for_policy, outcomes, train
from outthink.evaluation.routing.training import SAMPLED, cross_fitted, fit

Row = dict[str, Any]
SETS = {"GSM8K": "gsm8k", "MATH-500": "math500"}
LAYERS = range(0, 31, 2)
SHORT = {model: model.split("-")[2].upper() for model in MODELS}
PARAMETERS: dict[Way, tuple[float, ...]] = {
    "penalised": (0.25, 0.3, 0.35, 0.4),
    "smallest-likely": (0.0, 0.1, 0.2, 0.3, 1.0001),
}
ROUTER = 1e8
"""FLOPs charged for a forecast: a millisecond of a core that could do 10^11 a second."""
READ = {"length": "length", "terms": "TF-IDF", "counts": "hand features", "all": "both"}
_MEMORY = """
import json, resource, sys
from pathlib import Path
from outthink.controller.router.artefact import load
def kilobytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
before = kilobytes()
load(Path(sys.argv[1])).predict("How many legs do three cats have?")
print(json.dumps(kilobytes() - before))
"""


def line(
    name: str, model: str, reads: str, data: ModelOutcomes, right: dict[str, Any], tokens: Any = None
) -> dict[str, Any]:
    """One row of a table."""
    share = data.right[:, data.models.index(model)]
    row = {"set": name, "model": SHORT[model], "reads": reads, "n": len(data)}
    row |= {key: right[key] for key in ("auc", "auc_low", "auc_high", "spearman", "ece", "ece_by_chance")}
    row["auc_of_the_truth"] = ordering(share, share, np.ones((1, len(data))), share).auc
    row["explained"] = 1 - right["brier"] / share.var()
    tokens = tokens or {}
    names = {"spearman": "tokens_spearman", "median_error": "tokens_error", "inside": "tokens_inside"}
    return row | {new: tokens.get(old) for old, new in names.items()}


def within(name: str, data: ModelOutcomes) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Cross-fitted rows of every kind of reading, the paired differences of the best, and its bins."""
    rows, paired, bins = [], [], {}
    for found in judged(data, SAMPLED):
        rows.append(line(name, found["model"], READ[found["reads"]], data, found["right"], found["tokens"]))
        for reads, over in found.get("over", {}).items():
            ends = {f"{key}_{end}": over[key][f"paired_{end}"] for key in over for end in ("low", "high")}
            paired.append({"set": name, "model": SHORT[found["model"]], "both minus": READ[reads], **ends})
        if found["reads"] == "all":
            bins[f"{name}, {SHORT[found['model']]}"] = found["right"]["reliability"]
    return rows, paired, bins


def across(name: str, train_on: ModelOutcomes, other: ModelOutcomes) -> list[dict[str, Any]]:
    """Rows of heads that were trained on another set."""
    every = np.arange(len(train_on))
    heads, _ = fit(train_on, Corpus(train_on.prompts), every, SAMPLED)
    forecasts = [heads.predict(question) for question in other.prompts]
    counts = drawn(other.group)
    rows = []
    for model in train_on.models:
        share, tokens = (values[:, other.models.index(model)] for values in (other.right, other.tokens))
        right = np.array([forecast.of(model).chance for forecast in forecasts])
        length = np.array([forecast.of(model).tokens for forecast in forecasts])
        inside = [
            f.of(model).tokens_low <= t <= f.of(model).tokens_high for f, t in zip(forecasts, tokens, strict=True)
        ]
        figures = success_figures(right, share, ordering(right, share, counts, share))
        told = {
            "spearman": ordering(length, tokens, counts).spearman,
            "median_error": float(np.median(np.abs(length / tokens - 1))),
            "inside": float(np.mean(inside)),
        }
        rows.append(line(name, model, READ["all"], other, figures, told))
    return rows


def training_set(folder: Path) -> ModelOutcomes | None:
    """Eight samples of the 0.5B on each GSM8K training problem, None where they are not at hand."""
    file, problems = folder / f"train-{MODELS[0]}--gsm8k.parquet", folder / "train-problems-gsm8k.parquet"
    if not (file.is_file() and problems.is_file()):
        return None
    known, samples = Problems.read(problems), load_traces(file)
    questions = {name: known.question(name) for name in samples.problems}
    return replace(outcomes([SampleSet(samples, questions, "number", {})]), models=(MODELS[0],))


def states_of(name: str, data: ModelOutcomes, folder: Path | None) -> dict[str, Any] | None:
    """Hidden states of the questions, read by the embedded model or from an earlier run; None without either."""
    mark = hashlib.sha256("\n".join(data.prompts).encode()).hexdigest()
    file = None if folder is None else folder / f"states-{SETS[name]}.npz"
    if file is not None and file.is_file():
        kept = np.load(file)
        if str(kept["questions"]) == mark:
            return dict(kept)
    try:
        from outthink.training.prompt_states import prompt_states

        found = prompt_states(data.prompts)
    except BadInput as error:
        print(f"no probe: {error}", file=sys.stderr)
        return None
    values = {"states": found.states, "tokens": found.tokens, "parameters": found.parameters, "questions": mark}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **values)
    return values


def probed(
    name: str, data: ModelOutcomes, kept: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Rows of the probe and of its mean with the text heads, paired differences, and the curve by layer."""
    from threadpoolctl import threadpool_limits

    group = data.group
    with threadpool_limits(1):
        found = judged_probe(kept["states"], np.concatenate([data.right, np.log(data.tokens)], axis=1), group, LAYERS)
    text = cross_fitted(data, SAMPLED)
    length = cross_fitted(data, replace(SAMPLED, reads="length"))
    counts, wide = drawn(group), len(data.models)
    rows, paired, by_layer = [], [], {}
    for place, model in enumerate(data.models):
        share, tokens = data.right[:, place], data.tokens[:, place]
        both = _sigmoid((_logit(found.right[:, place]) + _logit(text.right[:, place])) / 2)
        logs = found.chosen[:, wide + place], np.log(text.tokens[:, place])
        said = {"probe": (found.right[:, place], logs[0]), "probe and text": (both, (logs[0] + logs[1]) / 2)}
        layer = int(np.median(found.layers[:, place]))
        depth = layer / (kept["states"].shape[1] - 1)
        flops = 2 * float(kept["parameters"]) * depth * float(np.mean(kept["tokens"]))
        answer = 2 * float(active_parameters(model) or np.nan) * float(np.mean(kept["tokens"]) + tokens.mean())
        orders = {
            "length": ordering(length.right[:, place], share, counts, share),
            "both": ordering(text.right[:, place], share, counts, share),
        }
        for reads, (right, length_) in said.items():
            order = ordering(right, share, counts, share)
            row = line(name, model, reads, data, success_figures(right, share, order))
            row["tokens_spearman"] = ordering(length_, tokens, counts).spearman
            rows.append({**row, "layer": layer, "flops": flops, "of_one_answer": flops / answer})
            for other, theirs in orders.items():
                ends = difference(order.auc_drawn, theirs.auc_drawn)
                about = {"set": name, "model": SHORT[model], "what": reads, "minus": other}
                paired.append({**about, "auc_low": ends["paired_low"], "auc_high": ends["paired_high"]})
        by_layer[f"{name}, {SHORT[model]}"] = [
            {
                "layer": layer_,
                "auc": ordering(found.by_layer[at, :, place], share, counts[:1], share).auc,
                "tokens_spearman": ordering(found.by_layer[at, :, wide + place], tokens, counts[:1]).spearman,
            }
            for at, layer_ in enumerate(LAYERS)
        ]
    return rows, paired, by_layer


def routes(name: str, data: ModelOutcomes, sources: list[SampleSet]) -> list[Row]:
    """Both ways of routing one answer between the models, in FLOPs, by held-out chances and by those of length."""
    prompts = {
        source.questions[key]: problem.sampled[0].prompt_tokens or 0
        for source in sources
        for key, problem in source.traces.problems.items()
        if source.questions is not None
    }
    read = np.array([prompts[question] for question in data.prompts], dtype=np.float64)
    size = np.array([float(active_parameters(model) or np.nan) for model in data.models])
    costs = 2 * size * (read[:, None] + data.tokens)
    counts, mean = drawn(data.group), tuple(costs.mean(axis=0).tolist())
    chances = {READ[one]: cross_fitted(data, replace(SAMPLED, reads=one)).right for one in ("all", "length")}
    rows = []
    for reads, predicted in (chances | {"the truth": data.right}).items():
        for way, parameters in PARAMETERS.items():
            for parameter in parameters:
                routing = Routing(way, parameter, data.models, mean)
                found = routed(routing, predicted, data.right, costs, router=ROUTER)
                about = {"set": name, "chances": reads, "way": way, "parameter": parameter}
                row = about | route_row(found, data.right, costs, counts)
                rows.append({**row, "shares": [round(share, 3) for share in row["shares"]]})
    return rows


def _logit(share: Any) -> Any:
    return np.log(np.clip(share, 1e-6, 1) / np.clip(1 - share, 1e-6, 1))


def _sigmoid(value: Any) -> Any:
    return 1 / (1 + np.exp(-value))


def cost_of(data: ModelOutcomes) -> dict[str, float]:
    """Processor milliseconds and memory of stored heads for both models."""
    with tempfile.TemporaryDirectory() as name:
        train(data, Path(name), replace(SAMPLED, strengths=(1.0,)))
        heads, taken = load(Path(name)), []
        for question in data.prompts:
            began = time.process_time()
            heads.predict(question)
            taken.append(1000 * (time.process_time() - began))
        done = subprocess.run([sys.executable, "-c", _MEMORY, name], capture_output=True, text=True, check=True)
        size = sum(file.stat().st_size for file in Path(name).iterdir()) / 1e6
    figures = {"mean_ms": float(np.mean(taken)), "p99_ms": float(np.quantile(taken, 0.99))}
    return {**figures, "resident_mb": json.loads(done.stdout) / 1024, "files_mb": size}


def picture(bins: dict[str, Any], rows: list[dict[str, Any]], by_layer: dict[str, Any]) -> str:
    """Reliability of the success rates, and how much each layer of the reader knows."""
    squares = []
    for name, table in bins.items():
        points = [(row["predicted"], row["right"]) for row in table]
        lines = [Line("as predicted", [(0, 0), (1, 1)], reference=True), Line("success rate", points)]
        row = next(row for row in rows if f"{row['set']}, {row['model']}" == name and row["reads"] == "both")
        squares.append(Square(f"{name}: ECE {row['ece']:.3f}", "predicted", "right", lines))
    for name in dict.fromkeys(row["set"] for row in rows if by_layer):
        lines = []
        for model in SHORT.values():
            curve = [(point["layer"], point["auc"]) for point in by_layer[f"{name}, {model}"]]
            text = next(r["auc"] for r in rows if (r["set"], r["model"], r["reads"]) == (name, model, "both"))
            lines += [Line(f"probe, {model}", curve), Line(f"text, {model}", [(0, text), (30, text)], reference=True)]
        axes = {"across": (0, 30), "up": (0.45, 0.75), "percent": (False, False)}
        squares.append(Square(f"{name}: a probe on each layer", "layer of SmolLM2-135M", "AUC", lines, **axes))
    return draw_lines(
        squares,
        title="Success before any token is decoded",
        subtitle="Held out, five folds over problems. Dashed: perfect calibration; heads that read the question.",
    )


def targets(paired: list[dict[str, Any]], cost: dict[str, float]) -> list[dict[str, Any]]:
    """What the heads must beat, and what they may cost."""
    found = []
    for row in paired:
        if row["both minus"] == "length":
            for key, what in (("auc", "AUC"), ("tokens_spearman", "rank correlation of tokens")):
                low = row[f"{key}_low"]
                name = f"{row['set']} {row['model']}: {what} minus length's, lower"
                found.append(target(name, "> 0", round(low, 4), low > 0))
    found.append(target("processor time a request, p99", "< 5 ms", round(cost["p99_ms"], 2), cost["p99_ms"] < 5))
    mb = cost["resident_mb"]
    found.append(target("memory of loaded heads", "< 150 MB", round(mb, 1), mb < 150))
    return found


def main() -> int:
    """Measure everything, print it, write the result and the plot."""
    options = parser(__doc__)
    options.add_argument("--states", type=Path, metavar="FOLDER", help="where hidden states are kept between runs")
    chosen = options.parse_args()
    files = traces()
    if len(files) < 4:
        return skip(NO_TRACES)
    busy = load_average()
    folder = next(iter(files.values())).parent
    data, sources = {}, []
    for name, stem in SETS.items():
        mine = [open_source(folder / f"{model}--{stem}.parquet") for model in MODELS]
        data[name], sources = outcomes(mine), [*sources, *mine]
    rows, paired, bins, probes, over, layers = [], [], {}, [], [], {}
    for name, one in data.items():
        found = within(name, one)
        rows, paired, bins = rows + found[0], paired + found[1], bins | found[2]
        kept = states_of(name, one, chosen.states)
        if kept is not None:
            more = probed(name, one, kept)
            probes, over, layers = probes + more[0], over + more[1], layers | more[2]
    first, second = data.values()
    elsewhere = across("MATH-500 by GSM8K's", first, second) + across("GSM8K by MATH-500's", second, first)
    if (train_on := training_set(folder)) is not None:
        elsewhere += across("GSM8K by 7,473 training problems", train_on, first)
    helped = [
        {"set": s.traces.dataset, "model": SHORT[s.traces.model], "in the policy": for_policy(s) is not None}
        for s in sources
    ]
    sent = []
    for name, one in data.items():
        sent += routes(name, one, [source for source in sources if source.traces.dataset == SETS[name]])
    cost = cost_of(first)
    show("cross-fitted, from the question's text", rows)
    show("paired, 95 %", paired)
    show("trained elsewhere", elsewhere)
    show("hidden states of the embedded model", probes)
    show("the same, paired AUC, 95 %", over)
    show("routing between the two models, one answer a question, FLOPs", sent)
    show("heads that calibrate would keep", helped)
    (RESULTS / "difficulty.svg").write_text(picture(bins, rows, layers) + "\n")
    recipe = {"strengths": SAMPLED.strengths, "hand_weight": SAMPLED.hand_weight}
    save(
        "difficulty",
        settings={"folds": 5, "recipe": recipe, "resamples": 1000, "layers": list(LAYERS)},
        targets=targets(paired, cost),
        load_before=busy,
        rows=rows,
        paired=paired,
        elsewhere=elsewhere,
        probe=probes,
        probe_paired=over,
        by_layer=layers,
        routes=sent,
        policy=helped,
        reliability=bins,
        cost=cost,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
