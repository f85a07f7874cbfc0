"""Windows for explainers (split train) and scorers (split test): the `contexts` config.

Source: Paulo et al. 2024 (arXiv:2410.13928); see docs/science.md#contexts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builders.arrays import Bools, Ints
from builders.contexts.negatives import Hard
from builders.contexts.selection import KINDS, Selected
from builders.contexts.windows import window_activations
from builders.lake.references import OF_LATENT, OF_ROW, to_latents
from builders.lake.table import Column, Table
from builders.saes.activations import Firings
from builders.text.rows import Corpus
from builders.text.vocabulary import texts

CONTEXTS = Table(
    name="contexts",
    row="a window of text shown to an explainer (split train) or to a scorer (split test)",
    key=("sae", "latent", "split", "example"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("split", "string", "train: shown to explainers; test: shown to scorers; no window is in both", categorical=True),
        Column("example", "int32", "number within the latent and split", low=0),
        Column(
            "kind",
            "string",
            "activating, or a silent kind: random, similar, of a neighbour (cofiring, decoder, encoder), row (no firing in all the row), "
            "or decoy (it holds tokens on which the latent fires elsewhere)",
            categorical=True,
        ),
        Column("quantile", "int32", "rank quantile of the window by its largest activation; 0 is the strongest", nullable=True, low=0),
        Column("row", "int32", "the row of `tokens` that the window was cut from", low=0),
        Column("start", "int32", "position of the window's first token in that row", low=0),
        Column("text", "string", "the window's text"),
        Column("tokens", "list<int32>", "the window's token ids", low=0),
        Column("activations", "list<float32>", "the latent's activation on each token", low=0),
        Column("neighbour", "int32", "the neighbour that fires there, in windows of a neighbour", nullable=True, low=0),
        Column("neighbour_activations", "list<float32>", "the neighbour's activation on each token; empty in other windows", low=0),
    ),
    row_group=20_000,
    references=(OF_LATENT, OF_ROW, to_latents("sae", "neighbour")),
)
STRONG = 0.3  # share of the largest activation
READ = ["latent", "split", "example", "kind", "quantile", "row", "start", "tokens", "activations", "neighbour_activations"]  # for Examples


def context_rows(sae: str, selected: Selected, hard: Hard, firings: Firings, corpus: Corpus, window: int, pieces: pa.Array) -> pa.Table:
    """Return the CONTEXTS rows of the *selected* and the *hard* windows; hard ones come after a latent's other test windows.

    *firings* are the activations of the selected latents; *pieces* are the bytes of each token id; *window* is in tokens.
    """
    more = len(hard.latent)
    parts: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    parts = {name: (getattr(selected, name), getattr(hard, name)) for name in ("latent", "kind", "row", "start")}
    parts["train"] = selected.train, np.zeros(more, dtype=bool)
    parts["quantile"] = selected.quantile, np.full(more, -1)
    parts["neighbour"] = np.full(len(selected.latent), -1), hard.neighbour
    own = window_activations(selected.latent, selected.row, selected.start, firings, corpus, window)
    parts["activations"] = own, np.zeros((more, window), dtype=np.float32)
    columns = {name: np.concatenate(both) for name, both in parts.items()}
    # Test before train, activating before silent, strongest first: a person wants to read them in this order.
    order = np.lexsort((columns["kind"], columns["train"], columns["latent"]))
    columns = {name: values[order] for name, values in columns.items()}
    split = columns["latent"] * 2 + columns["train"]
    ids = corpus.ids[columns["row"][:, None], columns["start"][:, None] + np.arange(window)]
    quantile, neighbour = columns["quantile"], columns["neighbour"]
    return CONTEXTS.build(
        {
            "sae": sae,
            "latent": columns["latent"],
            "split": np.where(columns["train"], "train", "test").tolist(),
            "example": np.arange(len(split)) - np.searchsorted(split, split),
            "kind": np.array(KINDS)[columns["kind"]].tolist(),
            "quantile": pa.array(quantile, mask=quantile < 0),
            "row": columns["row"],
            "start": columns["start"],
            "text": texts(ids, pieces),
            "tokens": ids,
            "activations": columns["activations"],
            "neighbour": pa.array(neighbour, mask=neighbour < 0),
            "neighbour_activations": _lists(hard.neighbour_activations, neighbour >= 0),
        }
    )


def _lists(values: npt.NDArray[np.float32], filled: Bools) -> pa.Array:
    """Return a column of lists: where *filled*, the next row of *values*; elsewhere an empty list."""
    offsets = np.cumsum(np.concatenate([[0], np.where(filled, values.shape[1], 0)]))
    return pa.ListArray.from_arrays(offsets.astype(np.int32), values.reshape(-1))


@dataclass(frozen=True)
class Examples:
    """One latent's windows of one split.

    Of shape [n]: *number* (the column `example`), *kind*, *quantile* (-1 where the latent is silent), and the place in `tokens`: *row*, and
    *start*, the position of the window's first token. Of shape [n, window]: *tokens* (token ids), *activations*, and *neighbour*: the
    activations of the neighbouring latent, zero in windows of other kinds.
    """

    latent: int
    number: Ints
    tokens: npt.NDArray[np.int32]
    activations: npt.NDArray[np.float32]
    kind: npt.NDArray[np.str_]
    quantile: Ints
    neighbour: npt.NDArray[np.float32]
    row: Ints
    start: Ints

    @property
    def activating(self) -> Bools:
        """Whether the latent fires in each window [n]."""
        found: Bools = self.kind == "activating"
        return found

    def take(self, index: npt.NDArray[Any]) -> Examples:
        """Return the windows at *index*."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "latent"})

    def against(self, negatives: str) -> Examples:
        """Return the activating windows and the silent ones of the kind *negatives*."""
        return self.take(self.activating | (self.kind == negatives))

    def some(self, negatives: str, most: int) -> Examples:
        """Return at most *most* activating windows and at most *most* silent ones of the kind *negatives*, each evenly over their order."""
        sides = (np.flatnonzero(self.kind == kind) for kind in ("activating", negatives))
        return self.take(np.concatenate([evenly(side, most) for side in sides]))


def strong(activations: npt.NDArray[np.float32]) -> Bools:
    """Return which tokens [..., window] are strong: they reach STRONG of the largest activation of their window; none where it is silent.

    Explainers see them marked, and fuzzing asks about them. Source: Paulo et al. 2024, arXiv:2410.13928; see docs/science.md#explanations.
    """
    found: Bools = (activations >= STRONG * activations.max(axis=-1, keepdims=True, initial=0.0)) & (activations > 0)
    return found


def evenly(places: Ints, most: int) -> Ints:
    """Return at most *most* of *places*, evenly spaced over their order (for activating windows, from strong to weak)."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]


def by_latent(rows: pa.Table, split: str) -> Iterator[Examples]:
    """Yield each latent's windows of one *split*, in order of latent; *rows* are CONTEXTS rows with the columns READ."""
    rows = rows.filter(pc.equal(rows["split"], split))
    if not rows.num_rows:
        return
    latents = rows["latent"].to_numpy()
    tokens, activations = (_matrix(rows[name]) for name in ("tokens", "activations"))
    kind = rows["kind"].to_numpy().astype(np.str_)
    quantile = pc.fill_null(rows["quantile"], -1).to_numpy().astype(np.int64)
    neighbour = _spread(rows["neighbour_activations"], tokens.shape)
    starts: list[int] = np.flatnonzero(np.concatenate([[True], latents[1:] != latents[:-1]])).tolist()
    for low, high in zip(starts, [*starts[1:], len(latents)], strict=True):
        cut = slice(low, high)
        number, row, start = (rows[name][low:high].to_numpy().astype(np.int64) for name in ("example", "row", "start"))
        yield Examples(int(latents[low]), number, tokens[cut], activations[cut], kind[cut], quantile[cut], neighbour[cut], row, start)


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    flat: npt.NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 0)


def _spread(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a column of lists as a matrix of *shape*; a list is either empty, which gives a row of zeros, or a whole row."""
    values = np.zeros(shape, dtype=np.float32)
    filled = pc.list_value_length(column).to_numpy() > 0
    values[filled] = column.combine_chunks().flatten().to_numpy().reshape(-1, shape[1])
    return values
