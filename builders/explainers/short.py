"""The short explainer: a language model reads the strongest piece of each window with a little text around it, and answers in a few words.

A prompt has a third of the tokens of the default one, and asks for less, which small models do better; see docs/science.md#explanations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from builders.contexts.contexts import Examples, evenly, strong
from builders.engines.requests import Chat, Message
from builders.explainers.chat import PROMPTS, Settings
from builders.text.vocabulary import text_of

BEFORE, AFTER = 6, 4  # tokens shown around a piece


def conversation(examples: Examples, pieces: Sequence[bytes], settings: Settings) -> Chat:
    """Return the conversation about a latent; it differs between latents in the last turn only."""
    messages = [Message("system", PROMPTS.fill("short.j2", {}))]
    for shot in PROMPTS.shots("short.yaml"):
        messages.append(Message("user", PROMPTS.fill("short_turn.j2", shot)))
        messages.append(Message("assistant", f"[EXPLANATION]: {shot['explanation']}"))
    shown = [_shown(examples, place, pieces) for place in evenly(np.flatnonzero(examples.activating), settings.examples)]
    messages.append(Message("user", PROMPTS.fill("short_turn.j2", {"examples": shown})))
    return Chat(tuple(messages), settings.max_tokens, settings.temperature)


def _shown(examples: Examples, place: int, pieces: Sequence[bytes]) -> dict[str, str]:
    """Return the run of strong tokens that holds a window's strongest one, and the text from BEFORE tokens before it to AFTER after it."""
    tokens, values = examples.tokens[place], examples.activations[place]
    weak = np.flatnonzero(~strong(values))
    most = int(values.argmax())
    low = int(weak[weak < most].max(initial=-1)) + 1
    high = int(weak[weak > most].min(initial=len(tokens)))
    return {"piece": text_of(tokens[low:high], pieces), "around": text_of(tokens[max(0, low - BEFORE) : high + AFTER], pieces)}
