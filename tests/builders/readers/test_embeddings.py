"""Explanations as vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from releases import released
from rows import rows_of

from builders.embedders.letters import LetterEmbedder
from builders.explainers.explanations import EXPLANATIONS
from builders.readers.embeddings import EMBEDDINGS, embedding_groups

if TYPE_CHECKING:
    from pathlib import Path

TOLD = [
    ("one", 0, "a", "words"),
    ("one", 0, "b", "other words"),
    ("one", 1, "a", None),
    ("one", 2, "a-permuted", "words"),
    ("two", 0, "a", "|\n\0"),
]


def test_every_explanation_has_a_vector(tmp_path: Path) -> None:
    """Explanations in words have the vectors of their embedder, row group by row group; failed and permuted ones have none."""
    explained = [
        {"sae": sae, "latent": latent, "explainer": explainer, "status": "ok" if text else "failed", "text": text}
        for sae, latent, explainer, text in TOLD
    ]
    release = released(tmp_path, {EXPLANATIONS: rows_of(EXPLANATIONS, *explained)})
    model = LetterEmbedder()
    table = replace(EMBEDDINGS.sized(vector=model.width), row_group=2)

    groups = list(embedding_groups(table, release, "words", model))

    rows = pa.concat_tables(groups)
    table.validate(rows)
    kept = [TOLD[0], TOLD[1], TOLD[4]]
    assert [group.num_rows for group in groups] == [2, 1]
    assert list(zip(*(rows[name].to_pylist() for name in ("sae", "latent", "explainer", "text")), strict=True)) == kept
    assert {*rows["embedder"].to_pylist(), *rows["model"].to_pylist()} == {"words", "lexical"}
    assert np.array_equal(np.array(rows["vector"].to_pylist(), dtype=np.float32), model.embed([text for *_, text in kept if text]))
