"""The configs for readers, made of the release so far and of what params say of them: each yields tables and their row groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import cast

import pyarrow as pa

from builders.lake.table import Table
from builders.readers.browse import BROWSE, browse_rows
from builders.readers.embeddings import EMBEDDINGS, embedding_groups
from builders.readers.vectors import BIASES, VECTORS, Size, bias_row, of_size, vector_groups
from builders.releases.release import Release
from builders.saes.coder import SparseCoder
from builders.text.vocabulary import text_pieces
from pipelines.graph.stage import shelf
from pipelines.opened.dictionaries import coder_of
from pipelines.opened.embedders import open_embedder
from pipelines.params import Params

Made = Iterator[tuple[Table, Iterable[pa.Table]]]


def browse(params: Params, release: Release) -> Made:
    """Yield BROWSE: a row for each latent, dictionary by dictionary."""
    scorer = params.release.scorer or min(params.scorers, default=None)

    @cache
    def pieces(subject: str) -> list[bytes]:
        return text_pieces(release.read("vocabulary", ["bytes", "special"], [("subject", "==", subject)]))

    saes = release.read("saes").to_pylist()
    parts = (browse_rows(release, sae, scorer, pieces(sae["subject"])) for sae in saes)
    yield BROWSE, (group for part in parts for group in BROWSE.row_groups(part))


def vectors(params: Params, release: Release) -> Made:
    """Yield VECTORS for each size of dictionaries that have a file, latent by latent; nothing where params ask for none."""
    for table, ids in _by_size(VECTORS, params, release):
        yield table, (group for sae_id in ids for group in vector_groups(table, sae_id, _coder(params, sae_id)))


def biases(params: Params, release: Release) -> Made:
    """Yield BIASES for the same dictionaries."""
    for table, ids in _by_size(BIASES, params, release):
        yield table, [pa.concat_tables(bias_row(table, sae_id, _coder(params, sae_id)) for sae_id in ids)]


def _by_size(table: Table, params: Params, release: Release) -> Iterator[tuple[Table, list[str]]]:
    sizes: dict[Size, list[str]] = {}
    for row in release.read("saes", ["sae", "d_in", "d_out", "format"]).to_pylist():
        if row["format"] != "none":
            sizes.setdefault((row["d_in"], row["d_out"]), []).append(row["sae"])
    if params.release.vectors is not None:
        for size, ids in sorted(sizes.items()):
            yield of_size(table, size, params.release.vectors, alone=len(sizes) == 1), ids


def _coder(params: Params, sae_id: str) -> SparseCoder:
    return cast(SparseCoder, coder_of(params, sae_id, shelf("saes", sae_id)))  # every file holds one


def embeddings(params: Params, release: Release) -> Made:
    """Yield EMBEDDINGS; nothing where params name no embedder, or where nothing is explained."""
    embedder_id = params.release.embedder
    if embedder_id is not None and "explanations" in release.tables:
        model = open_embedder(params, embedder_id)
        table = EMBEDDINGS.sized(vector=model.width)
        yield table, embedding_groups(table, release, embedder_id, model)
