"""Interventions: which tokens become likelier when a latent's direction is added to the stream.

The prompts are the latent's own training windows, each cut so that it ends with its first activating token. The intervention adds
strength · direction at the last token; the strength is found so that the next-token distribution moves by a given KL divergence on average.
Source: Paulo et al. 2024 (arXiv:2410.13928), intervention scoring; see docs/science.md#interventions.
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
    row="the beginning of a text, and the tokens that a latent's direction makes likelier next",
    key=("sae", "latent", "kl_asked", "prompt"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("kl_asked", "float64", "the KL divergence that was asked for", unit="nats", low=0),
        Column("prompt", "int32", "number of the beginning", low=0),
        Column("status", "string", "ok, or that no strength gives the KL divergence that was asked for", categorical=True),
        Column("tokens", "list<int32>", "token ids of the beginning, which ends with its first activating token", low=0),
        Column("raised", "list<int32>", "the tokens whose probability rises most, the most raised first", low=0),
        Column("rises", "list<float32>", "by how much the probability of each of them rises", low=-1, high=1),
        Column("strength", "float64", "what the direction is multiplied by", low=0),
        Column("kl", "float64", "mean KL divergence of the next-token distributions over the latent's prompts", unit="nats", low=0),
    ),
)
RAISED = 5  # tokens that are published for each prompt
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tuned:
    """The strength found for a latent, and what it does to the next token of the prompts.

    *kl* is the mean KL divergence in nats; *reached* says whether it is the one that was asked for. *clean* and *pushed* are next-token
    probabilities [prompts, vocabulary] without and with the intervention.
    """

    strength: float
    kl: float
    reached: bool
    clean: Probabilities
    pushed: Probabilities


class Tuner(Protocol):
    """Finds the strength at which adding a latent's direction moves the next token of *prompts* by the KL divergence *target* (nats)."""

    def find(self, latent: int, prompts: Sequence[npt.NDArray[np.int32]], target: float) -> Tuned: ...  # noqa: D102  # said above


def begun(examples: Examples, most: int) -> Examples:
    """Return the windows whose beginnings are prompts: at most *most* activating ones, evenly over their order."""
    return examples.take(evenly(np.flatnonzero(examples.activating), most))


def prompts_of(examples: Examples, most: int) -> list[npt.NDArray[np.int32]]:
    """Return a latent's prompts: the beginnings of at most *most* activating windows, each up to its first activating token."""
    chosen = begun(examples, most)
    ends = (chosen.activations > 0).argmax(axis=1) + 1
    return [tokens[:end] for tokens, end in zip(chosen.tokens, ends, strict=True)]


def intervention_rows(sae: str, examples: Examples, tuner: Tuner, most: int, target: float) -> pa.Table:
    """Return the INTERVENTIONS rows of one latent: at most *most* prompts, moved by *target* nats."""
    prompts = prompts_of(examples, most)
    found = tuner.find(examples.latent, prompts, target)
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
