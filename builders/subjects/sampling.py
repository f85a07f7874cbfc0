"""Tokens sampled from what a model expects by given draws, so that a text depends on where it is used, never on arrival order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn


def sampled(logprobs: npt.NDArray[np.float32], draws: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return for each row of *logprobs* [n, vocabulary] the token whose share of the cumulative probability holds its draw [n]."""
    cumulative = np.exp(logprobs.astype(np.float64)).cumsum(axis=1)
    below = (cumulative <= draws[:, None] * cumulative[:, -1:]).sum(axis=1)
    tokens: npt.NDArray[np.int64] = np.minimum(below, logprobs.shape[1] - 1)
    return tokens


def stops_of(model: nn.Module) -> set[int]:
    """Return the tokens that end a text, as the checkpoint says."""
    found: set[int] = set()
    for name in ("config", "generation_config"):
        ends = getattr(getattr(model, name, None), "eos_token_id", None)
        found.update([] if ends is None else [ends] if isinstance(ends, int) else ends)
    return found
