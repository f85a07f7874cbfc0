"""The model pushed along a latent's direction, as hard as it takes to move the next token by a given KL divergence."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from builders.hookpoints import spliced
from builders.interventions import Pushed
from builders.saes.coder import Mounted

LOW, HIGH = -3.0, 4.0  # of log10 of the strength
TOLERANCE = 0.1  # of the KL asked for


class Pusher:
    """A model whose stream is pushed along the directions of a dictionary, at the last token of each prompt."""

    def __init__(self, model: nn.Module, mounted: Mounted, device: str) -> None:
        self.model, self.mounted, self.device = model, mounted, device

    @torch.no_grad()
    def find(self, latent: int, prompts: list[npt.NDArray[np.int32]], target: float) -> Pushed:
        """Return the push of *latent* whose mean KL divergence over *prompts* is *target* nats, within a tenth of it.

        Where no strength up to 10⁴ reaches it, that of the largest KL is returned, and said so.
        """
        ids, last = self._batch(prompts)
        direction = self.mounted.coder.directions(latent, latent + 1)[0].to(self.device)
        clean = self._next(ids, last, direction, 0.0)
        seen: dict[float, tuple[float, Tensor]] = {}

        def excess(power: float) -> float:
            pushed = self._next(ids, last, direction, 10.0**power)
            kl = float((clean.exp() * (clean - pushed)).sum(-1).mean())
            if not math.isfinite(kl):  # beyond the number format of the model
                return 10.0
            seen[power] = (kl, pushed)
            return 0.0 if abs(kl / target - 1) < TOLERANCE / 2 else math.log(max(kl, 1e-12) / target)

        # A push may lead past its largest KL and away from it again.
        high = HIGH if excess(HIGH) > 0 else max(np.arange(HIGH, LOW, -0.5).tolist(), key=excess)
        if excess(high) > 0 > excess(LOW):
            brentq(excess, LOW, high, xtol=1e-2, rtol=1e-2, maxiter=40)
        power = min(seen, key=lambda power: abs(math.log(max(seen[power][0], 1e-12) / target)))
        kl, pushed = seen[power]
        return Pushed(10.0**power, max(kl, 0.0), abs(kl / target - 1) <= TOLERANCE, _plain(clean), _plain(pushed))

    def _batch(self, prompts: list[npt.NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
        """Return ids padded on the right, where a causal model cannot look, and the place of each prompt's last token."""
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        ids = torch.zeros(len(prompts), int(last.max()) + 1, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.from_numpy(prompt.astype(np.int64))
        return ids.to(self.device), last

    def _next(self, ids: Tensor, last: Tensor, direction: Tensor, strength: float) -> Tensor:
        """Return log-probabilities of the next token [prompts, vocabulary]."""
        rows = torch.arange(len(ids), device=ids.device)

        def push(_: Tensor, written: Tensor) -> Tensor:
            changed = written.clone()
            changed[rows, last] += (strength * direction).to(written.dtype)
            return changed

        with spliced(self.model, self.mounted.writes, self.mounted.writes, push):
            logits = self.model(input_ids=ids, use_cache=False).logits
        return logits[rows, last].float().log_softmax(-1)  # type: ignore[no-any-return]  # a tensor


def _plain(logprobs: Tensor) -> npt.NDArray[np.float32]:
    """Return log-probabilities as probabilities, as numpy knows them."""
    found: npt.NDArray[np.float32] = logprobs.exp().cpu().numpy()
    return found
