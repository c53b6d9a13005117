"""The seam between a session and whatever produces tokens.

Knows: the call, the events it yields and the features an engine declares. Does not know HTTP,
budgets or strategies. A strategy cannot tell one engine from another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from outthink.core import defaults
from outthink.core.defaults import offered
from outthink.core.request import Message, Sampling
from outthink.core.time_model import TimeModel


@dataclass(frozen=True, slots=True)
class Features:
    """What an engine can do. None means that it has not been found out yet.

    Args:
        logprobs: log-probabilities of the chosen tokens.
        top_logprobs: how many alternatives a token can come with (0 = none, DeepConf wants 20).
        full_logprobs: statistics of the whole vocabulary (self-certainty).
        prefix: a partial assistant message can be continued.
        seed: the same seed gives the same completion.
        counted: every piece of a stream tells the tokens so far, so that no piece means no token.
    """

    logprobs: bool | None = None
    top_logprobs: int | None = None
    full_logprobs: bool | None = False
    prefix: bool | None = None
    seed: bool | None = None
    counted: bool | None = None


@dataclass(slots=True)
class Call:
    """One completion to produce. Not frozen only because replay makes millions of them; nobody writes to it.

    Args:
        messages: the chat.
        sampling: parameters; `sampling.max_tokens` is already what the budget admits.
        seed: of this very sample, None for none.
        index: sample number for its prompt within the session; no number is used twice.
        prefix: assistant text to continue; events carry only new text.
        top_logprobs: None = no log-probabilities, 0 = chosen tokens only, k = k alternatives.
        problem: identifier of the recorded problem, for replay.
        alternatives: the text of those k alternatives is wanted too.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int | None = None
    index: int = 0
    prefix: str | None = None
    top_logprobs: int | None = None
    problem: str | None = None
    alternatives: bool = False


@dataclass(slots=True)
class Delta:
    """A piece of a running completion. Not frozen only because streams make one for every token.

    Args:
        text, reasoning: new text of either kind, maybe empty.
        tokens: generated tokens so far (cumulative, reasoning included), None if not told.
        logprobs: natural-log probabilities of new tokens, one a token, empty without them.
        confidences: DeepConf confidence of new tokens (minus the mean of their top-k
            log-probabilities), one a token, empty without top-k log-probabilities.
        prompt_tokens: tokens of the prompt as soon as the server tells, else None.
        alternatives: for each new token its text and the log-probabilities of its alternatives by
            their text, where the call asks for them.
        pieces: chunks of text that came together; a lower bound on new tokens.
    """

    text: str = ""
    reasoning: str = ""
    tokens: int | None = None
    logprobs: Sequence[float] = ()
    confidences: Sequence[float] = ()
    prompt_tokens: int | None = None
    alternatives: Sequence[tuple[str, Mapping[str, float]]] = ()
    pieces: int = 1

    @classmethod
    def of(cls, deltas: Sequence[Delta]) -> Delta | None:
        """What came together, as one; None for nothing. Counts are cumulative, so the last ones hold."""
        if len(deltas) < 2:
            return deltas[0] if deltas else None
        return cls(
            "".join([delta.text for delta in deltas]),
            "".join([delta.reasoning for delta in deltas]),
            deltas[-1].tokens,
            [value for delta in deltas for value in delta.logprobs],
            [value for delta in deltas for value in delta.confidences],
            deltas[-1].prompt_tokens,
            [alternatives for delta in deltas for alternatives in delta.alternatives],
            sum([delta.pieces for delta in deltas if delta.text or delta.reasoning]),
        )


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a completion, always the last event. Counts are None where the server is silent.

    `stop` is the stop sequence that was hit, empty if the model ended by itself, None if not told.
    """

    finish_reason: str = "stop"
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    self_certainty: float | None = None
    stop: str | None = None


Event = Delta | Finish


class Engine(Protocol):
    """Where tokens come from. Subclass it and write `model` and `generate`; the rest has defaults.

    `generate` yields Deltas, then exactly one Finish. Closing the iterator cancels the work at
    once. It raises EngineError, with `fatal` where a retry cannot help, and never retries by itself.
    """

    @offered
    def model(self) -> str:
        """Identifier for receipts and price look-up; may become more precise after `prepare`."""
        raise NotImplementedError(f"{type(self).__name__} names no model")

    @offered
    def features(self) -> Features:
        """What is known about this engine's abilities now."""
        return Features()

    @offered
    def concurrency(self) -> int:
        """How many calls may run at once."""
        return 8

    @offered
    def url(self) -> str | None:
        """Address of the server, without secrets, by which published prices are found; None for a local engine."""
        return None

    @offered
    def parameters(self) -> int | None:
        """Weights read per token, None as long as they are unknown."""
        return None

    @offered
    def parameters_told(self) -> bool:
        """Whether `parameters` is what a server says, and not what was read from the model's file."""
        return False

    @offered
    def revision(self) -> str | None:
        """Which version of the model this is, None if unknown; a policy of another version is refused."""
        return None

    @offered
    def speed(self) -> TimeModel | None:
        """The time model of an engine that runs on the virtual clock, None for any other."""
        return None

    @offered
    def notes(self) -> tuple[str, ...]:
        """What belongs into the receipt: parameters that the engine does not accept or heed."""
        return ()

    async def prepare(self, call: Call) -> None:
        """Get ready for calls like this one (start a server, discover features). Idempotent."""
        return

    @abstractmethod
    def generate(self, call: Call) -> AsyncIterator[Event]:
        """Produce one completion."""
        ...

    async def count_prompt(self, call: Call) -> int | None:
        """Exact prompt tokens by the server's own tokeniser, None where it offers none."""
        return None

    async def count_text(self, text: str) -> int | None:
        """Tokens of a text by the server's own tokeniser, None where it offers none."""
        return None

    async def aclose(self) -> None:
        """Release everything; no process or connection stays."""
        return


def complete(engine: object) -> Engine:
    """An engine of any kind as the whole protocol; for objects from outside, once, where they enter.

    One that subclasses `Engine` is returned as it is; a plain object gets the defaults of what it lacks.
    """
    return defaults.complete(engine, Engine)
