"""What a model writes after a prompt, cleanly and with a latent pushed or silenced: the `generations` config.

A prompt is the beginning of a window. The strength is found on prompts from training windows and used on prompts from test windows. Both
continuations of a prompt are sampled with the same random numbers, so that they differ by the intervention and not by luck.
Source: Paulo et al. 2024 (arXiv:2410.13928), intervention scoring; see docs/science.md#intervention-scoring.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.arrays import Floats, Ints
from builders.contexts.contexts import Examples
from builders.interventions.interventions import Tuner, begun, prompts_of
from builders.lake.table import Column, Table
from builders.seeds import uniforms

OUT_OF_REACH = "out of reach"
NOT_FINITE = "not finite"
GENERATIONS = Table(
    name="generations",
    row="the beginning of a text, and what the model writes next: cleanly, and with a latent pushed or silenced",
    key=("sae", "latent", "scorer", "prompt"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("scorer", "string", "the scorer that asks for the generation", categorical=True),
        Column("prompt", "int32", "number of the beginning", low=0),
        Column(
            "status",
            "string",
            "ok; out of reach: no strength gives the KL asked for; not finite: the push leaves the range of the model's numbers",
            categorical=True,
        ),
        Column("example", "int32", "number of the window in `contexts`, split test, whose beginning it is", low=0),
        Column("tokens", "list<int32>", "token ids of the beginning, which ends with its first activating token", low=0),
        Column("text", "string", "the text of the beginning"),
        Column("clean_tokens", "list<int32>", "token ids of what the model writes without a push", low=0),
        Column("clean_text", "string", "their text"),
        Column("pushed_tokens", "list<int32>", "token ids of what the model writes when pushed from the beginning's last token on", low=0),
        Column("pushed_text", "string", "their text"),
        Column("strength", "float64", "what the direction is multiplied by; none where the latent is silenced", nullable=True, low=0),
        Column("kl", "float64", "mean KL divergence of the next token over these beginnings", unit="nats", nullable=True, low=0),
        Column("kl_tuned", "float64", "the same over the beginnings on which the strength was tuned", unit="nats", nullable=True, low=0),
        Column("kl_asked", "float64", "the KL divergence that was asked for", unit="nats", nullable=True, low=0),
    ),
)
TokenIds = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Order:
    """What a scorer orders: *tokens* tokens written after each of *prompts* prompts, under one intervention.

    The intervention adds the latent's direction, with the strength that gives *kl* nats on *tune* training prompts. With *ablate*, it
    silences the latent instead.
    """

    kl: float
    ablate: bool
    tune: int
    prompts: int
    tokens: int


@dataclass(frozen=True)
class Intervention:
    """What is done to a latent: its direction is added *strength* times or, if *strength* is None, its own contribution is taken away."""

    latent: int
    strength: float | None


@dataclass(frozen=True)
class Written:
    """What was written after each prompt, as token ids, and the log-probabilities of the first token [prompts, vocabulary]."""

    tokens: list[TokenIds]
    first: npt.NDArray[np.float32]


class Writer(Tuner, Protocol):
    """Finds the strength for a latent, and continues prompts under an intervention (None for the clean model).

    *draws* [prompts, tokens] from [0, 1) decide what is sampled.
    """

    def write(self, prompts: Sequence[TokenIds], draws: Floats, intervention: Intervention | None) -> Written: ...  # noqa: D102  # said above


def generation_rows(
    sae: str, orders: Mapping[str, Order], train: Examples, test: Examples, writer: Writer, pieces: Sequence[bytes], seed: int
) -> pa.Table:
    """Return the GENERATIONS rows of one latent, for the scorers named in *orders*; *pieces* are the bytes of each token id.

    What is sampled depends on *seed*, latent, window and step alone.
    """

    @cache  # scorers that order equally many prompts and tokens share the clean text
    def clean(most: int, tokens: int) -> tuple[list[TokenIds], Ints, Floats, Written]:
        prompts, number = prompts_of(test, most), begun(test, most).number
        draws = uniforms(seed, test.latent, number[:, None], np.arange(tokens)[None, :])
        return prompts, number, draws, writer.write(prompts, draws, None)

    parts = []
    for name, order in sorted(orders.items()):
        prompts, number, draws, plain = clean(order.prompts, order.tokens)
        intervention, facts = _intervention(order, train, writer)
        pushed = writer.write(prompts, draws, intervention)
        kl = divergence(plain.first, pushed.first)
        facts |= {"kl": kl} if np.isfinite(kl) else {"kl": None, "status": NOT_FINITE}
        texts = [_texts(prompt, (), pieces)[0] for prompt in prompts]
        columns = {"sae": sae, "latent": test.latent, "scorer": name, "prompt": np.arange(len(prompts), dtype=np.int32), **facts}
        columns |= {"example": number, "tokens": [prompt.tolist() for prompt in prompts], "text": texts}
        for kind, written in (("clean", plain), ("pushed", pushed)):
            columns[f"{kind}_tokens"] = [tokens.tolist() for tokens in written.tokens]
            columns[f"{kind}_text"] = [_texts(*both, pieces)[1] for both in zip(prompts, written.tokens, strict=True)]
        parts.append(GENERATIONS.build(columns))
    return pa.concat_tables(parts)


def _intervention(order: Order, train: Examples, writer: Writer) -> tuple[Intervention, dict[str, Any]]:
    """Return the intervention that a scorer orders, and its columns: status, strength, and KL on the prompts it was found on."""
    if order.ablate:
        return Intervention(train.latent, None), {"status": "ok", "strength": None, "kl_tuned": None, "kl_asked": None}
    found = writer.find(train.latent, prompts_of(train, order.tune), order.kl)
    status = "ok" if found.reached else OUT_OF_REACH
    facts = {"status": status, "strength": found.strength, "kl_tuned": found.kl, "kl_asked": order.kl}
    return Intervention(train.latent, found.strength), facts


def divergence(clean: npt.NDArray[np.float32], pushed: npt.NDArray[np.float32]) -> float:
    """Return the mean over prompts of KL(clean ‖ pushed) in nats; both are log-probabilities [prompts, vocabulary]."""
    p, q = clean.astype(np.float64), pushed.astype(np.float64)
    return max(float((np.exp(p) * (p - q)).sum(axis=1).mean()), 0.0)


def _texts(prompt: TokenIds, added: npt.ArrayLike, pieces: Sequence[bytes]) -> tuple[str, str]:
    """Return the text of a prompt and the text of what was *added*; a character that the border cuts belongs to the second."""
    decoder = getincrementaldecoder("utf-8")("replace")
    begin, rest = (b"".join(pieces[token] for token in np.asarray(ids, dtype=np.int64)) for ids in (prompt, added))
    return decoder.decode(begin), decoder.decode(rest, final=True)


@dataclass(frozen=True)
class Passages:
    """What was written for one latent and scorer: the prompts' numbers [n], the whole texts [n], their status, and the mean KL (nats)."""

    number: Ints
    status: str
    clean: list[str]
    pushed: list[str]
    kl: float | None


def passages(rows: pa.Table) -> dict[int, Passages]:
    """Return the passages of each latent from the GENERATIONS *rows* of one scorer, which must be in order of latent."""
    found = {}
    for latent, group in groupby(rows.to_pylist(), key=itemgetter("latent")):
        own = list(group)
        number = np.array([row["prompt"] for row in own], dtype=np.int64)
        clean, pushed = ([row["text"] + row[name] for row in own] for name in ("clean_text", "pushed_text"))
        found[latent] = Passages(number, own[0]["status"], clean, pushed, own[0]["kl"])
    return found
