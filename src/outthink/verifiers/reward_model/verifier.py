"""A reward model as a verifier.

Knows: which text of a request is the question, that inputs are refused where they are too long, and
what each judgement read. Does not know files or input formats.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Sequence

from outthink.core.errors import BadInput, EngineError
from outthink.core.request import Request
from outthink.core.sample import Candidate, split_steps
from outthink.verifiers.protocol import Aggregation, Kind, Score, Verifier, in_thread, question_of
from outthink.verifiers.reward_model.formats import Encoded, Format, Module, Tokenizer, make_format, name_of
from outthink.verifiers.reward_model.scorer import PrefixCache, ScoredText, Scorer, Weights

_CACHE_BYTES = 512 * 1024 * 1024


class RewardModelVerifier(Verifier):
    """Judges with a reward model in this process.

    Args:
        model: a transformers model with the head that the format reads, or `Weights`.
        tokenizer: of transformers, a fast one.
        format: a name of `FORMATS`, or a format of its own settings.
        name: its name in receipts; default: the last part of the model's `name_or_path`.
        id: default: name, revision or a digest of weights, and format.
        kind: `process`, or `outcome` for a model whose last score alone means something.
        aggregation: default: what the format's authors use.
        max_context: tokens of an input at most; default: the model's own limit.
        cache_bytes: memory for keys and values of texts read before; 0 for none.
        batch_tokens: tokens of a padded batch at most.
    """

    id: str
    kind: Kind
    model: str
    parameters: int | None
    separator: str
    aggregation: Aggregation

    def __init__(
        self,
        model: Module | Weights,
        tokenizer: Tokenizer,
        format: str | Format,
        *,
        name: str | None = None,
        id: str | None = None,
        kind: Kind = "process",
        aggregation: Aggregation | None = None,
        max_context: int | None = None,
        cache_bytes: int = _CACHE_BYTES,
        batch_tokens: int = 8192,
    ) -> None:
        self.format: Format = make_format(format, tokenizer) if isinstance(format, str) else format
        self.weights = Weights.of(model, self.format)
        self.model = name or (name_of(model) or "reward model").rstrip("/").rsplit("/", 1)[-1]
        self.id = id or f"{self.model}@{_revision(self.weights)}/{self.format.name}"
        self.kind = kind
        self.parameters = self.weights.parameters
        self.separator = self.format.separator
        self.aggregation = aggregation or self.format.aggregation
        self.max_context = max_context or self.weights.max_context
        self.device = str(self.weights.device)
        self.cache = PrefixCache(cache_bytes // self.weights.bytes_per_token)
        self._scorer = Scorer(self.weights, self.format.probabilities, self.cache, batch_tokens)
        self._turn = threading.Lock()

    def bound(self, request: Request, candidate: Candidate) -> int:
        """The exact number of tokens. Raises BadInput where `score` would."""
        return len(self._encode(request, candidate).ids)

    async def score(self, request: Request, candidates: Sequence[Candidate]) -> list[Score]:
        """See the protocol; reads in a thread, and in search only what is new since the last call."""
        texts = [self._encode(request, candidate) for candidate in candidates]
        cancelled = threading.Event()
        try:
            return await in_thread(lambda: self._score([texts], self.kind == "process", cancelled))
        except asyncio.CancelledError:
            cancelled.set()  # the thread ends after the batch that it is reading
            raise

    def score_many(self, work: Sequence[tuple[Request, Sequence[Candidate]]]) -> list[list[Score]]:
        """Scores for many questions in full batches, blocking; keeps no candidate for later.

        Raises as `score` does.
        """
        groups = [[self._encode(request, candidate) for candidate in candidates] for request, candidates in work]
        scores = iter(self._score(groups, False, threading.Event()))
        return [[next(scores) for _ in group] for group in groups]

    def _encode(self, request: Request, candidate: Candidate) -> Encoded:
        """The input. An outcome model reads the same steps, of which the last one's score counts."""
        steps: Sequence[str] = candidate.steps
        if self.kind == "outcome":
            steps = split_steps(candidate.text, self.separator) or steps
        text = self.format.encode(question_of(request), steps)
        if self.max_context is not None and len(text.ids) > self.max_context:
            raise BadInput(
                "candidate",
                candidate.text,
                f"takes {len(text.ids)} tokens, and {self.model} reads {self.max_context} at most",
                "leave it out or use a verifier with a longer context",
            )
        if len(text.positions) != len(steps):
            raise EngineError(f"{self.id}: {len(text.positions)} scores for {len(steps)} steps")
        return text if self.kind == "process" else Encoded(text.ids, text.positions[-1:])

    def _score(self, groups: Sequence[Sequence[Encoded]], keep: bool, cancelled: threading.Event) -> list[Score]:
        with self._turn:  # the cache is one for all
            try:
                results = self._scorer.score(groups, keep=keep, stopped=cancelled.is_set)
            except RuntimeError as error:  # out of memory, or a kernel that the device lacks
                line = (str(error).splitlines() or [type(error).__name__])[0]
                raise EngineError(f"{self.id} failed on {self.device}: {line}") from error
        seen: set[Encoded] = set()
        return [self._receipt(text, results[text], seen) for group in groups for text in group]

    def _receipt(self, text: Encoded, scored: ScoredText, seen: set[Encoded]) -> Score:
        """The score of one text; one that stood there before has cost nothing."""
        missing = [position for position in text.positions if position not in scored.scores]
        if missing:
            raise EngineError(f"{self.id}: {len(missing)} of {len(text.positions)} steps have no score")
        read = 0 if text in seen else scored.read
        seen.add(text)
        steps = tuple(scored.scores[position] for position in text.positions)
        return Score(steps, len(text.ids), 0, max(0, len(text.ids) - read))


def _revision(weights: Weights) -> str:
    """The commit that the hub names, else a digest of some weights of the transformer and the head."""
    commit = getattr(weights.body.config, "_commit_hash", None)
    if commit:
        return str(commit)[:12]
    digest = hashlib.sha256()
    for parameter in (list(weights.body.parameters())[-1], *weights.head.parameters()):
        digest.update(parameter.detach().flatten()[:65536].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
