"""Latents that a card prints, from a small release made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rows import rows_of

from builders.contexts.contexts import CONTEXTS
from builders.explainers.explanations import EXPLANATIONS
from builders.saes.table import SAES
from builders.scorers.judgements import SCORES
from builders.text.vocabulary import VOCABULARY
from cards.printed import PRINTED, printed_latents
from cards.render import render

if TYPE_CHECKING:
    from pathlib import Path

PIECES = [b"the", b" river", b"\n", b" flows"]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Return a folder with windows of twenty latents and a vocabulary."""
    windows = [
        {"sae": "sae", "latent": latent, "split": "test", "kind": kind, "example": example, "tokens": [0, 1, 2, 3], "activations": values}
        for latent in range(20)
        for example, (kind, values) in enumerate([*[("activating", [0.0, 2.0, 0.1, 1.0])] * 2, ("random", [0.0] * 4)])
    ]
    words = [{"subject": "subject", "token": number, "bytes": piece, "special": False} for number, piece in enumerate(PIECES)]
    for table, rows in ((CONTEXTS, windows), (VOCABULARY, words)):
        (tmp_path / table.name).mkdir()
        pq.write_table(rows_of(table, *rows), tmp_path / table.name / "train-00000.parquet")
    return tmp_path


def tables(asked: int) -> dict[str, pa.Table]:
    """Return explanations of twenty latents by token statistics, the first *asked* of them by a language model too, and their scores."""
    rows: list[dict[str, Any]] = []
    for latent in range(20):
        rows.append({"latent": latent, "explainer": "lexical", "engine": "lexical", "status": "ok", "text": "the token river"})
        if latent < asked:
            status = "copied" if latent == 3 else "ok"
            own = {"latent": latent, "engine": "llamacpp", "status": status, "text": None if latent == 3 else f"rivers {latent}"}
            rows += [own | {"explainer": "small"}, own | {"explainer": "small-permuted"}]
    score = {"sae": "sae", "latent": 3, "explainer": "lexical", "score": 0.75, "score_se": 0.05, "scorer": "detection", "unit": "accuracy"}
    return {
        "explanations": rows_of(EXPLANATIONS, *({"sae": "sae"} | row for row in rows)),
        "scores": rows_of(SCORES, score, score | {"scorer": "fuzzing", "auroc": 0.5, "auroc_se": 0.25}),
        "saes": rows_of(SAES, {"sae": "sae", "subject": "subject"}),
    }


def test_only_latents_that_a_language_model_was_asked_about_are_printed(release: Path) -> None:
    """They are drawn by address: not the first ones, and the same each time; without a language model there are none."""
    found = [row["latent"] for row in printed_latents(release, tables(20), 0)]

    assert len(found) == PRINTED
    assert found == sorted(found) != list(range(PRINTED))
    assert found == [row["latent"] for row in printed_latents(release, tables(20), 0)]
    assert printed_latents(release, tables(0), 0) == []
    assert render("printed.md.j2", {"printed": []}).strip() == ""


def test_a_latent_is_printed_with_its_windows_and_scores(release: Path) -> None:
    """Every explanation stands with its scores, or its status; strong tokens are marked, and permuted explanations are left out."""
    (latent,) = [row for row in printed_latents(release, tables(5), 0) if row["latent"] == 3]
    text = render("printed.md.j2", {"printed": [latent]})

    assert text.partition("**sae / 3**\n\n")[2].splitlines() == [
        "- `lexical`: the token river (detection 0.75 ± 0.05 accuracy; fuzzing 0.50 ± 0.25 AUROC)",
        "- `small`: *copied*",
        "",
        "~~~text",
        "the<< river>>⏎<< flows>>",
        "the<< river>>⏎<< flows>>",
        "~~~",
    ]
