"""Sample tokens with given draws, so that a text depends on the address of its draws and never on the order of arrival."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from builders.arrays import Floats, Ints


def sampled(logprobs: npt.NDArray[np.float32], draws: Floats) -> Ints:
    """Return one token [n] for each row of *logprobs* [n, vocabulary]: the first whose cumulative probability exceeds the row's draw.

    *draws* [n] are in [0, 1); the probabilities of a row need not sum to 1.
    """
    cumulative = np.exp(logprobs.astype(np.float64)).cumsum(axis=1)
    below = (cumulative <= draws[:, None] * cumulative[:, -1:]).sum(axis=1)
    tokens: Ints = np.minimum(below, logprobs.shape[1] - 1)
    return tokens


def stops_of(model: nn.Module) -> set[int]:
    """Return the ids of the tokens that end a text, from the checkpoint's configurations."""
    found: set[int] = set()
    for name in ("config", "generation_config"):
        ends = getattr(getattr(model, name, None), "eos_token_id", None)
        found.update([] if ends is None else [ends] if isinstance(ends, int) else ends)
    return found
