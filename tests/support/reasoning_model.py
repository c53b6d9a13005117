"""A scripted reasoning model: a stochastic story of thinking, not a recorded one. Nothing here was fitted to a model.
Its parameters were set by hand, several of them after looking at what came out; figures on it show how strategies and
controls behave, never how good they are.

A trace consists of phases of a few sentences. Only at the end of a phase is the belief settled; before a problem is
solved trial answers are guesses, after it right and confident, until overthinking may lose it again. Turning words
(wait, but, so, ...) stand where a phase begins, or, with `informative=False`, anywhere at the same rate. One token is
four characters. Everything is a function of the problem's name and the text so far, so that a trace can be continued
from any prefix.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from functools import lru_cache

from outthink import Completion, ScriptedEngine, Speed
from outthink.engines.protocol import Call
from outthink.strategies.serial.thinking import CLOSE

WIDTH = 4
WORDS = ("the", "value", "term", "sum", "part", "line", "case", "side", "step", "form", "root", "base", "rate", "ratio")
TURNS = ("Wait", "But", "Alternatively", "Hmm", "However", "So", "Therefore", "Thus")
_REDIRECT = re.compile(r"\n<feedback>step \d+ unsound[^<]*</feedback>\nWait,")
_FEEDBACK = re.compile(r"\n<feedback>[^<]*</feedback>\n?")
_REASONING = re.compile(r"<reasoning>\n(.*)\n</reasoning>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of thinking up to its natural end; `ends` are (position, belief) at the end of each phase."""

    text: str
    ends: tuple[tuple[int, str | None], ...]
    phases: int


@dataclass(frozen=True)
class State:
    """Where a prefix has got to: its segment, the position in it, and what is believed there."""

    key: tuple[object, ...]
    segment: Segment
    at: int
    belief: str | None
    settled: bool


@dataclass(frozen=True)
class ReasoningModel:
    """The story's parameters; all probabilities are per phase unless said otherwise.

    Args:
        informative: turning words mark the ends of phases; False: any sentence, at the same rate.
        lost: a right belief is lost while verifying.
        patience: mean phases of going on with a belief, a right one (a wrong one lasts 1.5 times as long).
        longest: phases after which it ends in any case.
    """

    informative: bool = True
    lost: float = 0.04
    patience: float = 10.0
    longest: int = 70

    def engine(self) -> ScriptedEngine:
        """The model as an engine."""
        return ScriptedEngine(
            self.complete, model="scripted-reasoning", prompt_tokens=_prompt_tokens, speed=Speed(concurrency=64)
        )

    # The story

    def truth(self, problem: str) -> str:
        """The right answer."""
        return str(random.Random(f"truth:{problem.partition('/')[0]}").randrange(100, 999))

    def wrong(self, problem: str, draw: random.Random) -> str:
        """A wrong answer, most often the problem's favourite one."""
        right = int(self.truth(problem))
        return str(right + (7 if draw.random() < 0.6 else draw.choice((1, 10, -3))))

    def solving(self, problem: str) -> float:
        """Probability that a phase solves the problem: easy, middling or hard."""
        name = problem.partition("/")[0]
        return random.Random(f"hard:{name}").choice((0.4, 0.2, 0.12, 0.06, 0.02))

    def segment(self, problem: str, key: tuple[object, ...], belief: str | None, phase: int) -> Segment:
        """The thinking from here to its natural end. `key` tells one continuation from another."""
        return _segment(self, problem, key, belief, phase)

    def state(self, problem: str, thinking: str) -> State:
        """Follow a prefix: feedback is heard, a redirection begins a new stretch, and so does a stop ignored."""
        key: tuple[object, ...] = ()
        segment, belief, phase = self.segment(problem, key, None, 0), None, 0
        at, settled = 0, True
        for place, part in enumerate(_REDIRECT.split(thinking)):
            part = _FEEDBACK.sub("", part)
            if place:
                key = (*key, at, "redirected")
                segment = self.segment(problem, key, belief, phase)
            while len(part) > len(segment.text):  # a stop was ignored: what stands there was injected
                phase, belief = segment.phases, segment.ends[-1][1]
                part = part[len(segment.text) :].removeprefix("Wait")
                key = (*key, "ignored")
                segment = self.segment(problem, key, belief, phase)
            at = len(part)
            passed = [end for end in segment.ends if end[0] <= at]
            if passed:
                belief = passed[-1][1]
                phase += len(passed)
            settled = not part.strip() or (bool(passed) and not segment.text[passed[-1][0] : at].strip())
        return State(key, segment, at, belief, settled)

    # The engine

    def complete(self, call: Call) -> Completion:
        """What the model writes next."""
        problem = call.problem or "p0/0"
        content = call.messages[-1].text
        asked = _REASONING.search(content)
        if asked:
            return self._judge(problem, asked.group(1))
        prefix = call.prefix or ""
        if not prefix and call.index:
            problem += f"/{call.index}"  # another sample of the same question
        if CLOSE in prefix:
            thinking, _, after = prefix.partition(CLOSE)
            return self._answer(problem, thinking, forced=bool(after.strip()))
        state = self.state(problem, prefix)
        final = state.segment.ends[-1][1] or "unknown"
        text = f"{state.segment.text[state.at :]}{CLOSE}\n\nThe answer is {final}."
        # The answer is given with the text, so that no reader searches a trace that grows piece by piece.
        return Completion(answer=state.segment.ends[-1][1], text=text, tokens=-(-len(text) // WIDTH))

    @property
    def first(self) -> float:
        """How often a phase begins with a turning word."""
        return 0.9 if self.informative else 0.24

    @property
    def elsewhere(self) -> float:
        """How often any other sentence does; without information every sentence does equally often, and the
        mean over a phase of 4.6 sentences is the same."""
        return 0.05 if self.informative else 0.24

    def natural(self, problem: str) -> str | None:
        """The answer at the trace's natural end."""
        return self.segment(problem, (), None, 0).ends[-1][1]

    def _answer(self, problem: str, thinking: str, *, forced: bool) -> Completion:
        thinking = thinking.rstrip("\n") if forced else thinking
        state = self.state(problem, thinking)
        if not forced:
            text = f"\n\nThe answer is {state.belief or 'unknown'}."
            return Completion(text=text, tokens=-(-len(text) // WIDTH))
        draw = random.Random(f"trial:{problem}:{state.key}:{state.at}")
        answer, sure = self._trial(problem, state, draw)
        text = " Hmm, wait" if not state.settled and draw.random() < 0.05 else f" {answer}."
        return Completion(text=text, tokens=-(-len(text) // WIDTH), logprob=math.log(sure))

    def _trial(self, problem: str, state: State, draw: random.Random) -> tuple[str, float]:
        """A trial answer and its mean token probability."""
        overconfident = random.Random(f"over:{problem.partition('/')[0]}").random() < 0.12
        if state.belief is None or (not state.settled and draw.random() < 0.45):
            guess = self.truth(problem) if draw.random() < 0.1 else self.wrong(problem, draw)
            return guess, 0.5 + 0.45 * draw.random()
        right = state.belief == self.truth(problem)
        if right or overconfident:
            low = 0.93 if state.settled else 0.88
            return state.belief, low + (0.99 - low) * draw.random() ** 0.5
        return state.belief, 0.75 + 0.23 * draw.random()

    def _judge(self, problem: str, thinking: str) -> Completion:
        """Itself as a judge: better where the belief is settled; one reply in fifty is nonsense."""
        state = self.state(problem, thinking)
        draw = random.Random(f"judge:{problem}:{state.key}:{state.at}")
        right = state.belief == self.truth(problem)
        complete = draw.random() < ((0.75 if right else 0.06) if state.settled else (0.45 if right else 0.15))
        rational = complete or draw.random() < (0.95 if right else 0.75)
        text = f'{{"rational": {rational:d}, "complete": {complete:d}, "note": ""}}'
        text = "Let me think." if draw.random() < 0.02 else text
        return Completion(text=text, tokens=-(-len(text) // WIDTH))


@lru_cache(maxsize=4096)
def _segment(model: ReasoningModel, problem: str, key: tuple[object, ...], belief: str | None, phase: int) -> Segment:
    """Built phase by phase, each from a random stream of its own."""
    parts: list[str] = []
    ends: list[tuple[int, str | None]] = []
    length, right = 0, model.truth(problem)
    fresh = key[-1] if key else "start"
    while True:
        draw = random.Random(f"{problem}:{key}:{phase}")
        text = _phase(model, draw, opening=phase == 0 or (fresh != "" and bool(key)))
        solving, lost = model.solving(problem), model.lost
        if fresh == "redirected":
            solving, lost = 1.5 * solving, 0.1
        elif "ignored" in key:  # it had ended: more thinking finds less and doubts more
            solving, lost = 0.3 * solving, 2 * lost
        fresh = ""
        if belief == right:
            belief = model.wrong(problem, draw) if draw.random() < lost else right
        elif draw.random() < solving:
            belief = right
        elif belief is None and draw.random() < 0.15:
            belief = model.wrong(problem, draw)
        if belief is not None and draw.random() < 0.6:
            text += " " + _turned(f"The answer is {belief}.", draw, model.elsewhere)
        parts.append(text)
        length += len(text)
        ends.append((length, belief))
        phase += 1
        lasting = model.patience if belief == right else 1.5 * model.patience
        done = draw.random() < (1 / lasting if belief is not None else 0.01)
        if done or phase >= model.longest + 10 * len(key):
            return Segment("".join(parts), tuple(ends), phase)


def _phase(model: ReasoningModel, draw: random.Random, *, opening: bool) -> str:
    """Two to six sentences; the first stands in a paragraph of its own."""
    text = "" if opening else "\n\n"
    for place in range(draw.randint(2, 6)):
        words = " ".join(draw.choices(WORDS, k=draw.randint(10, 22)))
        rate = 0.0 if opening and not place else model.elsewhere if place else model.first
        text += (" " if place else "") + _turned(f"{words.capitalize()}.", draw, rate)
    return text


def _turned(sentence: str, draw: random.Random, rate: float) -> str:
    """The sentence, now and then behind a turning word."""
    if draw.random() >= rate:
        return sentence
    return f"{draw.choice(TURNS)}, {sentence[0].lower()}{sentence[1:]}"


def _prompt_tokens(call: Call) -> int:
    size = sum(len(message.text) for message in call.messages) + len(call.prefix or "")
    return 10 + -(-size // WIDTH)
