"""A steered model: vectors are added to the residual stream, to the recurrent state, or to both, at one layer and the last tokens.

A prompt is read once up to these tokens. Then every way to steer (method × site × layer × multiplier) is one row of a batch, which goes on
from a copy of the model's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from builders.arrays import Floats
from builders.errors import UserError
from builders.steering.asking import Prompt
from builders.steering.vectors import Directions, alike
from builders.steering.ways import ALIGNED, LATE, RESIDUAL, Push
from builders.subjects.hookpoints import blocks_of, edited
from builders.subjects.resuming import aside, recorded
from builders.subjects.sampling import sampled, stops_of
from builders.subjects.states import Memory, Parts, advance, family_of


@dataclass(frozen=True)
class _Some:
    """What is added to some *rows* [n] of a batch: *values* by part [n, ...]."""

    rows: Tensor
    values: dict[str, Tensor]


@dataclass(frozen=True)
class _Addition:
    """What is added at one *layer*: to the residual stream, to the state before a token is read, and to the state while it is read."""

    layer: int
    stream: list[_Some]
    late: list[_Some]
    aligned: list[_Some]


class Steerer:
    """A model with steering *directions* by method; it reads at most *batch* rows at a time.

    Vectors are added at a prompt's last tokens, as many as *last* says.
    """

    def __init__(self, model: nn.Module, directions: Mapping[str, Directions], batch: int, last: int = 1) -> None:
        self.model, self.directions, self.batch, self.last = model, directions, batch, last
        self.family, self.blocks = family_of(model), blocks_of(model)
        self.device = next(model.parameters()).device

    @torch.no_grad()
    def answers(self, prompts: Sequence[Prompt], pushes: Sequence[Push | None]) -> Floats:
        """Return log-probabilities of the matching and the other letter [prompts, pushes, 2] under each push; None steers nothing.

        If a layer has no state, or a method has no vectors for it, nothing is added to the state. Raises UserError for a prompt that has no
        token before its last ones.
        """
        found = np.empty((len(prompts), len(pushes), 2))
        for places in alike([prompt.ids for prompt in prompts], self.batch):
            some = [prompts[place] for place in places]
            letters = torch.tensor([[prompt.matching, prompt.other] for prompt in some], device=self.device)
            for rows, wanted, logits in self._pushed([list(prompt.ids) for prompt in some], pushes):
                chosen = logits.float().log_softmax(-1).gather(1, letters[rows]).cpu().double().numpy()
                found[np.array(places)[rows.cpu()], wanted] = chosen
        return found

    def _pushed(self, texts: list[list[int]], pushes: Sequence[Push | None]) -> Iterator[tuple[Tensor, list[int], Tensor]]:
        """Yield batches: the rows' places in *texts* (of equal length) and in *pushes*, and next-token logits [rows, vocabulary].

        A batch holds pushes that change nothing before the same block, so that the blocks before it are run once for all pushes.
        """
        ids = torch.tensor(texts, device=self.device)
        memory = self._prefix(ids)
        flows: list[Tensor] | None = None
        if self.last == 1 and len(pushes) > 1:
            _, flows = recorded(self.model, ids[:, -1:], self.family.rows(memory, torch.arange(len(texts), device=self.device)))
        begins = np.array([_begin(push) if flows else 0 for push in pushes])
        for begin in np.unique(begins).tolist():
            rows = [(text, push) for push in np.flatnonzero(begins == begin).tolist() for text in range(len(texts))]
            for low in range(0, len(rows), self.batch):
                some, wanted = zip(*rows[low : low + self.batch], strict=True)
                index = torch.tensor(some, device=self.device)
                additions = self._additions([pushes[place] for place in wanted])
                with aside(self.model, self.blocks[:begin], flows[begin - 1][index]) if flows and begin else nullcontext():
                    logits = self._steps(ids[index, -self.last :], self.family.rows(memory, index, begin), additions)
                yield index, list(wanted), logits

    def _prefix(self, ids: Tensor) -> Memory:
        """Return the model's memory after *ids* [rows, length] without their last tokens; raise UserError if nothing is left."""
        if ids.shape[1] <= self.last:
            problem = f"a prompt of {ids.shape[1]} tokens has no token before its last {self.last}, where vectors are added"
            raise UserError(f"{problem}; add vectors at fewer tokens, or use a longer template")
        return advance(self.model, ids[:, : -self.last])[1]

    def _steps(self, ids: Tensor, memory: Memory, additions: Sequence[_Addition]) -> Tensor:
        """Read *ids* [rows, n] on from *memory*, and add what is to be added at each token; return the logits after the last."""
        for token in ids.split(1, dim=1):
            for addition in additions:
                for some in addition.late:
                    self.family.add(memory, addition.layer, some.rows, some.values)
            with self._during(memory, additions):
                logits, _ = advance(self.model, token, memory)
        return logits

    @contextmanager
    def _during(self, memory: Memory, additions: Sequence[_Addition]) -> Iterator[None]:
        """Within this context, *additions* are added to the outputs of blocks, and in phase to the state."""
        with ExitStack() as hooks:
            for addition in additions:
                for some in addition.stream:
                    hooks.enter_context(edited(self.model, self.blocks[addition.layer], partial(_plus, some)))
                for some in addition.aligned:
                    if self.family.aligned is None:
                        raise UserError(f"{type(self.model).__name__}: nobody knows how to change its state in phase; use `phases: [late]`")
                    hooks.enter_context(self.family.aligned(memory, {addition.layer: (some.rows, some.values)}))
            yield

    def _additions(self, pushes: Sequence[Push | None]) -> list[_Addition]:
        """Return, layer by layer, what is added to the rows of a batch; *pushes* are those of its rows."""
        rows: dict[Push, list[int]] = {}
        for row, push in enumerate(pushes):
            if push is not None and push.multiplier:
                rows.setdefault(push, []).append(row)
        layers = sorted({push.layer for push in rows})
        return [self._addition(layer, {push: some for push, some in rows.items() if push.layer == layer}) for layer in layers]

    def _addition(self, layer: int, rows: Mapping[Push, list[int]]) -> _Addition:
        """Return what *rows* by push get at *layer*."""
        stream = {push: {RESIDUAL: self.directions[push.method].residual[layer][None]} for push in rows if push.streams}
        states = {push: self.directions[push.method].state[layer] for push in rows}
        parts = {push: {name: state[name] for name in push.parts(state)} for push, state in states.items()}
        late, aligned = ({push: some for push, some in parts.items() if push.phase == phase} for phase in (LATE, ALIGNED))
        return _Addition(layer, *(self._together(some, rows) for some in (stream, late, aligned)))

    def _together(self, values: Mapping[Push, Parts], rows: Mapping[Push, list[int]]) -> list[_Some]:
        """Return *values* by push as one addition for each set of parts that occurs."""
        found = []
        for parts in dict.fromkeys(tuple(some) for some in values.values() if some):
            own = [push for push, some in values.items() if tuple(some) == parts]
            which = torch.arange(len(own)).repeat_interleave(torch.tensor([len(rows[push]) for push in own]))
            index = torch.tensor([row for push in own for row in rows[push]], device=self.device)
            stacked = {name: torch.stack([push.multiplier * values[push][name] for push in own])[which].to(self.device) for name in parts}
            found.append(_Some(index, stacked))
        return found

    @torch.no_grad()
    def writes(self, texts: Sequence[list[int]], pushes: Sequence[Push | None], draws: Floats, following: bool) -> list[list[int] | None]:
        """Return what is written after each of *texts* (of equal length) under its push, sampled by *draws* [texts, tokens] from [0, 1).

        Vectors are added at the last tokens of the prompt and, with *following*, at every token that is written. A text ends with an
        end token of the checkpoint; it is None if probabilities are no numbers.
        """
        ids = torch.tensor(texts, device=self.device)
        memory = self._prefix(ids)
        additions = self._additions(pushes)
        logits = self._steps(ids[:, -self.last :], memory, additions)
        written: list[list[int]] = [[] for _ in texts]
        ends, going, known = stops_of(self.model), np.ones(len(texts), dtype=bool), np.ones(len(texts), dtype=bool)
        for draw in draws.T:
            logprobs = logits.float().log_softmax(-1).cpu().numpy()
            known &= ~going | np.isfinite(logprobs).all(axis=1)
            tokens = sampled(np.nan_to_num(logprobs), draw)
            going &= known
            for row in np.flatnonzero(going):
                written[row].append(int(tokens[row]))
            going &= ~np.isin(tokens, list(ends))
            if not going.any():
                break
            logits = self._steps(torch.from_numpy(tokens).to(self.device)[:, None], memory, additions if following else ())
        return [text if fine else None for text, fine in zip(written, known, strict=True)]


def _begin(push: Push | None) -> int:
    """Return the first block in which *push* changes something; a change of the stream at a block's output comes after it."""
    return 0 if push is None else push.layer + (push.site == RESIDUAL)


def _plus(some: _Some, flow: Tensor) -> Tensor:
    """Return the output *flow* of a block [rows, 1, width] with *some* added to its rows."""
    return flow.index_add(0, some.rows, some.values[RESIDUAL].to(flow))
