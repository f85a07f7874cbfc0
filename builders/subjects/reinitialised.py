"""A control: the architecture of a checkpoint with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from builders.library import transformers
from builders.seeds import seed_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def reinitialised(config: PretrainedConfig, head: str, **settings: Any) -> PreTrainedModel:
    """Return the model of *config* with the weights that its class draws before training; equal sizes get equal weights.

    *head* is the class of the transformers library that makes it, and *settings* go to that class.
    """
    with torch.random.fork_rng():  # the library draws from the global generator
        torch.manual_seed(seed_of(0, "reinitialised weights"))
        model: PreTrainedModel = getattr(transformers(), head).from_config(config, **settings)
    return model
