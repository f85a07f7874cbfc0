"""Stage `tokens`: documents × tokenizers of subjects → rows of token ids, and vocabularies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from builders.errors import UserError
from builders.lake.shards import Shards, Shelf
from builders.library import spare_torch
from builders.subjects import checkpoints, places
from builders.text import sources, tokens
from builders.text.vocabulary import VOCABULARY, token_bytes, vocabulary_rows
from pipelines.graph.declared import declared
from pipelines.graph.stage import code, for_each, run, shelf
from pipelines.opened.subjects import source_of
from pipelines.params import Params
from pipelines.parts.ahead import Job

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def main(*only: str) -> None:
    """Write the token rows and the vocabulary of every subject, or of *only* the one given."""
    params = declared("tokens")
    for_each("tokens", params.subjects, only, lambda subject_id: cut(params, subject_id))


def cut(params: Params, subject_id: str) -> None:
    """Write the token rows and the vocabulary of subject *subject_id*, unless they are finished."""
    documents, subject = shelf("corpora", params.subjects[subject_id].corpus), shelf("subjects", subject_id)
    inputs = {"documents": documents.digest, "subject": subject.digest}
    job = Job("tokens", (subject_id,), inputs, params.tokens.model_dump(), code("tokens"))
    job.fill(lambda shards: write(params, subject_id, (documents, subject), shards))


def write(params: Params, subject_id: str, read: tuple[Shelf, Shelf], shards: Shards) -> bool:
    """Write TOKENS and VOCABULARY of a subject from its corpus and its row; another try gives the same."""
    documents, shelf_subject = read
    row = shelf_subject.read(checkpoints.SUBJECTS).to_pylist()[0]
    if row["context"] is not None and params.tokens.length > row["context"]:
        raise UserError(f"tokens.length is {params.tokens.length}, but {subject_id} reads {row['context']} tokens at most; lower it")
    source = source_of(params.subjects[subject_id])
    tokenizer = checkpoints.tokenizer_of(source, places.fetch(source))
    pieces = token_bytes(tokenizer, row["vocabulary"])
    spec = params.tokens
    packing = tokens.Packing(spec.length, spec.bos, spec.packing == "joined", spec.partial == "keep")
    packed = tokens.pack(encoded(documents, tokenizer), tokenizer, packing)
    shards.write(tokens.TOKENS, tokens.token_rows(packed, subject_id, tokenizer, pieces))
    ids = pq.read_table(shards.path(tokens.TOKENS), columns=["ids"])["ids"].combine_chunks().flatten().to_numpy()
    if not len(ids):
        raise UserError(f"{subject_id}: its corpus does not fill one row of {spec.length} tokens; set tokens.partial to `keep`")
    counts = np.bincount(ids, minlength=len(pieces))
    shards.write(VOCABULARY, [vocabulary_rows(subject_id, pieces, set(tokenizer.all_special_ids), counts)])
    return True


def encoded(documents: Shelf, tokenizer: PreTrainedTokenizerBase) -> Iterator[tokens.Encoded]:
    """Yield the token ids of every document, reading one row group at a time."""
    for path in documents.paths(sources.DOCUMENTS):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            yield from tokens.encode(file.read_row_group(group), tokenizer)


if __name__ == "__main__":
    spare_torch()
    run(main)
