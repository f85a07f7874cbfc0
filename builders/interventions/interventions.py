"""What a latent causes: the tokens that become likelier when its direction is added to the stream (SCIENCE A10).

The prompts are a latent's own training windows, each cut so that it ends with its first activating token. The push is
c · direction at the last token, c found so that the next-token distribution moves by a given KL divergence on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.contexts.contexts import Examples, evenly
from builders.lake.table import Column, Table

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
RAISED = 5
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pushed:
    """The strength found for a latent, the KL it gives, and next-token probabilities without and with the push [prompts, vocabulary]."""

    strength: float
    kl: float
    reached: bool
    clean: Floats
    pushed: Floats


class Finder(Protocol):
    """Whatever finds the push of a latent that moves the next token by a KL divergence."""

    def find(self, latent: int, prompts: Sequence[npt.NDArray[np.int32]], target: float) -> Pushed: ...  # noqa: D102  # said above


def begun(examples: Examples, most: int) -> Examples:
    """Return the windows of which beginnings are taken: at most *most* activating ones, evenly over their order."""
    return examples.take(evenly(np.flatnonzero(examples.activating), most))


def prompts_of(examples: Examples, most: int) -> list[npt.NDArray[np.int32]]:
    """Return beginnings of a latent's activating windows, evenly over their order, each up to its first activating token."""
    chosen = begun(examples, most)
    ends = (chosen.activations > 0).argmax(axis=1) + 1
    return [tokens[:end] for tokens, end in zip(chosen.tokens, ends, strict=True)]


def intervention_rows(sae: str, examples: Examples, pusher: Finder, most: int, target: float) -> pa.Table:
    """Return the INTERVENTIONS rows of one latent."""
    prompts = prompts_of(examples, most)
    found = pusher.find(examples.latent, prompts, target)
    change = found.pushed - found.clean
    raised = np.argsort(-change, axis=1, kind="stable")[:, :RAISED]
    return INTERVENTIONS.build(
        {
            "sae": sae,
            "latent": examples.latent,
            "kl_asked": target,
            "prompt": np.arange(len(prompts), dtype=np.int32),
            "status": "ok" if found.reached else f"KL {target:g} out of reach",
            "tokens": [prompt.tolist() for prompt in prompts],
            "raised": raised.astype(np.int32),
            "rises": np.take_along_axis(change, raised, axis=1),
            "strength": found.strength,
            "kl": found.kl,
        }
    )
