"""What a latent causes: the tokens that become likelier when its direction is added to the stream (SCIENCE A10).

The prompts are a latent's own training windows, each cut so that it ends with its first activating token. The push is
c · direction at the last token, c found so that the next-token distribution moves by a given KL divergence on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from builders.contexts import Examples
from builders.hookpoints import spliced
from builders.saes.coder import Mounted
from builders.table import Column, Table

INTERVENTIONS = Table(
    name="interventions",
    row="a beginning of a text, and what a latent's direction makes likelier as its continuation",
    key=("sae", "latent", "kl_asked", "prompt"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("kl_asked", "float64", "the KL divergence asked for", unit="nats", low=0),
        Column("prompt", "int32", "number of the beginning", low=0),
        Column("status", "string", "ok, or that the KL divergence asked for is out of reach", categorical=True),
        Column("tokens", "list<int32>", "token ids of the beginning, which ends with its first activating token", low=0),
        Column("raised", "list<int32>", "the tokens whose probability rises most, the most raised first", low=0),
        Column("rises", "list<float32>", "by how much the probability of each rises", low=-1, high=1),
        Column("strength", "float64", "what the direction is multiplied by", low=0),
        Column("kl", "float64", "mean KL divergence of the next-token distributions over the latent's prompts", unit="nats", low=0),
    ),
)
LOW, HIGH = -3.0, 4.0  # of log10 of the strength
RAISED = 5
TOLERANCE = 0.1  # of the KL asked for


@dataclass(frozen=True)
class Pushed:
    """The strength found for a latent, the KL it gives, and next-token probabilities without and with the push [prompts, vocabulary]."""

    strength: float
    kl: float
    reached: bool
    clean: Tensor
    pushed: Tensor


def prompts_of(examples: Examples, most: int) -> list[npt.NDArray[np.int32]]:
    """Return beginnings of a latent's activating windows, evenly over their order, each up to its first activating token."""
    active = np.flatnonzero(examples.activating)
    chosen = active[np.linspace(0, len(active) - 1, min(most, len(active))).round().astype(np.int64)]
    return [examples.tokens[place, : int((examples.activations[place] > 0).argmax()) + 1] for place in chosen]


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
        return Pushed(10.0**power, max(kl, 0.0), abs(kl / target - 1) <= TOLERANCE, clean.exp(), pushed.exp())

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


def intervention_rows(sae: str, examples: Examples, pusher: Pusher, most: int, target: float) -> pa.Table:
    """Return the INTERVENTIONS rows of one latent."""
    prompts = prompts_of(examples, most)
    found = pusher.find(examples.latent, prompts, target)
    rises, raised = (found.pushed - found.clean).topk(RAISED, dim=-1)
    return INTERVENTIONS.build(
        {
            "sae": sae,
            "latent": examples.latent,
            "kl_asked": target,
            "prompt": np.arange(len(prompts), dtype=np.int32),
            "status": "ok" if found.reached else f"KL {target:g} out of reach",
            "tokens": [prompt.tolist() for prompt in prompts],
            "raised": raised.cpu().numpy().astype(np.int32),
            "rises": rises.cpu().numpy(),
            "strength": found.strength,
            "kl": found.kl,
        }
    )
