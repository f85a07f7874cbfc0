"""The lexical embedder, which counts the sequences of letters in a text. It is not a language model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from builders.embedders.embedder import Model, Vectors

WIDTH = 1024
LETTERS = (3, 5)  # shortest and longest sequence: customary values, not tuned on scores


class LetterEmbedder(Model):
    """Counts the sequences of three to five letters within each word, hashed to 1024 dimensions (Weinberger et al. 2009)."""

    def __init__(self, name: str = "lexical") -> None:
        from sklearn.feature_extraction.text import HashingVectorizer  # this import takes a second, which most stages need not spend

        self.name = name
        self.width = WIDTH
        self.identity = {"kind": "lexical", "letters": list(LETTERS), "width": WIDTH}
        self._counts = HashingVectorizer(analyzer="char_wb", ngram_range=LETTERS, n_features=WIDTH, norm=None, dtype=np.float32)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, 1024] of *texts*; a text of white space alone gives zeros."""
        from scipy import sparse
        from sklearn.preprocessing import normalize

        words = [text.lower().split() for text in texts]
        numbers = {word: number for number, word in enumerate(dict.fromkeys(chain.from_iterable(words)))}
        if not numbers:
            return np.zeros((len(texts), WIDTH), dtype=np.float32)
        # No sequence is longer than its word, and texts share words: each different word is looked at once.
        columns = [numbers[word] for word in chain.from_iterable(words)]
        starts = np.concatenate([[0], np.cumsum([len(some) for some in words])])
        times = sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, starts), shape=(len(texts), len(numbers)))
        found: Vectors = normalize(times @ self._counts.transform(numbers), copy=False).toarray()
        return found
