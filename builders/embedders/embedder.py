"""What every embedder is: texts become vectors whose products are cosines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors. *name* is published with the scores."""

    @property
    def name(self) -> str: ...  # noqa: D102  # said above

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of *texts*, of unit norm; zeros where a text holds nothing to read."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of texts that others are searched with."""
        ...


class Model(Protocol):
    """An embedder of which it is known what a vector depends on beside its text: its *identity* (kind, model, revision).

    *width* is the number of dimensions; *instruction* is put before queries.
    """

    name: str
    identity: dict[str, Any]
    width: int
    instruction: str = ""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of *texts*, of unit norm; zeros where a text holds nothing to read."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors [n, width] of texts that others are searched with."""
        return self.embed([self.instruction + text for text in texts])


def normed(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return rows [n, width] of unit norm; rows of zeros stay."""
    exact = vectors.astype(np.float64)
    norms = np.sqrt((exact**2).sum(axis=1, keepdims=True))
    unit: Vectors = (exact / np.where(norms > 0, norms, 1)).astype(np.float32)
    return unit
