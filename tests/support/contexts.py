"""A latent's windows, made from arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from builders.contexts.contexts import Examples

if TYPE_CHECKING:
    import numpy.typing as npt


def windows_of(
    latent: int,
    tokens: npt.NDArray[np.int32],
    activations: npt.NDArray[np.float32],
    activating: npt.ArrayLike | None = None,
    *,
    silent: str = "random",
    first: int = 0,
    quantile: npt.ArrayLike | None = None,
    neighbour: npt.NDArray[np.float32] | None = None,
) -> Examples:
    """Return windows of kind `activating` where *activating* says so (None: where the latent fires), the others of kind *silent*.

    They are numbered from *first* on; activating ones are in quantile 0 unless *quantile* says otherwise. Each is the beginning of a row of
    its own, 0 the first.
    """
    fires = activations.any(axis=1) if activating is None else np.asarray(activating, dtype=bool)
    kind = np.where(fires, "activating", silent)
    rank = np.zeros(len(fires), dtype=np.int64) if quantile is None else np.asarray(quantile, dtype=np.int64)
    other = np.zeros(tokens.shape, dtype=np.float32) if neighbour is None else neighbour
    row = np.arange(len(fires))
    return Examples(latent, first + row, tokens, activations, kind, np.where(fires, rank, -1), other, row, np.zeros_like(row))
