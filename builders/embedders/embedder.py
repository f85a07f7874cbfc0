"""What every embedder does: it turns texts into vectors of unit norm, whose products are cosines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors; its *name* is published with the scores."""

    @property
    def name(self) -> str: ...  # noqa: D102  # said above

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of *texts*, of unit norm; a text with nothing to read in it gives zeros."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of queries: texts with which other texts are searched."""
        ...


class Model(Protocol):
    """An embedder that says what its vectors depend on beside the text: its *identity* (kind, model, revision).

    *width* is the number of dimensions; *instruction* is put before queries.
    """

    name: str
    identity: dict[str, Any]
    width: int
    instruction: str = ""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of *texts*, of unit norm; a text with nothing to read in it gives zeros."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of queries: texts with which other texts are searched."""
        return self.embed([self.instruction + text for text in texts])


def normed(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return *vectors* [n, width] with every row scaled to unit norm; rows of zeros stay."""
    exact = vectors.astype(np.float64)
    norms = np.sqrt((exact**2).sum(axis=1, keepdims=True))
    unit: Vectors = (exact / np.where(norms > 0, norms, 1)).astype(np.float32)
    return unit
