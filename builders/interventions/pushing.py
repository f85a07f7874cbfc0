"""A model pushed along a direction: how strong the push must be, what the model predicts under it, and what it writes.

Source: Paulo et al. 2024 (arXiv:2410.13928), intervention scoring; see docs/science.md#interventions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from builders.arrays import Floats
from builders.interventions.beginnings import TokenIds
from builders.interventions.generations import Written
from builders.interventions.interventions import TOLERANCE, Ablation, Direction, Intervention, Push, Tuned, near
from builders.saes.coder import Coder, Mounted, SparseCode
from builders.subjects.hookpoints import spliced
from builders.subjects.sampling import sampled, stops_of

LOW, HIGH = -3.0, 4.0  # of log10 of the strength
START, STRIDE = 1.5, 0.5  # of the search for it, also of log10 of the strength
FINE = {"xtol": 1e-4, "rtol": 1e-6, "maxiter": 100}  # the search ends sooner, where the KL is as asked; a steep KL needs small steps
Change = Callable[[Tensor, Tensor], Tensor]  # vectors read and written [n, width] → what is written instead


class Pusher:
    """A model whose stream is changed where a dictionary writes, from the last token of a prompt on.

    It reads *batch* texts at a time.
    """

    def __init__(self, model: nn.Module, mounted: Mounted, device: str, batch: int = 16) -> None:
        self.model, self.mounted, self.device, self.batch = model, mounted, device, batch
        self.stops = stops_of(model)

    def direction(self, latent: int) -> Direction:
        """Return what *latent* writes [width]."""
        return _plain(self.mounted.coder.directions(latent, latent + 1)[0].float())

    def find(self, direction: Direction, prompts: Sequence[TokenIds], target: float) -> Tuned:
        """Return the strength of *direction* whose mean KL divergence over *prompts* is *target* nats, within a tenth of it.

        If no strength from 10⁻³ to 10⁴ reaches it, the strength that comes nearest is returned, and *reached* is false.
        """
        texts = [prompt.tolist() for prompt in prompts]
        last = [len(text) - 1 for text in texts]
        clean = self.logprobs(texts, last)
        seen: dict[float, tuple[float, Tensor]] = {}

        @cache
        def excess(power: float) -> float:
            pushed = self.logprobs(texts, last, Push(direction, 10.0**power))
            kl = float((clean.exp() * (clean - pushed)).sum(-1).mean())
            if not math.isfinite(kl):  # the push leaves the range of the model's number format
                return 10.0
            seen[power] = (kl, pushed)
            return 0.0 if abs(kl / target - 1) < TOLERANCE / 2 else math.log(max(kl, 1e-12) / target)

        _search(excess)
        power = min(seen, key=lambda power: abs(math.log(max(seen[power][0], 1e-12) / target)))
        kl, pushed = seen[power]
        return Tuned(10.0**power, max(kl, 0.0), near(kl, target), _plain(clean.exp()), _plain(pushed.exp()))

    def write(self, prompts: Sequence[TokenIds], draws: Floats, intervention: Intervention | None) -> Written:
        """Return what the model writes after each of *prompts*, sampled at temperature 1 by *draws* [prompts, tokens] from [0, 1).

        The stream is changed at the last token of a prompt and at every token that is written. Writing stops where the model ends its text.
        """
        texts = [prompt.tolist() for prompt in prompts]
        since = [len(text) - 1 for text in texts]
        going = list(range(len(texts)))
        first: list[npt.NDArray[np.float32]] = []
        for draw in draws.T:
            logprobs = _plain(self.logprobs([texts[place] for place in going], [since[place] for place in going], intervention))
            first = first or [logprobs]
            for place, token in zip(going, sampled(logprobs, draw[going]), strict=True):
                texts[place].append(int(token))
            going = [place for place in going if texts[place][-1] not in self.stops]
            if not going:
                break
        return Written([np.array(text[low + 1 :], dtype=np.int32) for low, text in zip(since, texts, strict=True)], first[0])

    @torch.no_grad()
    def logprobs(self, texts: Sequence[list[int]], since: Sequence[int], intervention: Intervention | None = None) -> Tensor:
        """Return next-token log-probabilities after each of *texts* [texts, vocabulary]; the intervention starts at position *since*."""
        change = None if intervention is None else self._change(intervention)
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # texts of similar length need little padding
        parts = []
        for low in range(0, len(order), self.batch):
            some = order[low : low + self.batch]
            parts.append(self._read([texts[place] for place in some], [since[place] for place in some], change))
        return torch.cat(parts)[torch.tensor(order).argsort().to(self.device)]

    def _read(self, texts: Sequence[list[int]], since: Sequence[int], change: Change | None) -> Tensor:
        """Return next-token log-probabilities after *texts*, which are padded on the right, where a causal model cannot look."""
        last = torch.tensor([len(text) - 1 for text in texts])
        ids = torch.zeros(len(texts), int(last.max()) + 1, dtype=torch.long)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(text)
        place = torch.arange(ids.shape[1])
        where = ((place >= torch.tensor(since)[:, None]) & (place <= last[:, None])).to(self.device)

        hook = nullcontext() if change is None else spliced(self.model, self.mounted.reads, self.mounted.writes, _at(where, change))
        with hook:
            return _ends(self.model, ids.to(self.device), last).float().log_softmax(-1)

    def _change(self, intervention: Intervention) -> Change:
        if isinstance(intervention, Ablation):
            coder, latent = self.mounted.coder, intervention.latent
            return lambda read, written: written - contribution(coder, latent, read.float()).to(written.dtype)
        added = intervention.strength * torch.from_numpy(intervention.direction).to(self.device)
        return lambda _, written: written + added.to(written.dtype)


def _at(where: Tensor, change: Change) -> Change:
    """Return an edit of whole rows that applies *change* at the tokens *where* [rows, length] is true."""

    def edit(read: Tensor, written: Tensor) -> Tensor:
        changed = written.clone()
        changed[where] = change(read[where], written[where])
        return changed

    return edit


def _search(excess: Callable[[float], float]) -> None:
    """Search the power of ten of the strength at which *excess* is 0: walk from START in strides, then search between the last two.

    Nothing is returned: *excess* keeps what it has seen.
    """
    power, stride = START, math.copysign(STRIDE, -excess(START))
    while LOW < power < HIGH and excess(power) * stride < 0:
        power += stride
    if excess(power) * stride > 0:
        brentq(excess, power - stride, power, **FINE)
    elif excess(power) < 0:  # KL may fall again beyond its largest value: start anew from the largest on a grid
        high = max(np.arange(HIGH, LOW, -STRIDE).tolist(), key=excess)
        if excess(high) > 0 > excess(LOW):
            brentq(excess, LOW, high, **FINE)


def _ends(model: nn.Module, ids: Tensor, last: Tensor) -> Tensor:
    """Return the logits [rows, vocabulary] at the *last* token of each row of *ids*; the model computes as few others as it allows."""
    rows, head = torch.arange(len(ids)), getattr(model, "get_output_embeddings", lambda: None)()

    def narrow(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        return (given[0][rows, last][:, None],) if given and given[0].shape[:2] == ids.shape else None

    handle = head.register_forward_pre_hook(narrow) if isinstance(head, nn.Module) else None
    try:
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    finally:
        if handle is not None:
            handle.remove()
    return logits[rows, last.clamp(max=logits.shape[1] - 1)]


def contribution(coder: Coder, latent: int, x: Tensor) -> Tensor:
    """Return what *latent* contributes to the decoding of *x* [n, d_in]: its activation times its direction, 0 where it is silent."""
    code = coder.encode(x)
    own, none = (SparseCode(code.vector[some], code.latent[some], code.value[some], code.n) for some in (code.latent == latent, slice(0)))
    return coder.decode(own, x) - coder.decode(none, x)


def _plain(values: Tensor) -> npt.NDArray[np.float32]:
    """Return a tensor as a numpy array."""
    found: npt.NDArray[np.float32] = values.cpu().numpy()
    return found
