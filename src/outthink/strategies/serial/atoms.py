"""Atom of Thoughts (arXiv 2502.12018) as its authors released it: split a question, contract it, solve that, compare.

Knows: the six calls, the dependency list between sub-questions, and which of three solutions wins. Does
not know how an answer is read. All prompts are our own words. The released code computes a depth and
never recurses on it; neither do we.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from outthink.core.receipt import Verdict
from outthink.core.request import Request
from outthink.core.sample import Sample
from outthink.session.session import Session
from outthink.strategies.prompts import asking, question
from outthink.strategies.registry import strategy

_BLOCK = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
_CONTRACTED = re.compile(r"<question>(.*?)</question>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """A sub-question, its answer, and the numbers of those before it that it needs."""

    description: str
    answer: str
    depend: tuple[int, ...]


@strategy("atom-of-thoughts", source="Teng et al. 2502.12018 (own prompts)", rewrites=True)
async def atom_of_thoughts(session: Session, request: Request, *, tries: int = 3) -> Verdict:
    """Solve, split the solution into sub-questions, contract them into an easier question, solve that, compare.

    Args:
        tries: attempts at a readable list of sub-questions
    """
    solved = [sample async for sample in session.sample(request, n=2, ahead=2)]  # direct and multistep
    if not solved:
        return Verdict(None, "")
    direct, multistep = solved[0], solved[-1]
    parts = await _label(session, request, multistep, tries) if len(solved) == 2 else None
    if parts is None:
        if session.stopped is None:
            session.note(f"atom-of-thoughts: no readable sub-questions in {tries} tries; the direct answer stands")
        return Verdict(direct.answer, direct.text)
    contracted = await _contract(session, request, parts)
    if contracted is None:
        session.note("atom-of-thoughts: the question could not be contracted; the direct answer stands")
        return Verdict(direct.answer, direct.text)
    session.note(f"atom-of-thoughts: contracted question: {contracted}")
    third = await _sample(session, asking(request, contracted))
    branches = {"direct": direct, "decompose": multistep} | ({"contract": third} if third else {})
    ensemble = await _sample(session, _ensemble(request, branches))
    if third is not None:
        same = "the same answer as" if third.answer == direct.answer else "another answer than"
        session.note(f"atom-of-thoughts: the contracted question has {same} the direct one")
    if ensemble is None:
        return Verdict(direct.answer, direct.text)
    # In this order, as in the released code: the first branch with the ensemble's answer wins.
    for name, sample in branches.items():
        if sample.answer is not None and sample.answer == ensemble.answer:
            session.note(f"atom-of-thoughts: {name} won")
            return Verdict(sample.answer, sample.text)
    session.note("atom-of-thoughts: no branch has the ensemble's answer; direct won")
    return Verdict(direct.answer, direct.text)


async def _sample(session: Session, request: Request) -> Sample | None:
    async for sample in session.sample(request, n=1):
        return sample
    return None


async def _label(session: Session, request: Request, solution: Sample, tries: int) -> list[Part] | None:
    """Sub-questions of a solution, None where no try gives any."""
    asked = asking(
        request,
        f"Question:\n{question(request)}\n\nSolution:\n{solution.text}\n\n"
        "Split this solution into the sub-questions that it answers on its way, in order. Reply with JSON only: "
        '{"sub-questions": [{"description": "...", "answer": "...", "depend": [numbers]}]}. '
        "`depend` lists, counted from 0, the earlier sub-questions whose answers this one needs; it is empty for one "
        "that the question's own facts suffice for.",
    )
    plain = replace(asked, answer="text")  # a list of sub-questions: no answer is to be read from it
    for _ in range(tries):
        sample = await _sample(session, plain)
        if sample is None:
            return None
        parts = labelled(sample.text)
        if parts is not None:
            return parts
    return None


def labelled(text: str) -> list[Part] | None:
    """Sub-questions in a reply; None for anything but the JSON asked for, with `depend` pointing backwards."""
    fenced = _BLOCK.search(text)
    body = fenced.group(1) if fenced else text[text.find("{") : text.rfind("}") + 1]
    try:
        rows = json.loads(body)["sub-questions"]
        parts = [
            Part(str(item["description"]), str(item["answer"]), tuple(int(number) for number in item["depend"]))
            for item in rows
        ]
    except (ValueError, KeyError, TypeError):
        return None
    backwards = all(0 <= number < place for place, part in enumerate(parts) for number in part.depend)
    return parts if parts and backwards else None


def split(parts: list[Part]) -> tuple[list[Part], list[Part]]:
    """Independent and dependent sub-questions, in order."""
    return [part for part in parts if not part.depend], [part for part in parts if part.depend]


async def _contract(session: Session, request: Request, parts: list[Part]) -> str | None:
    """One self-contained question that takes what the independent sub-questions gave as known."""
    independent, dependent = split(parts)
    facts = "\n".join(f"- {part.description} {part.answer}" for part in independent)
    rest = "\n".join(f"- {part.description}" for part in dependent) or "- (none: ask for the final result)"
    asked = asking(
        request,
        f"Question:\n{question(request)}\n\nKnown by now:\n{facts}\n\nStill to be found:\n{rest}\n\n"
        "Write one shorter question with the same final answer that can be understood on its own: state what is known "
        "by now as given facts, and do not solve it. Put it between <question> and </question>.",
    )
    sample = await _sample(session, replace(asked, answer="text"))
    match = _CONTRACTED.search(sample.text) if sample else None
    return match.group(1).strip() or None if match else None


def _ensemble(request: Request, branches: dict[str, Sample]) -> Request:
    solutions = "\n\n".join(f"Solution {number}:\n{sample.text}" for number, sample in enumerate(branches.values(), 1))
    return asking(
        request,
        f"Question:\n{question(request)}\n\n{solutions}\n\nCompare these solutions, decide which is right, and finish "
        "with a line of the form: The answer is X.",
    )
