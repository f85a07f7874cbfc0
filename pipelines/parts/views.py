"""Dictionaries as stage `similarity` compares them: the rows of their coders, their firings on a common text, their explanations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from builders.arrays import Ints
from builders.embedders.embedder import Model, Vectors
from builders.explainers.explanations import EXPLANATIONS
from builders.lake.shards import Shelf
from builders.progress import track
from builders.saes.activations import ACTIVATIONS, Firings
from builders.saes.coder import Coder
from builders.saes.encoder import Encoder, read_together
from builders.saes.geometry import directions_of
from builders.saes.latents import LATENTS
from builders.saes.neurons import untrained
from builders.saes.table import SAES
from builders.seeds import drawn, seed_of
from builders.similarity.cofiring import Jaccard, Pearson, fired
from builders.similarity.measures import Cosines, Measure
from builders.similarity.spans import Reading, Spans, Units, align
from builders.text.tokens import TOKENS, Packing
from builders.text.vocabulary import VOCABULARY, text_pieces
from pipelines.graph.stage import shelf
from pipelines.opened.dictionaries import coder_of, mounted
from pipelines.opened.embedders import open_embedder
from pipelines.opened.engines import Engines
from pipelines.opened.subjects import Subjects
from pipelines.params import InModelParams, Params, RandomSaeParams

COFIRING: dict[str, Callable[[sparse.csr_array, sparse.csr_array], Measure]] = {"pearson": Pearson, "jaccard": Jaccard}


@dataclass(frozen=True)
class Compared:
    """A measure of two dictionaries, and the numbers of the latents of A and of B that it compares."""

    measure: Measure
    latents: Ints
    others: Ints


class View:
    """A dictionary, opened piece by piece as it is asked for."""

    def __init__(self, params: Params, sae_id: str) -> None:
        self.params, self.sae_id = params, sae_id
        self.spec = params.saes[sae_id]
        self.shelf, self.activations = shelf("saes", sae_id), shelf("activations", sae_id)

    @cached_property
    def alive(self) -> Ints:
        """The latents that ever fire."""
        return np.flatnonzero(self.activations.read(LATENTS, columns=["count"])["count"].to_numpy() > 0)

    @cached_property
    def row(self) -> dict[str, Any]:
        """Its row of SAES."""
        found: dict[str, Any] = self.shelf.read(SAES).to_pylist()[0]
        return found

    @property
    def coder(self) -> Coder | None:
        """Its coder; None if it has none, as planted rules have."""
        return coder_of(self.params, self.sae_id, self.shelf) if isinstance(self.spec, InModelParams) else None

    def directions(self, measure: str) -> Vectors | None:
        """Return the rows of its decoder or encoder that belong to latents that are alive [alive, d]; None if it has none."""
        coder = self.coder
        rows = None if coder is None else directions_of(coder, measure)
        return None if rows is None else rows.float().cpu().numpy()[self.alive]

    def twin(self, measure: str = "encoder") -> Coder | None:
        """Return an untrained dictionary of its width and sparsity, for what its encoder reads or its decoder writes.

        A dictionary without a coder, or an untrained one, has none.
        """
        if not isinstance(self.spec, InModelParams) or isinstance(self.spec, RandomSaeParams):
            return None
        width, d, active = self.row["width"], self.row["d_out" if measure == "decoder" else "d_in"], self.row["l0"]
        seed = seed_of(self.params.seed, "untrained twin", self.spec.reads, width, self.spec.subject)
        return untrained(width, d, min(max(1, round(active)), width), seed)


class Views:
    """Dictionaries, their subjects, and the text that two subjects have in common; each is opened once."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.engines, self.subjects = Engines(), Subjects(params)
        self.views = {sae_id: View(params, sae_id) for sae_id in params.saes}
        self._spans: dict[tuple[str, str], Spans] = {}
        self._fired: dict[tuple[str, str], tuple[sparse.csr_array, Ints]] = {}
        self._explained: dict[str, tuple[Ints, Vectors]] = {}
        self._twins: dict[tuple[str, bytes], dict[str, Firings]] = {}

    @cached_property
    def embedder(self) -> Model:
        """The embedder of explanations."""
        return open_embedder(self.params, str(self.params.similarity.embedder))

    def spans(self, subject_a: str, subject_b: str) -> Spans:
        """Return what both subjects read, within rows that are drawn by address; the order of the subjects changes no span."""
        if subject_a > subject_b:
            other = self.spans(subject_b, subject_a)
            return replace(other, a=other.b, b=other.a)
        if (subject_a, subject_b) not in self._spans:
            spec = self.params.tokens
            packing = Packing(spec.length, spec.bos, spec.packing == "joined", spec.partial == "keep")
            a, b = (reading(shelf("tokens", subject_id)) for subject_id in (subject_a, subject_b))
            rows = drawn(np.arange(a.rows.num_rows), self.params.similarity.rows, seed_of(self.params.seed, "similarity rows"))
            self._spans[subject_a, subject_b] = align(a, b, packing).within(rows)
        return self._spans[subject_a, subject_b]

    def compared(self, a: str, b: str, measure: str) -> Compared | str:
        """Return a measure of two dictionaries, or why they cannot be compared by it."""
        if measure in COFIRING:
            found = self._together(a, b, measure)
        else:
            found = self._explanations(a, b) if measure == "explanation" else self._directions(a, b, measure)
        if isinstance(found, Compared) and not all(found.measure.shape):
            return f"no latent of {b if len(found.latents) else a} fires on this text"
        return found

    def beside_twin(self, a: str, b: str, measure: str) -> Measure | None:
        """Return the measure of dictionary *a* and the untrained twin of *b*; None if there is no such twin."""
        view = self.views[b]
        twin = None if measure == "explanation" else view.twin(measure)
        if twin is None:
            return None
        if measure not in COFIRING:
            rows = self.views[a].directions(measure)
            return None if rows is None else Cosines(rows, twin.directions(0, twin.width).numpy())
        spans, key = self._between(a, b), (f"{b} untrained", self._subject(a))
        if key not in self._fired:
            self._read_twins(self._subject(a), self._subject(b), spans)
        return COFIRING[measure](self._firing(a, b, spans.a, spans.count)[0], self._fired[key][0])

    def _directions(self, a: str, b: str, measure: str) -> Compared | str:
        one, two = (self.views[sae_id].directions(measure) for sae_id in (a, b))
        if one is None or two is None:
            return f"no {measure} rows in {a if one is None else b}"
        if one.shape[1] != two.shape[1]:
            return f"{measure} rows of {one.shape[1]} and {two.shape[1]} dimensions"
        return Compared(Cosines(one, two), self.views[a].alive, self.views[b].alive)

    def _together(self, a: str, b: str, measure: str) -> Compared | str:
        spans = self._between(a, b)
        if not spans.count:
            return "no text that both subjects read"
        one, two = self._firing(a, b, spans.a, spans.count), self._firing(b, a, spans.b, spans.count)
        return Compared(COFIRING[measure](one[0], two[0]), one[1], two[1])

    def _explanations(self, a: str, b: str) -> Compared | str:
        one, two = self.explained(a), self.explained(b)
        for sae_id, found in ((a, one), (b, two)):
            if not len(found[0]):
                return f"no explanations of {sae_id} by {self.params.similarity.explainer}"
        # What all explanations have in common, such as an explainer's turns of phrase, would make every cosine large.
        common = np.concatenate([one[1], two[1]]).mean(axis=0)
        return Compared(Cosines(one[1] - common, two[1] - common), one[0], two[0])

    def explained(self, sae_id: str) -> tuple[Ints, Vectors]:
        """Return the latents that have an explanation, and its vectors."""
        if sae_id not in self._explained:
            texts = explanations_of(sae_id, str(self.params.similarity.explainer))
            latents = sorted(texts)
            self._explained[sae_id] = np.array(latents, dtype=np.int64), self.embedder.embed([texts[latent] for latent in latents])
        return self._explained[sae_id]

    def _subject(self, sae_id: str) -> str:
        return self.params.saes[sae_id].subject

    def _between(self, a: str, b: str) -> Spans:
        return self.spans(self._subject(a), self._subject(b))

    def _firing(self, sae_id: str, other: str, units: Units, count: int) -> tuple[sparse.csr_array, Ints]:
        """Return the activations [latents, units] on the text that the other's subject reads too, and the latents that fire there."""
        key = (sae_id, self._subject(other))
        if key not in self._fired:
            self._fired[key] = matrix(within(self.views[sae_id].activations, units, sae_id), units, count)
        return self._fired[key]

    def _read_twins(self, subject_a: str, subject_b: str, spans: Spans) -> None:
        """Keep how the untrained twins of all dictionaries of subject B fire on the text that it has in common with subject A."""
        rows = np.unique(spans.b.row[spans.b.span >= 0])
        key = (subject_b, rows.tobytes())  # subjects with one tokenizer share one text with all others
        if key not in self._twins:
            self._twins[key] = self._firings_of_twins(subject_b, rows)
        for sae_id, firings in self._twins[key].items():
            self._fired[f"{sae_id} untrained", subject_a] = matrix(firings, spans.b, spans.count)

    def _firings_of_twins(self, subject_id: str, rows: Ints) -> dict[str, Firings]:
        """Read token *rows* with the untrained twins of all dictionaries of a subject, in one pass of the model."""
        text = shelf("tokens", subject_id).read(TOKENS, columns=["row", "ids", "special"]).take(pa.array(rows))
        opened, encoders = self.subjects.open(subject_id), {}
        for sae_id in sorted({sae_id for pair in self.params.pairs for sae_id in pair}):
            view, twin = self.views[sae_id], self.views[sae_id].twin()
            if twin is not None and isinstance(view.spec, InModelParams) and view.spec.subject == subject_id:
                coder = mounted(view.spec, twin.to(opened.device))
                encoders[sae_id] = Encoder(opened.model, coder, opened.batch or self.params.activations.batch_rows, opened.device)
        return dict(zip(encoders, read_together(list(encoders.values()), text), strict=True))


def reading(tokens: Shelf) -> Reading:
    """Return what a subject read."""
    rows = tokens.read(TOKENS, columns=["document", "held_out", "ids", "special"])
    return Reading(rows, text_pieces(tokens.read(VOCABULARY, columns=["bytes", "special"])))


def within(activations: Shelf, units: Units, what: str) -> Firings:
    """Return the firings on tokens that belong to one of *units*."""
    parts = []
    for path in track(activations.paths(ACTIVATIONS), f"firings of {what}"):
        rows = pq.read_table(path, columns=["latent", "row", "position", "value"])
        firings = Firings(*(rows[name].to_numpy() for name in rows.column_names))
        parts.append(firings.take(np.flatnonzero(units.at(firings.row, firings.position) >= 0)))
    names = ("latent", "row", "position", "value")
    return Firings(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def matrix(firings: Firings, units: Units, count: int) -> tuple[sparse.csr_array, Ints]:
    """Return activations on *count* units as a sparse matrix [latents, units], and the numbers of its latents: those that fire."""
    there, place = np.unique(firings.latent, return_inverse=True)
    return fired(place, units.at(firings.row, firings.position), firings.value, len(there), count), there.astype(np.int64)


def explanations_of(sae_id: str, explainer_id: str) -> dict[int, str]:
    """Return the explanation of each latent that has one by *explainer_id*; of several samples the first."""
    rows = shelf("explanations", sae_id, explainer_id).read(EXPLANATIONS, columns=["latent", "explainer", "text", "status"])
    found = (row for row in rows.to_pylist() if row["status"] == "ok" and row["explainer"] == explainer_id)
    return {row["latent"]: row["text"] for row in found}
