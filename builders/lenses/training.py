"""Train a tuned lens: one pass of the frozen model serves all layers, checks on held-out rows say when to stop, a break costs little."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from builders.lenses.convergence import training_rows
from builders.lenses.lens import counted
from builders.lenses.recipe import OPTIMISERS, Recipe, Split, clip
from builders.lenses.translators import TunedLens, divergences
from builders.progress import track
from builders.saes.fidelity import RowSums
from builders.saes.formats.weights import DAMAGE
from builders.seeds import seed_of, uniforms
from builders.subjects.anatomy import Anatomy
from builders.subjects.harvest import read_rows, row_batches
from builders.subjects.hookpoints import capture


class Training:
    """A tuned lens in training. *lens* is its state after *done* steps, *best* holds each layer's best translator so far.

    The rows of a step are drawn by address, so a step depends on its number only, and no generator has a state to keep.
    """

    def __init__(
        self, model: nn.Module, anatomy: Anatomy, rows: Split, recipe: Recipe, subject: str, seed: int = 0, device: str = "cpu"
    ) -> None:
        self.model, self.anatomy, self.rows, self.recipe, self.device = model, anatomy, rows, recipe, device
        self.subject, self.seed = subject, seed_of(seed, "lens rows", subject)
        self.lens, self.best, self.slopes = (TunedLens.zeros(anatomy.last, anatomy.d_model, device) for _ in range(3))
        self.optimizer = OPTIMISERS[recipe.optimiser](self.lens.tensors, recipe)
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        self.done, self.tokens, self.held_out_tokens = 0, 0, 0
        self.lowest = [math.inf] * anatomy.last
        self.sums: list[float] = []  # of the lowest divergences over layers, at each check
        self.checks: list[dict[str, Any]] = []
        self.learnt, self.since = torch.zeros(anatomy.last, dtype=torch.float64), 0  # divergences and tokens since the last check

    @property
    def over(self) -> bool:
        """Whether all steps are done, or the checks say that there is nothing more to gain."""
        patience, share = self.recipe.patience, 1 - self.recipe.least_gain
        idle = len(self.sums) > patience and not self.sums[-1] < share * self.sums[-1 - patience]
        return self.done >= self.recipe.steps or idle

    def step(self) -> None:
        """Learn from the rows of one step."""
        n = 0
        for tensor in self.slopes.tensors:
            tensor.zero_()
        for part in row_batches(self.rows_of_step(self.done), self.recipe.batch_rows):
            kl, _ = self._read(part, self.slopes)
            self.learnt += kl.sum(1).cpu().double()
            n += kl.shape[1]
        self.tokens, self.since = self.tokens + n, self.since + n
        clip(self.slopes, self.recipe.clip, max(n, 1))
        for tensor, slope in zip(self.lens.tensors, self.slopes.tensors, strict=True):
            tensor.grad = slope
        for group in self.optimizer.param_groups:
            group["lr"] = self.next_lr
        self.optimizer.step()
        self.done += 1

    @property
    def next_lr(self) -> float:
        """The learning rate of the next step."""
        return self.lr * max(0.0, 1 - self.done / self.recipe.steps)

    def check(self) -> None:
        """Measure the lens on the held-out rows, and keep the translators that are better than before."""
        totals, tokens = self._held_out()
        self.held_out_tokens = int(tokens.sum())
        for layer, total in enumerate(totals):
            kl = RowSums(total, tokens)
            if kl.mean < self.lowest[layer]:
                self.lowest[layer] = kl.mean
                for best, now in zip(self.best.tensors, self.lens.tensors, strict=True):
                    best[layer] = now[layer]
            learnt = float(self.learnt[layer]) / self.since if self.since else math.nan
            numbers = {"train_kl": learnt, "held_out_kl": kl.mean, "held_out_se": kl.se, "lr": self.next_lr}
            known = {name: max(0.0, number) if math.isfinite(number) else None for name, number in numbers.items()}  # below 0: rounding
            self.checks.append({"step": self.done, "layer": layer, "tokens": self.tokens, **known})
        self.sums.append(sum(self.lowest))
        self.learnt.zero_()
        self.since = 0

    def _held_out(self) -> tuple[Tensor, Tensor]:
        """Return the summed divergences of each layer and held-out row [L, rows], and the rows' numbers of tokens [rows]."""
        totals, tokens = [], []
        for part in row_batches(self.rows.checking, self.recipe.batch_rows):
            kl, place = self._read(part)
            totals.append(torch.zeros(len(kl), part.num_rows, dtype=torch.float64).index_add_(1, place.cpu(), kl.cpu().double()))
            tokens.append(torch.bincount(place, minlength=part.num_rows).cpu().double())
        return torch.cat(totals, dim=1), torch.cat(tokens)

    def _read(self, rows: pa.Table, slopes: TunedLens | None = None) -> tuple[Tensor, Tensor]:
        """Return the divergences [L, n] at the counted tokens of a batch, and their places in it [n]; add their gradients to *slopes*."""
        ids, is_text = read_rows(rows, self.device)
        chosen = counted(is_text)
        flows = capture(self.model, self.anatomy.layers, ids)
        hidden = [flows[layer][chosen] for layer in self.anatomy.layers]
        return divergences(self.anatomy, self.lens, hidden, slopes), torch.nonzero(chosen)[:, 0]

    def rows_of_step(self, step: int) -> pa.Table:
        """Return the TOKENS rows of step *step*, from 0: a pass reads each row at most once, and each pass has an order of its own."""
        rows, size = self.rows.learning, self.recipe.rows_per_step
        passed, place = divmod(step, rows.num_rows // size)
        order = np.argsort(uniforms(self.seed, rows["row"].to_numpy(), passed), kind="stable")
        return rows.take(order[place * size : (place + 1) * size])

    @cached_property
    def made_of(self) -> str:
        """A hash of what decides the run besides the model: the recipe, and which rows are read in which order."""
        rows = [(part["row"].to_pylist(), part["ids"].to_pylist()) for part in (self.rows.learning, self.rows.checking)]
        return hashlib.sha256(repr((asdict(self.recipe), self.seed, rows, self.lens.weight.shape)).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write all that the next steps depend on to *path*, whole or not at all; call it right after a check."""
        counts = {"done": self.done, "tokens": self.tokens, "held_out_tokens": self.held_out_tokens}
        lists = {"lowest": self.lowest, "sums": self.sums, "checks": self.checks}
        tensors = {"lens": self.lens.tensors, "best": self.best.tensors, "optimizer": self.optimizer.state_dict()}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")  # not through write_atomic, which would hold all bytes in memory
        with temporary.open("wb") as file:
            torch.save({"made_of": self.made_of, **counts, **lists, **tensors}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def resume(self, path: Path) -> bool:
        """Go on from *path* and return True; return False if it is not there, is damaged, or belongs to another run."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except (*DAMAGE, pickle.UnpicklingError):  # a missing file is among them
            return False
        if state.get("made_of") != self.made_of:
            return False
        for mine, name in ((self.lens, "lens"), (self.best, "best")):
            for tensor, kept in zip(mine.tensors, state[name], strict=True):
                tensor.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("done", "tokens", "held_out_tokens", "lowest", "sums", "checks"):
            setattr(self, name, state[name])
        return True


def train(training: Training, kept: Path | None = None) -> tuple[TunedLens, pa.Table]:
    """Train to the end, and return each layer's best translator and the LENS_TRAINING rows.

    The run's state is written to *kept* after every check. A run that was cut off goes on from there, and ends the same to the bit.
    """
    if not (kept and training.resume(kept)):
        training.check()
    every = training.recipe.check_every
    for _ in track(range(training.done, training.recipe.steps), "training the tuned lens"):
        if training.over:
            break
        training.step()
        if training.done % every == 0 or training.done == training.recipe.steps:
            training.check()
            if kept:
                training.save(kept)
    return training.best, training_rows(training.subject, training.best.name, training.checks, training.held_out_tokens)
