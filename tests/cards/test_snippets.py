"""What the card's lines of code speak of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from releases import released
from rows import rows_of

from builders.readers.browse import BROWSE
from builders.readers.embeddings import EMBEDDINGS
from builders.readers.vectors import VECTORS
from builders.saes.latents import LATENTS
from cards.snippets import example, word_of


@pytest.mark.parametrize(
    ("explanation", "word"),
    [
        ('Fires on " if" (64% of the activation shown), on "\\"" after " import".', "import"),
        ('Fires on "\\n" and on ",".', "Fires"),
        ("names of rivers in Europe", "rivers"),
        ("Ελλάδα, 日本", "Ελλάδα"),
        ("12 %", "the"),
    ],
)
def test_a_word_of_an_explanation(explanation: str, word: str) -> None:
    """A named token comes first, then whatever the explanation says; digits, quotes and signs, which SQL would trip over, are no word."""
    assert word_of(explanation) == word


def latent(sae: str, number: int, **facts: Any) -> dict[str, Any]:
    """Return a row of BROWSE."""
    return {"sae": sae, "latent": number, "explanation": None, "kind": "trained", **facts}


def test_the_best_explained_latent_is_shown(tmp_path: Path) -> None:
    """It is one of a learned dictionary whose explanation names a word worth looking for; vectors and embeddings are those there are."""
    browse = rows_of(
        BROWSE,
        latent("a", 0, explanation='on " def"', score=0.6),
        latent("a", 1, explanation='on "class"', score=0.8),
        latent("a", 2, explanation='on ","', score=0.9),
        latent("a", 3),
        latent("a", 4, explanation='on " the"', score=0.85),
        latent("planted", 0, explanation='on "perfect"', score=1.0, kind="planted"),
    )
    vectors = VECTORS.sized(encoder=1, decoder=1)
    embeddings = EMBEDDINGS.sized(vector=3)
    rows = {
        BROWSE: browse,
        vectors: rows_of(vectors, {"sae": "a", "latent": 0, "encoder": [0.5], "decoder": [1.0]}),
        embeddings: rows_of(embeddings, {"vector": [0.0, 0.0, 1.0]}),
    }
    release = released(tmp_path, rows)

    found = example(release.root, list(release.tables.values()))

    assert found == {"sae": "a", "latent": 1, "word": "class", "size": 3, "directed": {"config": "vectors", "sae": "a", "latent": 0}}


def test_a_release_in_which_nothing_is_explained(tmp_path: Path) -> None:
    """Lines of code still speak of a latent that is there."""
    release = released(tmp_path, {LATENTS: rows_of(LATENTS, {"sae": "a", "latent": 0}), BROWSE: rows_of(BROWSE, latent("a", 0))})

    found = example(release.root, list(release.tables.values()))

    assert found == {"sae": "a", "latent": 0, "word": "the", "size": 0, "directed": None}
