"""Explainers that ask a language model: all build the conversation in the same way, and a table of styles says how they differ.

Source: Paulo et al. 2024 (arXiv:2410.13928); see docs/science.md#explanations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builders.arrays import Floats
from builders.contexts.contexts import Examples, evenly, strong
from builders.engines.prompts import Marks, Prompts, free_marks, listed, marked_text, remarked
from builders.engines.requests import Answer, Chat, Failure, Message
from builders.text.vocabulary import text_of

PROMPTS = Prompts(Path(__file__).parent / "prompts")
FILES = ("guidelines.j2", "examples.j2", "answer.j2", "shots.yaml")
# The marker, plain or in bold or code type. If the type is not closed beside the colon, it closes after the explanation.
MARKER = re.compile(r"(?P<type>\*\*|\*|__|`|)\[EXPLANATION\](?:(?P=type) ?:|:(?P=type)|(?P<open> ?:))", re.IGNORECASE)


@dataclass(frozen=True)
class Style:
    """What a kind of explainer is shown and asked for.

    It is shown activation *values*, promoted and suppressed tokens (*effects*), and silent windows too if *marks* is some. It is asked to
    think in *steps*, or to answer in *words* only.
    """

    values: bool = True
    effects: bool = False
    marks: Literal["all", "some"] = "all"
    steps: bool = False
    words: bool = False


STYLES = {
    "default": Style(),
    "no-activations": Style(values=False),
    "chain-of-thought": Style(steps=True),
    "logits": Style(effects=True),
    "contrastive": Style(marks="some"),
    "single-token": Style(words=True),
}


@dataclass(frozen=True)
class Settings:
    """How many windows (*examples*) are shown, how many of them silent (for contrastive explainers), and how the answer is sampled."""

    kind: str
    examples: int = 40
    silent: int = 5
    max_tokens: int = 500
    temperature: float = 0.0


@dataclass(frozen=True)
class Known:
    """What is known of a latent beside its windows: its *largest* activation, and the tokens it *promotes* and *suppresses*."""

    largest: float
    promotes: Sequence[str]
    suppresses: Sequence[str]


OWN_FILES = {
    "intervention": ("intervention.j2", "effects.j2", "effects.yaml"),
    "short": ("short.j2", "short_turn.j2", "short.yaml"),
}


def files_of(kind: str) -> tuple[str, ...]:
    """Return the names of the files that the prompts of a *kind* of explainer are made from."""
    return OWN_FILES.get(kind, FILES)


def prompt_sha256(kind: str) -> str:
    """Return the version of the prompts of a *kind* of explainer: the SHA-256 of their files."""
    return PROMPTS.sha256(files_of(kind))


def conversation(examples: Examples, known: Known, pieces: Sequence[bytes], settings: Settings) -> Chat:
    """Return the conversation with an explainer about a latent.

    It differs between latents in the last turn only, or in the marks too: they are such as occur in no window that is shown.
    """
    style = STYLES[settings.kind]
    chosen = _chosen(examples, settings, style)
    marks = free_marks(text_of(examples.tokens[place], pieces) for place in chosen)
    shown = [_shown(examples, place, known, pieces, marks) for place in chosen]
    last = PROMPTS.fill("examples.j2", {"style": style, "examples": shown, "promotes": known.promotes, "suppresses": known.suppresses})
    return Chat((*_prefix(style, marks), Message("user", last)), settings.max_tokens, settings.temperature)


def _prefix(style: Style, marks: Marks) -> list[Message]:
    """Return the guidelines and the worked examples, which are the same for every latent with the same *marks*."""
    messages = [Message("system", PROMPTS.fill("guidelines.j2", {"style": style, "marks": marks}))]
    for shot in PROMPTS.shots("shots.yaml"):
        active = [{**example, "text": remarked(example["text"], marks), "active": True} for example in shot["examples"]]
        silent = [{"text": text, "levels": [], "active": False} for text in shot["silent"]] if style.marks == "some" else []
        messages.append(Message("user", PROMPTS.fill("examples.j2", {**shot, "style": style, "examples": active + silent})))
        messages.append(Message("assistant", PROMPTS.fill("answer.j2", {**shot, "style": style})))
    return messages


def _shown(examples: Examples, place: int, known: Known, pieces: Sequence[bytes], marks: Marks) -> dict[str, Any]:
    tokens, values = examples.tokens[place], examples.activations[place]
    return {
        "text": marked_text(tokens, strong(values), pieces, marks),
        "levels": listed(tokens, values, known.largest, pieces),
        "active": bool(examples.activating[place]),
    }


def _chosen(examples: Examples, settings: Settings, style: Style) -> list[int]:
    """Return which windows are shown: activating ones in order, and, for contrastive explainers, the silent ones most like them."""
    active = np.flatnonzero(examples.activating)
    if style.marks == "all":
        return [int(place) for place in evenly(active, settings.examples)]
    active = evenly(active, max(1, settings.examples - settings.silent))
    silent = np.flatnonzero(~examples.activating)
    alike = _likeness(examples.tokens[silent], examples.tokens[active])
    nearest = silent[np.argsort(-alike, kind="stable")[: settings.silent]]
    return [*active.tolist(), *np.sort(nearest).tolist()]


def _likeness(silent: npt.NDArray[np.int32], active: npt.NDArray[np.int32]) -> Floats:
    """Return, for each silent window, the share of its distinct tokens that occur in activating windows; rare tokens count more."""
    held = np.unique(active)
    distinct = [np.unique(window) for window in silent]
    found, counts = np.unique(np.concatenate([held, *distinct]), return_counts=True)
    weight = dict(zip(found.tolist(), (1 / counts).tolist(), strict=True))
    alike = []
    for window in distinct:
        weights = np.array([weight[token] for token in window.tolist()])
        alike.append(float((weights * np.isin(window, held)).sum() / weights.sum()))
    return np.array(alike)


def read(answer: Answer) -> str | Failure:
    """Return the explanation in an answer, on one line: the text after the last marker that has text after it."""
    explanation = _explanation(answer.text)
    if answer.finish == "length":
        what = "explanation was cut off" if explanation else "answer was cut off before any explanation,"
        return Failure("cut off", f"the {what} after {answer.output_tokens} tokens; raise `max_tokens`")
    if not explanation:
        return Failure("no explanation", f"the answer has no line [EXPLANATION]: … (it begins {answer.text.strip()[:60]!r})")
    return explanation


def _explanation(answer: str) -> str:
    """Return the text after the last marker in *answer* that has text after it, or an empty string."""
    end = len(answer)
    for mark in reversed(list(MARKER.finditer(answer))):
        explanation = " ".join(answer[mark.end() : end].split())
        if mark["open"] and mark["type"]:
            explanation = explanation.removesuffix(mark["type"]).rstrip()
        if explanation:
            return explanation
        end = mark.start()
    return ""
