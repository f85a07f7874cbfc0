"""Detection: a judge says whether the latent fires anywhere in a window.

Paulo et al. 2024 (arXiv 2410.13928); see docs/science.md#detection.
"""

from __future__ import annotations

import numpy as np

from builders.arrays import Bools
from builders.contexts.contexts import Examples
from builders.scorers.trials import Trials


def trials(examples: Examples, special: Bools, seed: int) -> Trials:
    """Return a trial for every window, without marks; the truth is whether the latent fires in the window."""
    status = np.full(len(examples.number), "ok")
    return Trials(examples.latent, examples.number, examples.activating, examples.tokens, None, status)
