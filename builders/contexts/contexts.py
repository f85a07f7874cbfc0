"""Windows for explainers (split train) and scorers (split test): the `contexts` config. SCIENCE A4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from builders.arrays import Ints
from builders.contexts.negatives import Hard
from builders.contexts.selection import KINDS, Selected
from builders.contexts.windows import window_activations
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
            "activating; or where it is silent: random, similar, or of a neighbour by cofiring, decoder or encoder",
            categorical=True,
        ),
        Column("quantile", "int32", "rank quantile by largest activation, 0 the strongest", nullable=True, low=0),
        Column("row", "int32", "the row of `tokens` it was cut from", low=0),
        Column("start", "int32", "position of its first token in that row", low=0),
        Column("text", "string", "the window's text"),
        Column("tokens", "list<int32>", "token ids", low=0),
        Column("activations", "list<float32>", "the latent's activation on each token", low=0),
        Column("neighbour", "int32", "the neighbour that fires there, in a neighbour's window", nullable=True, low=0),
        Column("neighbour_activations", "list<float32>", "the neighbour's activation on each token; empty elsewhere", low=0),
    ),
    row_group=20_000,
)
READ = ["latent", "split", "example", "kind", "quantile", "tokens", "activations", "neighbour_activations"]  # what Examples are made of


def context_rows(sae: str, selected: Selected, hard: Hard, firings: Firings, corpus: Corpus, window: int, pieces: pa.Array) -> pa.Table:
    """Return the CONTEXTS rows of the windows *selected*, and of the *hard* ones after the other test windows.

    *firings* are those of the latents selected; *pieces* are the bytes of each token id.
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
    # Test before train, activating before silent, strongest first: the order in which a person wants to read them.
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


def _lists(values: npt.NDArray[np.float32], whole: npt.NDArray[np.bool_]) -> pa.Array:
    """Return one row of *values* after another where *whole*, empty lists elsewhere."""
    offsets = np.cumsum(np.concatenate([[0], np.where(whole, values.shape[1], 0)]))
    return pa.ListArray.from_arrays(offsets.astype(np.int32), values.reshape(-1))


@dataclass(frozen=True)
class Examples:
    """One latent's windows of one split: token ids and activations [n, window], of which kind and quantile (-1 where silent) [n].

    *neighbour* [n, window] are the activations of the latent that fires there, in windows of a neighbour.
    """

    latent: int
    number: Ints
    tokens: npt.NDArray[np.int32]
    activations: npt.NDArray[np.float32]
    kind: npt.NDArray[np.str_]
    quantile: Ints
    neighbour: npt.NDArray[np.float32]

    @property
    def activating(self) -> npt.NDArray[np.bool_]:
        """Which windows the latent fires in [n]."""
        found: npt.NDArray[np.bool_] = self.kind == "activating"
        return found

    def take(self, index: npt.NDArray[Any]) -> Examples:
        """Return the windows at *index*."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "latent"})

    def against(self, negatives: str) -> Examples:
        """Return the activating windows, and the silent ones of one kind."""
        return self.take(self.activating | (self.kind == negatives))

    def some(self, negatives: str, most: int) -> Examples:
        """Return at most *most* activating windows and as many silent ones of one kind, evenly over their order."""
        sides = (np.flatnonzero(self.kind == kind) for kind in ("activating", negatives))
        return self.take(np.concatenate([evenly(side, most) for side in sides]))


def evenly(places: Ints, most: int) -> Ints:
    """Return at most *most* of *places*, evenly over their order (which goes from strong to weak)."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).round().astype(np.int64)]


def by_latent(rows: pa.Table, split: str) -> Iterator[Examples]:
    """Yield the windows of *split* of each latent of the CONTEXTS *rows* (their columns READ), in order."""
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
        number = rows["example"][low:high].to_numpy().astype(np.int64)
        yield Examples(int(latents[low]), number, tokens[cut], activations[cut], kind[cut], quantile[cut], neighbour[cut])


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    flat: npt.NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 0)


def _spread(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return lists that are empty or whole as a matrix, zero where they are empty."""
    values = np.zeros(shape, dtype=np.float32)
    whole = pc.list_value_length(column).to_numpy() > 0
    values[whole] = column.combine_chunks().flatten().to_numpy().reshape(-1, shape[1])
    return values
