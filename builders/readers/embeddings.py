"""Explanations as vectors, for search by meaning: the `embeddings` config."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from builders.embedders.embedder import Model
from builders.explainers.explanations import PERMUTED
from builders.lake.table import Column, Reference, Table
from builders.releases.release import Release

EMBEDDINGS = Table(
    name="embeddings",
    row="an explanation as a vector; those of the permuted baseline are left out",
    key=("sae", "latent", "explainer"),
    columns=(
        Column("sae", "string", "the dictionary", categorical=True),
        Column("latent", "int32", "the latent", low=0),
        Column("explainer", "string", "who wrote the explanation", categorical=True),
        Column("text", "string", "the explanation"),
        Column("embedder", "string", "the embedder, by its id in params", categorical=True),
        Column(
            "model",
            "string",
            "the embedding model; lexical: counts of letter sequences, which know spelling and no meaning",
            categorical=True,
        ),
        Column(
            "vector",
            "list<float32>",
            "the vector, all of one length and of norm 1, so that products are cosines; zeros where a text has nothing to read",
        ),
    ),
    references=(Reference(("sae", "latent", "explainer"), "explanations", ("sae", "latent", "explainer")),),
)
READ = ("sae", "latent", "explainer", "status", "text")


def embedding_groups(table: Table, release: Release, embedder_id: str, model: Model) -> Iterator[pa.Table]:
    """Yield the rows of *table*, EMBEDDINGS of the length of the *model*'s vectors, a row group at a time."""
    for batch in release.batches("explanations", READ):
        own = pc.and_(pc.equal(batch["status"], "ok"), pc.invert(pc.ends_with(batch["explainer"], PERMUTED)))
        rows = batch.filter(own)
        for start in range(0, rows.num_rows, table.row_group):
            some = rows.slice(start, table.row_group)
            facts = {name: some[name] for name in ("sae", "latent", "explainer", "text")}
            yield table.build({**facts, "embedder": embedder_id, "model": model.name, "vector": model.embed(some["text"].to_pylist())})
