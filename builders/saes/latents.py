"""What each latent does over the whole corpus: the `latents` config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.arrays import Floats, Ints
from builders.lake.references import OF_SAE
from builders.lake.table import Column, Table
from builders.saes.activations import Firings
from builders.text.rows import Corpus

LATENTS = Table(
    name="latents",
    row="a latent of a dictionary, whether it ever fires or not",
    key=("sae", "latent"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("status", "string", "alive, rare (fires in fewer windows than `rare_windows`) or dead (never fires)", categorical=True),
        Column("count", "int64", "tokens on which it fires", unit="tokens", low=0),
        Column("density", "float64", "share of the corpus' tokens on which it fires", low=0, high=1),
        Column("windows", "int64", "whole windows in which it fires", unit="windows", low=0),
        Column("window_density", "float64", "share of the corpus' whole windows in which it fires", nullable=True, low=0, high=1),
        Column("max", "float32", "largest activation", nullable=True, low=0),
        Column("mean", "float32", "mean activation where it fires", nullable=True, low=0),
        Column("top_tokens", "list<string>", "the tokens with the largest shares of its summed activation"),
        Column("top_shares", "list<float32>", "the share of its summed activation on each of top_tokens", low=0, high=1),
        Column(
            "promotes",
            "list<string>",
            "tokens whose logit its direction raises most (unembedding without the final norm); empty if it does not write to the stream",
        ),
        Column("suppresses", "list<string>", "tokens whose logit its direction lowers most"),
        Column("truth", "string", "its true explanation, if the latent is a planted rule", nullable=True),
        Column(
            "inclusion",
            "float64",
            "probability that stage `contexts` took it: 1, or less where `contexts.latents` asks for a sample of the latents",
            low=0,
            high=1,
        ),
    ),
    references=(OF_SAE,),
)
TOP = 10


@dataclass(frozen=True)
class Scope:
    """What was read: the token rows, the length of a window in tokens, and the number of text tokens."""

    corpus: Corpus
    window: int
    tokens: int


def largest(rows: pa.Table) -> Floats:
    """Return each latent's largest activation [latents] from its dictionary's LATENTS *rows*; NaN where it never fires."""
    found: Floats = rows["max"].to_numpy().astype(np.float64)
    return found


def latent_rows(
    sae: str,
    low: int,
    high: int,
    firings: Firings,
    scope: Scope,
    rare_windows: int,
    pieces: npt.NDArray[np.object_],
    effects: tuple[Ints, Ints] | None,
    truths: Sequence[str] | None = None,
) -> pa.Table:
    """Return the LATENTS rows of the latents from *low* up to *high*; *firings* are all of their firings.

    *pieces* holds the text of each token id. *effects* are the ids that each latent promotes and suppresses, both [width, TOP].
    A latent that fires in fewer than *rare_windows* windows is rare.
    """
    nothing: list[list[str]] = [[]] * (high - low)
    raised, lowered = (nothing, nothing) if effects is None else (pieces[ids[low:high]].tolist() for ids in effects)
    latent = firings.latent - low
    n = high - low
    count = np.bincount(latent, minlength=n)
    total = np.bincount(latent, weights=firings.value, minlength=n).astype(np.float64)
    most = np.zeros(n, dtype=np.float32)
    np.maximum.at(most, latent, firings.value)
    windows, total_windows = _windows(latent, firings, scope, n), scope.corpus.grid(scope.window).total
    tokens, shares = _top_tokens(latent, firings, scope.corpus, total, pieces)
    with np.errstate(invalid="ignore"):
        mean = (total / count).astype(np.float32)
    return LATENTS.build(
        {
            "sae": sae,
            "latent": np.arange(low, high, dtype=np.int32),
            "status": np.where(count == 0, "dead", np.where(windows < rare_windows, "rare", "alive")).tolist(),
            "count": count,
            "density": count / scope.tokens,
            "windows": windows,
            "window_density": windows / total_windows if total_windows else None,
            "max": pa.array(most, mask=count == 0),
            "mean": pa.array(mean, mask=count == 0),
            "top_tokens": tokens,
            "top_shares": shares,
            "promotes": raised,
            "suppresses": lowered,
            "truth": None if truths is None else truths[low:high],
            "inclusion": 1.0,  # until stage `contexts` draws
        }
    )


def _windows(latent: npt.NDArray[np.int32], firings: Firings, scope: Scope, n: int) -> Ints:
    """Return in how many whole windows each latent fires, counted as `contexts` counts them."""
    grid = scope.corpus.grid(scope.window)
    number = grid.number(firings.row.astype(np.int64), firings.position.astype(np.int64))
    place = latent.astype(np.int64) * grid.total + number
    new = np.concatenate([[True], place[1:] != place[:-1]]) if len(place) else np.zeros(0, dtype=bool)
    return np.bincount(latent[new & (number >= 0)], minlength=n)


def _top_tokens(
    latent: npt.NDArray[np.int32], firings: Firings, corpus: Corpus, total: Floats, pieces: npt.NDArray[np.object_]
) -> tuple[list[list[str]], list[list[float]]]:
    pair = latent.astype(np.int64) * len(pieces) + corpus.ids[firings.row, firings.position]
    pairs, inverse = np.unique(pair, return_inverse=True)
    mass = np.bincount(inverse, weights=firings.value, minlength=len(pairs))
    owner, token = np.divmod(pairs, len(pieces))
    order = np.lexsort((token, -mass, owner))
    owner, token, mass = owner[order], token[order], mass[order]
    starts = np.searchsorted(owner, np.arange(len(total) + 1))
    tokens, shares = [], []
    for low, high, whole in zip(starts[:-1], np.minimum(starts[1:], starts[:-1] + TOP), total, strict=True):
        tokens.append(pieces[token[low:high]].tolist())
        shares.append(np.minimum(mass[low:high] / max(whole, 1e-30), 1.0).tolist())
    return tokens, shares
