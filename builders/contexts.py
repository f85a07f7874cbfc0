"""Windows for explainers (split train) and scorers (split test): the `contexts` config. SCIENCE A4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builders.activations import Firings
from builders.failures import FAILURES, failure
from builders.table import Column, Table
from builders.vocabulary import texts
from builders.windows import Corpus, Ints, Plan, activating_windows, choose, silent_windows, touched_windows

CONTEXTS = Table(
    name="contexts",
    row="a window of text shown to an explainer (split train) or to a scorer (split test)",
    key=("sae", "latent", "split", "example"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("split", "string", "train: shown to explainers; test: shown to scorers; no window is in both", categorical=True),
        Column("example", "int32", "number within the latent and split", low=0),
        Column("kind", "string", "activating, or random: drawn from the windows in which the latent is silent", categorical=True),
        Column("quantile", "int32", "rank quantile by largest activation, 0 the strongest", nullable=True, low=0),
        Column("row", "int32", "the row of `tokens` it was cut from", low=0),
        Column("start", "int32", "position of its first token in that row", low=0),
        Column("text", "string", "the window's text"),
        Column("tokens", "list<int32>", "token ids", low=0),
        Column("activations", "list<float32>", "the latent's activation on each token", low=0),
    ),
    row_group=20_000,
)


def context_rows(
    sae: str, latents: Ints, firings: Firings, corpus: Corpus, plan: Plan, seed: int, pieces: pa.Array
) -> tuple[pa.Table, pa.Table]:
    """Return the CONTEXTS rows of *latents*, whose *firings* are all there, and the FAILURES of those that fall short.

    A latent needs its full quota of windows of every kind; *pieces* are the bytes of each token id.
    """
    candidates = activating_windows(firings, corpus, plan)
    chosen, train, quantile = choose(candidates, plan, seed)
    grid = corpus.grid(plan.window)
    touched = touched_windows(firings, chosen, grid)
    asked = plan.test_random + plan.train_random
    silent, number = silent_windows(np.unique(chosen.latent), touched, grid, asked, seed + 2)
    row, start = grid.place(number)
    place = np.arange(len(silent)) - np.searchsorted(silent, silent)
    parts = {
        "latent": (chosen.latent, silent),
        "train": (train, place >= plan.test_random),
        "activating": (np.ones(len(train), dtype=bool), np.zeros(len(silent), dtype=bool)),
        "quantile": (quantile, np.full(len(silent), -1)),
        "row": (chosen.row, row),
        "start": (chosen.start, start),
    }
    columns = {name: np.concatenate(both) for name, both in parts.items()}
    have = np.bincount(candidates.latent, minlength=int(latents.max(initial=0)) + 1)
    quiet = np.bincount(silent, minlength=len(have))
    failed = [record for latent in latents.tolist() if (record := _shortfall(sae, latent, have, quiet, plan))]
    whole = np.isin(columns["latent"], [record["latent"] for record in failed], invert=True)
    # Test before train, activating before silent, strongest first: the order in which a person wants to read them.
    order = np.lexsort((~columns["activating"], columns["train"], columns["latent"]))
    columns = {name: values[order[whole[order]]] for name, values in columns.items()}
    return _rows(sae, columns, firings, corpus, plan, pieces), FAILURES.rows(failed)


def _shortfall(sae: str, latent: int, have: Ints, quiet: Ints, plan: Plan) -> dict[str, Any] | None:
    """Return the failure of a latent that cannot fill its quota, or None."""
    if have[latent] < max(plan.train + plan.test, plan.at_least):
        needed = plan.at_least if plan.at_least > plan.train + plan.test else f"{plan.train} + {plan.test}"
        reason = f"fires in {have[latent]} windows; {needed} are needed"
        return failure(sae, latent, "contexts", "latent", reason)
    needs = plan.train_random + plan.test_random
    if quiet[latent] < needs:
        return failure(sae, latent, "contexts", "latent", f"is silent in {quiet[latent]} windows; {needs} are needed")
    return None


def _rows(sae: str, columns: dict[str, Any], firings: Firings, corpus: Corpus, plan: Plan, pieces: pa.Array) -> pa.Table:
    latent, row, start, train = (columns[name] for name in ("latent", "row", "start", "train"))
    split = latent * 2 + train
    example = np.arange(len(latent)) - np.searchsorted(split, split)
    ids = corpus.ids[row[:, None], start[:, None] + np.arange(plan.window)]
    quantile = columns["quantile"]
    return CONTEXTS.build(
        {
            "sae": sae,
            "latent": latent,
            "split": np.where(train, "train", "test").tolist(),
            "example": example,
            "kind": np.where(columns["activating"], "activating", "random").tolist(),
            "quantile": pa.array(quantile, mask=quantile < 0),
            "row": row,
            "start": start,
            "text": texts(ids, pieces),
            "tokens": ids,
            "activations": window_activations(latent, row, start, firings, corpus, plan.window),
        }
    )


def window_activations(latent: Ints, row: Ints, start: Ints, firings: Firings, corpus: Corpus, window: int) -> npt.NDArray[np.float32]:
    """Return the activations [n, window] in windows of which no two of one latent overlap."""
    if not len(latent):
        return np.zeros((0, window), dtype=np.float32)
    length = corpus.row_length
    place = (latent * len(corpus.ids) + row) * length + start
    order = np.argsort(place)
    at = (firings.latent.astype(np.int64) * len(corpus.ids) + firings.row) * length + firings.position
    owner = np.searchsorted(place[order], at, side="right") - 1
    offset = at - place[order][np.maximum(owner, 0)]
    # A window never leaves its row, so a firing of a later row lies a whole window further on.
    inside = np.flatnonzero((owner >= 0) & (offset < window))
    values = np.zeros((len(place), window), dtype=np.float32)
    values[order[owner[inside]], offset[inside]] = firings.value[inside]
    return values


@dataclass(frozen=True)
class Examples:
    """One latent's windows of one split: token ids and activations [n, window], and which are activating [n]."""

    latent: int
    number: Ints
    tokens: npt.NDArray[np.int32]
    activations: npt.NDArray[np.float32]
    activating: npt.NDArray[np.bool_]


def by_latent(rows: pa.Table, split: str) -> Iterator[Examples]:
    """Yield the windows of *split* of each latent of the CONTEXTS *rows*, in order."""
    rows = rows.filter(pc.equal(rows["split"], split))
    if not rows.num_rows:
        return
    latents = rows["latent"].to_numpy()
    tokens, activations = (_matrix(rows[name]) for name in ("tokens", "activations"))
    activating = pc.equal(rows["kind"], "activating").to_numpy()
    starts: list[int] = np.flatnonzero(np.concatenate([[True], latents[1:] != latents[:-1]])).tolist() if len(latents) else []
    for low, high in zip(starts, [*starts[1:], len(latents)], strict=True):
        cut = slice(low, high)
        number = rows["example"][low:high].to_numpy().astype(np.int64)
        yield Examples(int(latents[low]), number, tokens[cut], activations[cut], activating[cut])


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    flat: npt.NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 0)
