"""A reward model's weights: the transformer and the head that is read, on one device.

Knows: how texts of unequal length, with or without a prefix read before, become one padded pass,
and how many weights that pass reads. Does not know formats, tokenizers or files.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outthink.core.errors import BadInput
from outthink.verifiers.reward_model.cache import Layers
from outthink.verifiers.reward_model.formats.protocol import Format


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

    def __init__(self, body: Any, head: Any) -> None:
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
    def of(cls, model: Any, format: Format) -> Weights:
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

    def read(self, rows: Sequence[Row], *, keep: bool) -> list[tuple[Any, Layers]]:
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

    def _cache(self, rows: Sequence[Row], past: int) -> Any:
        """The rows' prefixes side by side, each padded on the left."""
        import torch
        from transformers import DynamicCache

        if not past:
            return DynamicCache()
        example = next(row.layers for row in rows if row.layers)
        joined = []
        for layer, (keys, values) in enumerate(example):
            side = []
            for which, one in enumerate((keys, values)):
                block = torch.zeros((len(rows), one.shape[0], past, one.shape[2]), dtype=one.dtype, device=one.device)
                for number, row in enumerate(rows):
                    if row.layers and row.before:
                        block[number, :, past - row.before :] = row.layers[layer][which]
                side.append(block)
            joined.append((side[0], side[1]))
        return DynamicCache(joined)


def _kept(cache: Any, number: int, past: int, count: int) -> Layers:
    return [
        (layer.keys[number, :, past : past + count], layer.values[number, :, past : past + count])
        for layer in cache.layers
    ]


def _rows(head: Any, rows: Sequence[int]) -> Any:
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
