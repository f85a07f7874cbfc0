"""The intervention explainer: a language model reads what a latent causes, not what makes it fire.

Source: Paulo et al. 2024 (arXiv:2410.13928), intervention scoring; see docs/science.md#interventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.requests import Chat, Message
from builders.explainers.chat import PROMPTS
from builders.text.vocabulary import text_of


@dataclass(frozen=True)
class Settings:
    """How many of the interventions' prompts are shown, and how the answer is sampled."""

    examples: int = 10
    max_tokens: int = 100
    temperature: float = 0.0


def conversation(rows: Sequence[dict[str, Any]], pieces: Sequence[bytes], settings: Settings) -> Chat:
    """Return the conversation about a latent with INTERVENTIONS *rows*; *pieces* are the bytes of each token id."""
    shown = [{"text": text_of(row["tokens"][row["start"] :], pieces), "raised": [_piece(pieces[t]) for t in row["raised"]]} for row in rows]
    messages = [Message("system", PROMPTS.fill("intervention.j2", {}))]
    for shot in PROMPTS.shots("effects.yaml"):
        messages.append(Message("user", PROMPTS.fill("effects.j2", shot)))
        messages.append(Message("assistant", f"[EXPLANATION]: {shot['explanation']}"))
    messages.append(Message("user", PROMPTS.fill("effects.j2", {"examples": shown[: settings.examples]})))
    return Chat(tuple(messages), settings.max_tokens, settings.temperature)


def _piece(piece: bytes) -> str:
    return piece.decode("utf-8", "backslashreplace")
