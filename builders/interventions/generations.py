"""What a model writes after a prompt: cleanly, pushed along a latent's or a random direction, or with the latent silenced.

This is the `generations` config. A prompt is the beginning of a row that ends in one of the latent's test windows. The strength of a push
is found on the very prompts after which the model then writes. The random direction is the null: it moves the next token of the same
prompts by the same KL divergence, and means nothing. All continuations of a prompt are sampled with the same random numbers, so that they
differ by the intervention and not by luck.
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
from builders.interventions.beginnings import Beginnings, TokenIds, beginnings
from builders.interventions.interventions import Ablation, Direction, Intervention, Push, Tuner, near
from builders.lake.references import OF_LATENT, OF_TEST_WINDOW
from builders.lake.table import Column, Table
from builders.seeds import seed_of, uniforms

LATENT, RANDOM = "latent", "random"  # whose direction is pushed
OUT_OF_REACH = "out of reach"
NOT_FINITE = "not finite"
GENERATIONS = Table(
    name="generations",
    row="the beginning of a text, and what the model writes next: cleanly, and pushed along a direction or with a latent silenced",
    key=("sae", "latent", "scorer", "direction", "prompt"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("scorer", "string", "the scorer that asks for the generation", categorical=True),
        Column(
            "direction",
            "string",
            "latent: the latent's own (or the latent is silenced); random: a random one of the same length, the null",
            categorical=True,
        ),
        Column("prompt", "int32", "number of the beginning", low=0),
        Column(
            "status",
            "string",
            "ok; out of reach: no strength gives the KL asked for; not finite: the push leaves the range of the model's numbers",
            categorical=True,
        ),
        Column("example", "int32", "number of the window in `contexts`, split test, that the beginning ends in", low=0),
        Column("tokens", "list<int32>", "token ids of the beginning, from the row's first to the window's first activating token", low=0),
        Column("start", "int32", "position of the window's first token; a judge is shown the beginning from there on", low=0),
        Column("text", "string", "the text of the beginning that a judge is shown"),
        Column("clean_tokens", "list<int32>", "token ids of what the model writes without a push", low=0),
        Column("clean_text", "string", "their text"),
        Column("pushed_tokens", "list<int32>", "token ids of what the model writes when pushed from the beginning's last token on", low=0),
        Column("pushed_text", "string", "their text"),
        Column("strength", "float64", "what the direction is multiplied by; none where the latent is silenced", nullable=True, low=0),
        Column("kl", "float64", "mean KL divergence of the next token over these beginnings", unit="nats", nullable=True, low=0),
        Column("kl_asked", "float64", "the KL divergence that was asked for", unit="nats", nullable=True, low=0),
    ),
    references=(OF_LATENT, OF_TEST_WINDOW),
)


@dataclass(frozen=True)
class Order:
    """What a scorer orders: *tokens* tokens written after each of *prompts* prompts, under one intervention.

    The intervention adds a direction, with the strength that gives *kl* nats on these prompts. With *ablate*, it silences the latent
    instead.
    """

    kl: float
    ablate: bool
    prompts: int
    tokens: int


@dataclass(frozen=True)
class Written:
    """What was written after each prompt, as token ids, and the log-probabilities of the first token [prompts, vocabulary]."""

    tokens: list[TokenIds]
    first: npt.NDArray[np.float32]


class Writer(Tuner, Protocol):
    """Finds strengths, and continues prompts under an intervention (None for the clean model).

    *draws* [prompts, tokens] from [0, 1) decide what is sampled.
    """

    def write(self, prompts: Sequence[TokenIds], draws: Floats, intervention: Intervention | None) -> Written: ...  # noqa: D102  # said above


def generation_rows(
    sae: str, orders: Mapping[str, Order], test: Examples, rows: TokenIds, writer: Writer, pieces: Sequence[bytes], seed: int
) -> pa.Table:
    """Return the GENERATIONS rows of one latent, for the scorers named in *orders*.

    *rows* are the token ids of all rows of `tokens`; *pieces* are the bytes of each token id. What is sampled depends on *seed*, latent,
    window and step alone.
    """

    @cache  # scorers that order equally many prompts and tokens share the clean text
    def clean(most: int, tokens: int) -> tuple[Beginnings, Floats, Written]:
        begun = beginnings(test, rows, most)
        draws = uniforms(seed, test.latent, begun.number[:, None], np.arange(tokens)[None, :])
        return begun, draws, writer.write(begun.tokens, draws, None)

    parts = []
    for name, order in sorted(orders.items()):
        begun, draws, plain = clean(order.prompts, order.tokens)
        for direction, intervention in _interventions(order, test.latent, begun, writer, seed).items():
            pushed = writer.write(begun.tokens, draws, intervention)
            who = {"sae": sae, "latent": test.latent, "scorer": name, "direction": direction}
            facts, texts = _facts(order, intervention, plain, pushed), _passages(begun, {"clean": plain, "pushed": pushed}, pieces)
            parts.append(GENERATIONS.build(who | facts | texts))
    return pa.concat_tables(parts)


def _interventions(order: Order, latent: int, begun: Beginnings, writer: Writer, seed: int) -> dict[str, Intervention]:
    """Return what a scorer orders, by direction, with the strengths found on the beginnings; silencing has no strength and so no null."""
    if order.ablate:
        return {LATENT: Ablation(latent)}
    own = writer.direction(latent)
    directions = {LATENT: own, RANDOM: random_direction(own, seed_of(seed, "random direction", latent))}
    return {name: Push(some, writer.find(some, begun.tokens, order.kl).strength) for name, some in directions.items()}


def random_direction(like: Direction, seed: int) -> Direction:
    """Return a direction that is drawn uniformly and is as long as *like*, so that strengths of both compare."""
    drawn = np.random.default_rng(seed).standard_normal(len(like))
    found: Direction = (drawn * (np.linalg.norm(like) / np.linalg.norm(drawn))).astype(np.float32)
    return found


def _facts(order: Order, intervention: Intervention, plain: Written, pushed: Written) -> dict[str, Any]:
    """Return the columns that say how far an intervention moved the model: status, strength, and the KL reached and asked for."""
    kl = divergence(plain.first, pushed.first)
    facts: dict[str, Any] = {"status": "ok", "strength": None, "kl": kl, "kl_asked": None}
    if isinstance(intervention, Push):
        status = "ok" if near(kl, order.kl) else OUT_OF_REACH
        facts |= {"status": status, "strength": intervention.strength, "kl_asked": order.kl}
    return facts if np.isfinite(kl) else facts | {"kl": None, "status": NOT_FINITE}


def divergence(clean: npt.NDArray[np.float32], pushed: npt.NDArray[np.float32]) -> float:
    """Return the mean over prompts of KL(clean ‖ pushed) in nats; both are log-probabilities [prompts, vocabulary]."""
    p, q = clean.astype(np.float64), pushed.astype(np.float64)
    return max(float((np.exp(p) * (p - q)).sum(axis=1).mean()), 0.0)


def _passages(begun: Beginnings, written: Mapping[str, Written], pieces: Sequence[bytes]) -> dict[str, Any]:
    """Return the columns of beginnings and of what was *written* after them, by kind."""
    shown = [tokens[start:] for tokens, start in zip(begun.tokens, begun.start, strict=True)]
    columns = {"prompt": np.arange(len(shown), dtype=np.int32), "example": begun.number, "start": begun.start}
    columns |= {"tokens": [tokens.tolist() for tokens in begun.tokens], "text": [_texts(tokens, (), pieces)[0] for tokens in shown]}
    for kind, some in written.items():
        columns[f"{kind}_tokens"] = [tokens.tolist() for tokens in some.tokens]
        columns[f"{kind}_text"] = [_texts(*both, pieces)[1] for both in zip(shown, some.tokens, strict=True)]
    return columns


def _texts(prompt: TokenIds, added: npt.ArrayLike, pieces: Sequence[bytes]) -> tuple[str, str]:
    """Return the text of a prompt and the text of what was *added*; a character that the border cuts belongs to the second."""
    decoder = getincrementaldecoder("utf-8")("replace")
    begin, rest = (b"".join(pieces[token] for token in np.asarray(ids, dtype=np.int64)) for ids in (prompt, added))
    return decoder.decode(begin), decoder.decode(rest, final=True)


@dataclass(frozen=True)
class Passages:
    """What was written for one latent and scorer: the prompts' numbers [n], their status, and the mean KL (nats) of the latent's push.

    *clean*, *pushed* and *random* are the whole texts [n]; *random* is empty where no random direction was pushed as asked.
    """

    number: Ints
    status: str
    kl: float | None
    clean: list[str]
    pushed: list[str]
    random: list[str]


def passages(rows: pa.Table) -> dict[int, Passages]:
    """Return the passages of each latent from the GENERATIONS *rows* of one scorer, which must be in order of latent and direction."""
    found = {}
    for latent, group in groupby(rows.to_pylist(), key=itemgetter("latent")):
        sides = {direction: list(some) for direction, some in groupby(group, key=itemgetter("direction"))}
        own, null = sides[LATENT], [row for row in sides.get(RANDOM, []) if row["status"] == "ok"]
        kinds = ((own, "clean_text"), (own, "pushed_text"), (null, "pushed_text"))
        clean, pushed, random = ([row["text"] + row[name] for row in some] for some, name in kinds)
        number = np.array([row["prompt"] for row in own], dtype=np.int64)
        found[latent] = Passages(number, own[0]["status"], own[0]["kl"], clean, pushed, random)
    return found
