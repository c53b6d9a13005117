"""The main job in one run: a small real model answers under a budget, then recorded samples show the trade-off.

Live part: SmolLM2-135M on this machine, a few questions, at most about 500 generated tokens.
Recorded part: two larger models on 350 problems, replayed; writes an interactive report.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import outthink as ot

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "demo"
# A model of 135 million weights needs to be shown the form of an answer; the examples are charged like any prompt.
EXAMPLES = [
    ("What is 3 + 4?", "3 + 4 = 7. The answer is 7."),
    ("How many wheels does a car have?", "A car has four wheels. The answer is 4."),
    ("What is half of 18?", "18 / 2 = 9. The answer is 9."),
]
QUESTIONS = [
    ("How many legs does a spider have?", "8"),
    ("What is 100 / 4?", "25"),
    ("What is 30 - 10?", "20"),
    ("What is 5 * 5?", "25"),
]
STRATEGY = "adaptive-consistency:n=6"
BUDGET = "tokens=2000,seconds=20"
COMPARED = ("single", "self-consistency", "adaptive-consistency", "esc", "short-m-of-k")
PLOTTED = "qwen2.5-coder-1.5b-instruct-q4--demo"


def chat(question: str) -> list[dict[str, str]]:
    """The question after the examples."""
    messages = []
    for asked, answered in EXAMPLES:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


async def live(console: Console) -> None:
    """Ask the embedded model, show its answers beside the key, and the last receipt."""
    engine = ot.EmbeddedEngine()
    table = Table(
        "question", "answer", "key", "stopped", "calls", "generated", "seconds", box=None, header_style="bold"
    )
    try:
        for question, key in QUESTIONS:
            result = await ot.ask(
                chat(question), model=engine, answer="number", strategy=STRATEGY, budget=BUDGET, max_tokens=24
            )
            entries = result.receipt.entries
            generated = sum((entry.completion_tokens or 0) + (entry.cancelled_tokens or 0) for entry in entries)
            right = "green" if result.answer == key else "red"
            table.add_row(
                question,
                f"[{right}]{result.answer}[/]",
                key,
                result.stopped,
                str(len(entries)),
                str(generated),
                f"{result.receipt.seconds:.1f}",
            )
            console.print(f"  {question} → {result.answer} (key {key})", style="dim", highlight=False)
    finally:
        await engine.aclose()
    console.print(table)
    console.print()
    print(result.receipt)


def recorded(console: Console) -> None:
    """Replay the recorded samples, draw the trade-off and write the report."""
    files = sorted((ROOT / "data" / "demo").glob("*--demo.parquet"))
    samples = [path for path in files if not path.name.startswith("problems")]
    settings = ot.CompareSettings(seeds=2)
    rows = ot.compare(samples, [ot.Spec.parse(name) for name in COMPARED], settings)
    console.print(f"\n[bold]350 recorded problems, {len(samples)} models: what accuracy costs[/]\n")
    print(ot.report_text([row for row in rows if row["traces"] == PLOTTED], color=sys.stdout.isatty()))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "demo.html").write_text(ot.report_html(rows, {"title": "What accuracy costs"} | settings.about()))
    (OUT / "demo.svg").write_text(ot.report_svg(rows))
    console.print(f"interactive report: {(OUT / 'demo.html').relative_to(ROOT)}")


def main() -> None:
    """Both parts."""
    console = Console(highlight=False)
    console.print(f"[bold]SmolLM2-135M, live on this machine: {STRATEGY}, at most {BUDGET} a question[/]\n")
    asyncio.run(live(console))
    recorded(console)


if __name__ == "__main__":
    main()
