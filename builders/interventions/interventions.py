"""Interventions: which tokens become likelier when a latent's direction is added to the stream.

The prompts are beginnings of rows that end in the latent's own training windows. The intervention adds strength · direction at the last
token; the strength is found so that the next-token distribution moves by a given KL divergence on average.
Source: Paulo et al. 2024 (arXiv:2410.13928), intervention scoring; see docs/science.md#interventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.contexts.contexts import Examples
from builders.interventions.beginnings import TokenIds, beginnings
from builders.lake.references import OF_LATENT
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
        Column("tokens", "list<int32>", "token ids of the beginning, from the row's first to the window's first activating token", low=0),
        Column("start", "int32", "position of the window's first token; an explainer is shown the beginning from there on", low=0),
        Column("raised", "list<int32>", "the tokens whose probability rises most, the most raised first", low=0),
        Column("rises", "list<float32>", "by how much the probability of each of them rises", low=-1, high=1),
        Column("strength", "float64", "what the direction is multiplied by", low=0),
        Column("kl", "float64", "mean KL divergence of the next-token distributions over the latent's prompts", unit="nats", low=0),
    ),
    references=(OF_LATENT,),
)
RAISED = 5  # tokens that are published for each prompt
TOLERANCE = 0.1  # how far a KL divergence may be from the one that is asked for, as a share of it
Probabilities = npt.NDArray[np.float32]
Direction = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Push:
    """An intervention: *direction* [width] is added *strength* times."""

    direction: Direction
    strength: float


@dataclass(frozen=True)
class Ablation:
    """An intervention: what *latent* contributes is taken away."""

    latent: int


Intervention = Push | Ablation


@dataclass(frozen=True)
class Tuned:
    """The strength found for a direction, and what it does to the next token of the prompts.

    *kl* is the mean KL divergence in nats; *reached* says whether it is the one that was asked for. *clean* and *pushed* are next-token
    probabilities [prompts, vocabulary] without and with the intervention.
    """

    strength: float
    kl: float
    reached: bool
    clean: Probabilities
    pushed: Probabilities


class Tuner(Protocol):
    """Knows the direction of each latent, and finds how far a direction is pushed.

    `find` returns the strength at which adding *direction* moves the next token of *prompts* by the KL divergence *target* (nats).
    """

    def direction(self, latent: int) -> Direction: ...  # noqa: D102  # said above
    def find(self, direction: Direction, prompts: Sequence[TokenIds], target: float) -> Tuned: ...  # noqa: D102


def near(kl: float, target: float) -> bool:
    """Return whether a KL divergence is the one asked for, within TOLERANCE."""
    return abs(kl / target - 1) <= TOLERANCE


def intervention_rows(sae: str, examples: Examples, rows: TokenIds, tuner: Tuner, most: int, target: float) -> pa.Table:
    """Return the INTERVENTIONS rows of one latent: at most *most* beginnings of token *rows*, moved by *target* nats."""
    begun = beginnings(examples, rows, most)
    found = tuner.find(tuner.direction(examples.latent), begun.tokens, target)
    change = found.pushed - found.clean
    raised = np.argsort(-change, axis=1, kind="stable")[:, :RAISED]
    return INTERVENTIONS.build(
        {
            "sae": sae,
            "latent": examples.latent,
            "kl_asked": target,
            "prompt": np.arange(len(begun.tokens), dtype=np.int32),
            "status": "ok" if found.reached else f"KL {target:g} out of reach",
            "tokens": [tokens.tolist() for tokens in begun.tokens],
            "start": begun.start,
            "raised": raised.astype(np.int32),
            "rises": np.take_along_axis(change, raised, axis=1),
            "strength": found.strength,
            "kl": found.kl,
        }
    )
