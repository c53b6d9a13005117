"""Scores encoded texts in padded batches, reading only what was not read before.

Knows: batches by token count, prefixes that the texts of a question share, the cache of their keys and values, and how
texts of unequal length become one padded pass. Does not know requests, formats, files or threads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from outthink.core.errors import BadInput
from outthink.verifiers.reward_model.formats import Device, Encoded, Format, Module, Tensor

# Memory: at most `budget` tokens are kept, each held once however many texts share it, so at most
# budget x (bytes of keys and values a token) stay allocated. What a reader takes out is a copy; nothing
# that is read later can change it.

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, shaped (heads, tokens, size of a head)."""


@dataclass(slots=True, eq=False)
class _Segment:
    """Tokens from `start` on that follow the parent's; `scores` by position in the whole text."""

    start: int
    ids: tuple[int, ...]
    layers: Layers
    parent: _Segment | None
    scores: dict[int, float] = field(default_factory=dict)
    children: dict[int, _Segment] = field(default_factory=dict)
    used: int = 0


class PrefixCache:
    """Prefixes by their token ids.

    Args:
        budget: tokens to keep; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.tokens = 0
        self._clock = 0
        self._root = _Segment(0, (), [], None)

    def find(self, ids: Sequence[int], positions: Sequence[int]) -> tuple[int, dict[int, float]]:
        """How many leading tokens need not be read again, and the scores at positions among them.

        A prefix ends before the first position whose score is not known, for its token must be read.
        """
        length, scores = 0, {}
        for segment, count in self._path(ids):
            length += count
            scores.update(segment.scores)
        unknown = next((position for position in positions if position < length and position not in scores), None)
        length = length if unknown is None else unknown
        return length, {position: scores[position] for position in positions if position < length}

    def layers(self, ids: Sequence[int], length: int) -> Layers:
        """A copy of the keys and values of the first `length` tokens, which `find` has just found."""
        import torch

        pieces = []
        for segment, count in self._path(ids[:length]):
            pieces.append([(keys[:, :count], values[:, :count]) for keys, values in segment.layers])
        return [
            (torch.cat([keys for keys, _ in parts], 1), torch.cat([values for _, values in parts], 1))
            for parts in zip(*pieces, strict=True)
        ]

    def store(self, ids: Sequence[int], start: int, layers: Layers, scores: Mapping[int, float]) -> None:
        """Keep what was read of a text.

        Args:
            start: index of the first token that `layers` holds; nothing is kept if the tokens before
                it are no longer there.
        """
        path = list(self._path(ids))
        known = sum(count for _, count in path)
        if known < start or len(ids) > self.budget:
            return
        for segment, count in path:
            end = segment.start + count
            segment.scores.update({at: score for at, score in scores.items() if segment.start <= at < end})
        if known == len(ids):
            return
        parent, count = path[-1] if path else (self._root, 0)
        if count < len(parent.ids):
            parent = self._split(parent, count)
        fresh = [(keys[:, known - start :].clone(), values[:, known - start :].clone()) for keys, values in layers]
        added = {at: score for at, score in scores.items() if at >= known}
        segment = _Segment(known, tuple(ids[known:]), fresh, parent, added, used=self._clock)
        parent.children[segment.ids[0]] = segment
        self.tokens += len(segment.ids)
        self._evict()

    def _path(self, ids: Sequence[int]) -> Iterator[tuple[_Segment, int]]:
        """Segments that the text begins with, and how many tokens of each."""
        self._clock += 1
        segment, at = self._root, 0
        while at < len(ids) and (child := segment.children.get(ids[at])) is not None:
            child.used = self._clock
            count, most = 0, min(len(child.ids), len(ids) - at)
            while count < most and child.ids[count] == ids[at + count]:
                count += 1
            yield child, count
            if count < len(child.ids):
                return
            segment, at = child, at + count

    def _split(self, segment: _Segment, count: int) -> _Segment:
        """Cut a segment in two; returns the first part. Copies, so that each part can be freed alone."""
        parent = segment.parent or self._root
        cut = segment.start + count
        head = _Segment(
            segment.start,
            segment.ids[:count],
            [(keys[:, :count].clone(), values[:, :count].clone()) for keys, values in segment.layers],
            parent,
            {at: score for at, score in segment.scores.items() if at < cut},
            {segment.ids[count]: segment},
            segment.used,
        )
        parent.children[head.ids[0]] = head
        segment.layers = [(keys[:, count:].clone(), values[:, count:].clone()) for keys, values in segment.layers]
        segment.scores = {at: score for at, score in segment.scores.items() if at >= cut}
        segment.start, segment.ids, segment.parent = cut, segment.ids[count:], head
        return head

    def _evict(self) -> None:
        """Drop the leaves used longest ago until the rest fits."""
        while self.tokens > self.budget:
            oldest = min(self._leaves(self._root), key=lambda leaf: leaf.used)
            parent = oldest.parent or self._root
            del parent.children[oldest.ids[0]]
            self.tokens -= len(oldest.ids)

    def _leaves(self, segment: _Segment) -> Iterator[_Segment]:
        stack = [segment]
        while stack:
            segment = stack.pop()
            stack.extend(segment.children.values())
            if not segment.children:
                yield segment


@dataclass(slots=True)
class Row:
    """One text of a pass: the tokens to read, after a prefix of `before` tokens that was read earlier.

    `positions` are indices into `ids` at which the head is applied.
    """

    ids: Sequence[int]
    positions: Sequence[int]
    before: int = 0
    layers: Layers | None = None


class Weights:
    """A transformer without its own head, and the head that a format reads.

    Args:
        body: returns hidden states (`AutoModel`).
        head: a module from hidden states to logits.

    `parameters` are the weights read for a token: transformer and head, without the embedding table,
    of which one row is looked up.
    """

    def __init__(self, body: Module, head: Module) -> None:
        self.body, self.head = body.eval(), head.eval()
        weight = next(body.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.head.to(device=self.device)
        table = {id(parameter) for parameter in body.get_input_embeddings().parameters()}
        used = {id(parameter): parameter for module in (body, head) for parameter in module.parameters()}
        self.parameters = sum(parameter.numel() for key, parameter in used.items() if key not in table)
        taken = inspect.signature(type(body).forward).parameters
        self._cache_name = "cache" if "cache" in taken else "past_key_values"  # renamed within transformers 5
        config = body.config.get_text_config()
        self.max_context: int | None = getattr(config, "max_position_embeddings", None)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.bytes_per_token: int = 2 * config.num_hidden_layers * heads * size * weight.element_size()

    @classmethod
    def of(cls, model: Module | Weights, format: Format) -> Weights:
        """Take a model apart into what a format needs of it. Raises BadInput if it has no such head."""
        if isinstance(model, Weights):
            return model
        if format.readout == "tokens":
            head = _rows(model.get_output_embeddings(), format.outputs)
        else:
            names = {"value": ("v_head",), "classes": ("score",), "label": ("score", "classifier")}[format.readout]
            head = next((getattr(model, name) for name in names if getattr(model, name, None) is not None), None)
        if head is None:
            name = type(model).__name__
            raise BadInput("model", name, f"has no head that format {format.name} reads", "choose another format")
        return cls(model.base_model, head)

    def to(self, device: Device) -> Weights:
        """The same on a device."""
        return Weights(self.body.to(device), self.head)

    def read(self, rows: Sequence[Row], *, keep: bool) -> list[tuple[Tensor, Layers]]:
        """Logits at each row's positions, and the keys and values of its tokens (empty unless kept).

        Prefixes are padded on the left and tokens on the right, so that every row's tokens follow its
        prefix at once.
        """
        import torch

        width = max(len(row.ids) for row in rows)
        past = max(row.before for row in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros((len(rows), past + width), dtype=torch.long)
        places = torch.zeros((len(rows), width), dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            mask[number, past - row.before : past + len(row.ids)] = 1
            places[number] = torch.arange(row.before, row.before + width)
        with torch.inference_mode():
            cache = self._cache(rows, past) if past or keep else None
            out = self.body(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                position_ids=places.to(self.device),
                use_cache=cache is not None,
                **{self._cache_name: cache},
            )
            read = []
            for number, row in enumerate(rows):
                hidden = out.last_hidden_state[number, torch.tensor(list(row.positions), dtype=torch.long)]
                logits = self.head(hidden.to(next(self.head.parameters()).dtype)).float()
                read.append((logits, _kept(cache, number, past, len(row.ids)) if keep else []))
            return read

    def _cache(self, rows: Sequence[Row], past: int) -> Module:
        """The rows' prefixes side by side, each padded on the left."""
        import torch
        from transformers import DynamicCache

        if not past:
            return DynamicCache()
        example = next(row.layers for row in rows if row.layers)
        joined = []
        for layer, (keys, values) in enumerate(example):
            side = []
            for which, prefix in enumerate((keys, values)):
                block = torch.zeros(
                    (len(rows), prefix.shape[0], past, prefix.shape[2]),
                    dtype=prefix.dtype,
                    device=prefix.device,
                )
                for number, row in enumerate(rows):
                    if row.layers and row.before:
                        block[number, :, past - row.before :] = row.layers[layer][which]
                side.append(block)
            joined.append((side[0], side[1]))
        return DynamicCache(joined)


def _kept(cache: Module, number: int, past: int, count: int) -> Layers:
    return [
        (layer.keys[number, :, past : past + count], layer.values[number, :, past : past + count])
        for layer in cache.layers
    ]


def _rows(head: Module, rows: Sequence[int]) -> Module:
    """A linear head of the few rows of the vocabulary's that are read."""
    import torch

    if head is None:
        return None
    small = torch.nn.Linear(head.in_features, len(rows), bias=head.bias is not None)
    small.to(dtype=head.weight.dtype)
    with torch.no_grad():
        small.weight.copy_(head.weight[list(rows)])
        if head.bias is not None:
            small.bias.copy_(head.bias[list(rows)])
    return small


_SHARED = 8  # a shared prefix of fewer tokens is not worth a pass of its own


@dataclass(slots=True)
class ScoredText:
    """Scores at the positions of a text, and how many tokens were read for them."""

    scores: dict[int, float] = field(default_factory=dict)
    read: int = 0


class Scorer:
    """Reads texts.

    Args:
        probabilities: from logits (positions x outputs) to scores.
        cache: what was read before.
        batch_tokens: tokens of a padded batch at most, prefixes included; a single text may be longer.
    """

    def __init__(
        self, weights: Weights, probabilities: Callable[[Tensor], Tensor], cache: PrefixCache, batch_tokens: int
    ) -> None:
        self.weights, self.cache, self.batch_tokens = weights, cache, batch_tokens
        self._probabilities = probabilities

    def score(
        self, groups: Sequence[Sequence[Encoded]], *, keep: bool, stopped: Callable[[], bool] = lambda: False
    ) -> dict[Encoded, ScoredText]:
        """Each distinct text's scores.

        Args:
            groups: texts that begin alike (one question's) stand together; what all of them begin with
                is read once, and counted with the first.
            keep: the texts will be continued, so their keys and values stay in the cache.
            stopped: asked before every batch; where it says so, texts not yet read have no scores.
        """
        results: dict[Encoded, ScoredText] = {}
        openings: dict[Encoded, Encoded] = {}
        for group in groups:
            texts = [text for text in dict.fromkeys(group) if text not in results]
            results.update((text, ScoredText()) for text in texts)
            if (opening := self._opening(texts)) is not None:
                openings[opening] = texts[0]
        shared = {opening: ScoredText() for opening in openings}
        self._read(shared, keep=True, stopped=stopped)
        for opening, text in openings.items():
            results[text].read += shared[opening].read
        self._read(results, keep=keep, stopped=stopped)
        return results

    def _opening(self, texts: Sequence[Encoded]) -> Encoded | None:
        """What several texts have in common, None where reading it first saves nothing."""
        if len(texts) < 2:
            return None
        first, last = min(text.ids for text in texts), max(text.ids for text in texts)
        most = min(len(text.ids) for text in texts) - 1
        length = next((at for at in range(most) if first[at] != last[at]), most)
        positions = tuple(position for position in texts[0].positions if position < length)
        if length > self.cache.budget or length - self.cache.find(first[:length], positions)[0] < _SHARED:
            return None
        return Encoded(first[:length], positions)

    def _read(self, results: dict[Encoded, ScoredText], *, keep: bool, stopped: Callable[[], bool]) -> None:
        waiting = sorted(results, key=lambda text: len(text.ids), reverse=True)
        while waiting and not stopped():
            most = max(1, self.batch_tokens // len(waiting[0].ids))
            batch, waiting = waiting[:most], waiting[most:]
            rows: list[tuple[Encoded, Row]] = []
            for text in batch:
                before, known = self.cache.find(text.ids, text.positions)
                results[text].scores.update(known)
                if before < len(text.ids):
                    rows.append((text, self._row(text, before)))
            if not rows:
                continue
            for (text, row), (logits, layers) in zip(
                rows, self.weights.read([row for _, row in rows], keep=keep), strict=True
            ):
                places = [place + row.before for place in row.positions]
                scores = dict(zip(places, self._probabilities(logits).tolist(), strict=True)) if places else {}
                results[text].scores.update(scores)
                results[text].read += len(row.ids)
                if keep:
                    self.cache.store(text.ids, row.before, layers, scores)

    def _row(self, text: Encoded, before: int) -> Row:
        places = [position - before for position in text.positions if position >= before]
        layers = self.cache.layers(text.ids, before) if before else None
        return Row(text.ids[before:], places, before, layers)
