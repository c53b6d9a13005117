"""The training loop: forward, loss, AdamW, cosine, checkpoints.

Knows: token targets with weights, pairs of solutions of one problem, mixed precision, which examples make up each
optimiser step (the same seed gives the same plan, so that a killed run goes on in the middle of it), and one
checkpoint, replaced whole. Does not know files of samples, metrics or the artefact.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from outthink.core.errors import BadInput, EngineError
from outthink.evaluation.sample_file import JsonObject
from outthink.training.base import Model, Tensor, require
from outthink.training.examples import Examples, Floats, Ints
from outthink.verifiers.reward_model.formats import Device


def micro_batches(lengths: Ints, budget: int, groups: Ints | None = None, order: Ints | None = None) -> list[Ints]:
    """Examples in batches of at most `budget` padded tokens, sorted by length so that little is padding.

    Args:
        groups: examples with the same number stay in one batch, which then may exceed the budget alone.
        order: breaks ties of length; a random one makes batches differ from epoch to epoch.
    """
    if budget < 1:
        raise BadInput("--batch-tokens", budget, "is below 1", "give the tokens of a batch")
    names = np.arange(len(lengths)) if groups is None else groups
    together: dict[int, list[int]] = {}
    for place in (np.arange(len(lengths)) if order is None else order).tolist():
        together.setdefault(int(names[place]), []).append(place)
    longest = {name: int(lengths[places].max()) for name, places in together.items()}
    batches: list[list[int]] = []
    for name in sorted(together, key=longest.__getitem__):  # so that the last one of a batch is the longest
        places = together[name]
        if batches and (len(batches[-1]) + len(places)) * longest[name] <= budget:
            batches[-1] += places
        else:
            batches.append(list(places))
    return [np.array(batch, np.int64) for batch in batches]


def epoch_plan(
    lengths: Ints, *, tokens: int, micro: int, seed: int, epoch: int, groups: Ints | None = None
) -> list[list[Ints]]:
    """Optimiser steps of one epoch, each a list of micro-batches: about `tokens` padded tokens a step.

    Args:
        tokens: of one optimiser step.
        micro: of one forward pass, at most `tokens`.
    """
    rng = np.random.default_rng([seed, epoch])
    parts = micro_batches(lengths, min(micro, tokens), groups, rng.permutation(len(lengths)))
    sizes = [int(lengths[part].max()) * len(part) for part in parts]
    steps: list[list[Ints]] = []
    filled = tokens
    # Parts are sorted by length; in that order an epoch would go from short solutions to long ones.
    for place in rng.permutation(len(parts)).tolist():
        # What overshoots by no more than half of its size still joins: steps hold `tokens` on average, not at most.
        if filled + sizes[place] > tokens and (filled >= tokens or filled > tokens - sizes[place] // 2):
            steps.append([])
            filled = 0
        steps[-1].append(parts[place])
        filled += sizes[place]
    return steps


_FILE = "checkpoint.pt"


class Checkpoint:
    """The newest state of one run.

    Args:
        folder: where the file lies.
        about: everything that makes two runs the same; a file of another run is refused.
    """

    def __init__(self, folder: Path, about: JsonObject) -> None:
        self.path = folder / _FILE
        self.about = json.dumps(about, sort_keys=True, default=str)

    def load(self) -> JsonObject | None:
        """The state saved last, None without one. BadInput if it belongs to another run or is damaged."""
        torch, _ = require()
        if not self.path.is_file():
            return None
        try:
            # `weights_only`: nothing that the file holds is run.
            state: JsonObject = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged file
            raise BadInput("--out", str(self.path), f"is damaged ({type(error).__name__})", "remove it") from None
        if not isinstance(state, dict) or state.get("about") != self.about:
            raise BadInput("--out", str(self.path), "is the checkpoint of another run", "remove it or change --out")
        return state

    def save(self, **state: Any) -> None:
        """Replace what was saved. BadInput where it cannot be written."""
        torch, _ = require()
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"about": self.about, **state}, draft)
            os.replace(draft, self.path)  # a kill while it was written has left the previous one whole
        except (OSError, RuntimeError) as error:
            draft.unlink(missing_ok=True)
            raise BadInput("--out", str(self.path), f"cannot be written ({error})", "check the folder") from None

    def remove(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)


Dtype = Literal["auto", "fp32", "bf16"]
_MICRO = {"cuda": 32_768, "cpu": 4_096}
_CLIP = 1.0
_LOGGED = 20  # points of the curve an epoch, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How to train.

    Args:
        epochs: passes over all examples.
        lr: highest learning rate, reached after `warmup` (share of all steps), then a cosine to a tenth.
        batch_tokens: padded tokens of an optimiser step; `micro_tokens` of one forward pass (None: by device).
        rank_weight: of a pairwise loss, right above wrong solution of the same problem; 0 for none.
        weight_decay, betas: of AdamW.
        device: `cuda`, `cpu`, ...; None for a GPU if there is one.
        dtype: of the arithmetic; `auto` is bf16 on a GPU and fp32 elsewhere. Weights stay fp32.
        compile: let torch compile the model.
        save_seconds: between checkpoints.
        max_steps: stop after so many steps (the schedule is that of the whole run); None for all.
    """

    epochs: int = 2
    lr: float = 1e-4
    batch_tokens: int = 65_000
    micro_tokens: int | None = None
    rank_weight: float = 0.0
    warmup: float = 0.05
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)  # as Snell et al. (arXiv 2408.03314) train theirs
    device: str | None = None
    dtype: Dtype = "auto"
    compile: bool = False
    seed: int = 0
    save_seconds: float = 120.0
    max_steps: int | None = None

    def about(self) -> JsonObject:
        """What makes two runs the same."""
        chosen = asdict(self)
        # These two say when a run saves and stops, not what it computes: it goes on with others.
        return {name: chosen[name] for name in chosen if name not in ("save_seconds", "max_steps")}


def device_of(name: str | None) -> Device:
    """The torch device; BadInput for one that is not here."""
    torch, _ = require()
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise BadInput("--device", name, f"cannot be used ({line})", "use cpu or cuda") from None
    return device


def autocast(device: Device, dtype: Dtype) -> AbstractContextManager[object]:
    """Mixed precision: bf16 matrix products where asked for."""
    torch, _ = require()
    wanted = dtype == "bf16" or (dtype == "auto" and device.type == "cuda")
    context: AbstractContextManager[object] = torch.autocast(device.type, torch.bfloat16, enabled=wanted)
    return context


def micro_tokens(device: Device, wanted: int | None) -> int:
    """Padded tokens of one forward pass."""
    return wanted or _MICRO.get(device.type, 8_192)


def moved(array: Ints | Floats, device: Device) -> Tensor:
    """An array on the device, through pinned memory if that is a GPU."""
    torch, _ = require()
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class TrainingRun:
    """One training run over prepared examples.

    Args:
        model: gives `.logits` (examples, longest, 1); trained in place.
        say: gets a line now and then.
        after_epoch: gets the number of epochs done; what it returns joins the curve.
    """

    def __init__(
        self,
        model: Model,
        examples: Examples,
        settings: TrainingSettings,
        *,
        checkpoint: Checkpoint,
        say: Callable[[str], None],
        after_epoch: Callable[[int], JsonObject],
    ) -> None:
        torch, _ = require()
        if settings.epochs < 1 or not settings.lr > 0:
            raise BadInput("--epochs", settings.epochs, "or --lr leaves nothing to learn", "give both above 0")
        if not examples.weights.any():
            raise BadInput("--samples", 0, "leave nothing to learn from", "give more samples or --max-context")
        self.settings, self.examples, self.checkpoint = settings, examples, checkpoint
        self.say, self.after_epoch = say, after_epoch
        self.device = device_of(settings.device)
        self.model = model.to(self.device)
        self.forward = torch.compile(self.model, dynamic=True) if settings.compile else self.model
        self.learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.learning,
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )
        # A pair counts only where both stand in one part.
        groups = examples.problem if settings.rank_weight > 0 else None
        # All epochs at once: the learning rate of a step depends on the number of all steps.
        self.plans = [
            epoch_plan(
                examples.lengths,
                tokens=settings.batch_tokens,
                micro=micro_tokens(self.device, settings.micro_tokens),
                seed=settings.seed,
                epoch=epoch,
                groups=groups,
            )
            for epoch in range(settings.epochs)
        ]
        self.total = sum(map(len, self.plans))
        self.curve: list[JsonObject] = []
        self.done = 0
        self.seconds = 0.0
        self.tokens = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine down to a tenth."""
        warm = max(1, round(self.settings.warmup * self.total))
        if step < warm:
            return self.settings.lr * (step + 1) / warm
        share = (step - warm) / max(1, self.total - warm)
        return self.settings.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))

    def train(self) -> list[JsonObject]:
        """Train to the end, or to `max_steps`; returns the curve. EngineError where the loss is no number."""
        self._resume()
        self.model.train()
        began, saved = time.monotonic() - self.seconds, time.monotonic()
        last = min(self.total, self.settings.max_steps or self.total)
        every = max(1, len(self.plans[0]) // _LOGGED)
        losses: list[Tensor] = []
        boundary = 0
        for epoch, plan in enumerate(self.plans, start=1):
            for number, parts in enumerate(plan, start=boundary):
                if number < self.done or number >= last:
                    continue
                losses.append(self._step(number, parts))
                self.done = number + 1
                self.seconds = time.monotonic() - began
                if self.done % every == 0 or self.done in (1, last):
                    self._log(epoch, losses)
                    losses = []
                if time.monotonic() - saved >= self.settings.save_seconds:
                    self._save()
                    saved = time.monotonic()
            boundary += len(plan)
            # Also where a killed run had done the epoch's last step and not yet measured it.
            if self.done == boundary and not any(point.get("epoch_done") == epoch for point in self.curve):
                figures = self.after_epoch(epoch)
                self.curve.append({"epoch_done": epoch, "step": self.done, **figures})
                self.model.train()  # measuring has put it into evaluation, without dropout
        self._save()
        return self.curve

    def _step(self, number: int, parts: list[Ints]) -> Tensor:
        torch, _ = require()
        torch.manual_seed(self.settings.seed * 1_000_003 + number)  # dropout does not depend on where a run was killed
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(number)
        # Over the whole step, not a micro-batch: how examples are cut must not change what a token weighs.
        weight = sum(float(self.examples.batch(part)[2].sum()) for part in parts)
        pairs = sum(self._pairs(part).sum() for part in parts) if self.settings.rank_weight > 0 else 0
        total = torch.zeros((), device=self.device)  # stays there: reading it would wait for the device at every step
        for part in parts:
            loss = self._loss(part, weight, float(pairs))
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.learning, _CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.tokens += int(sum(self.examples.lengths[part].sum() for part in parts))
        return total

    def _pairs(self, part: Ints) -> npt.NDArray[np.bool_]:
        """(examples, examples): right solution in the row, wrong one of the same problem in the column."""
        right, problem = self.examples.correct[part], self.examples.problem[part]
        pairs: npt.NDArray[np.bool_] = right[:, None] & ~right[None, :] & (problem[:, None] == problem[None, :])
        return pairs

    def _loss(self, part: Ints, weight: float, pairs: float) -> Tensor:
        torch, _ = require()
        functional = torch.nn.functional
        ids, targets, weights, lengths = self.examples.batch(part)
        with autocast(self.device, self.settings.dtype):
            # No attention mask: padding stands on the right, where no real token sees it.
            logits = self.forward(input_ids=moved(ids, self.device), use_cache=False).logits
        logits = logits[..., 0].float()
        each = functional.binary_cross_entropy_with_logits(logits, moved(targets, self.device), reduction="none")
        loss = (each * moved(weights, self.device)).sum() / weight
        if pairs:
            final = logits[torch.arange(len(part), device=self.device), moved(lengths - 1, self.device)]
            # -log sigmoid(right - wrong): the Bradley-Terry loss of each pair.
            apart = functional.softplus(final[None, :] - final[:, None])
            mask = moved(self._pairs(part).astype(np.float32), self.device)
            loss = loss + self.settings.rank_weight * (apart * mask).sum() / pairs
        return loss

    def _log(self, epoch: int, losses: list[Tensor]) -> None:
        loss = sum(float(value) for value in losses) / len(losses)
        if not math.isfinite(loss):  # looked at here only: at every step it would wait for the device
            raise EngineError(f"the loss is {loss} at step {self.done}: lower --lr", fatal=True)
        speed = self.tokens / self.seconds if self.seconds else 0.0
        point = {"step": self.done, "epoch": epoch, "loss": loss, "lr": self.rate(self.done - 1)}
        self.curve.append({**point, "tokens": self.tokens, "seconds": round(self.seconds, 2)})
        self.say(f"step {self.done}/{self.total}  loss {loss:.4f}  {speed:,.0f} tokens/s  {self.seconds:.0f} s")

    def _save(self) -> None:
        self.checkpoint.save(
            done=self.done,
            seconds=self.seconds,
            tokens=self.tokens,
            curve=self.curve,
            weights={name: p.detach().cpu() for name, p in self.model.named_parameters() if p.requires_grad},
            optimiser=self.optimiser.state_dict(),
        )

    def _resume(self) -> None:
        torch, _ = require()
        state = self.checkpoint.load()
        if state is None:
            return
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state["weights"].items():
                own[name].copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.done, self.seconds, self.tokens = state["done"], state["seconds"], state["tokens"]
        self.curve = list(state["curve"])
        self.say(f"going on after step {self.done}")
