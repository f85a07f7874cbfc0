"""Explainers that ask a language model (SCIENCE A5): one way to build the conversation, told apart by a table of styles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builders.contexts.contexts import Examples, evenly
from builders.engines.prompts import Prompts, highlighted, listed, marked_text
from builders.engines.requests import Answer, Chat, Failure, Message

PROMPTS = Prompts(Path(__file__).parent / "prompts")
FILES = ("guidelines.j2", "examples.j2", "answer.j2", "shots.yaml")
# The marker, in bold or code type or not; where what opens before it is not closed beside its colon, that closes after the text.
MARKER = re.compile(r"(?P<type>\*\*|\*|__|`|)\[EXPLANATION\](?:(?P=type) ?:|:(?P=type)|(?P<open> ?:))", re.IGNORECASE)


@dataclass(frozen=True)
class Style:
    """What a kind of explainer is shown and asked for: activation values, promoted tokens, silent windows; steps; words only."""

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
    """How many windows are shown, of them *silent* by contrastive explainers, and how the answer is sampled."""

    kind: str
    examples: int = 40
    silent: int = 5
    max_tokens: int = 500
    temperature: float = 0.0


@dataclass(frozen=True)
class Known:
    """What is known of a latent beside its windows: its largest activation, and the tokens it promotes and suppresses."""

    largest: float
    promotes: Sequence[str]
    suppresses: Sequence[str]


def files_of(kind: str) -> tuple[str, ...]:
    """Return the files that the prompts of a kind of explainer are made from."""
    return ("intervention.j2", "effects.j2", "effects.yaml") if kind == "intervention" else FILES


def prompt_sha256(kind: str) -> str:
    """Return the version of the prompts of a kind of explainer."""
    return PROMPTS.sha256(files_of(kind))


def conversation(examples: Examples, known: Known, pieces: Sequence[bytes], settings: Settings, seed: int) -> Chat:
    """Return what an explainer is asked about a latent; all latents share the longest prefix, up to the last turn."""
    style = STYLES[settings.kind]
    shown = [_shown(examples, place, known, pieces) for place in _chosen(examples, settings, style)]
    last = PROMPTS.fill("examples.j2", {"style": style, "examples": shown, "promotes": known.promotes, "suppresses": known.suppresses})
    return Chat((*_prefix(style), Message("user", last)), settings.max_tokens, settings.temperature, seed)


def _prefix(style: Style) -> list[Message]:
    """Return the guidelines and the worked examples, which are the same for every latent."""
    messages = [Message("system", PROMPTS.fill("guidelines.j2", {"style": style}))]
    for shot in PROMPTS.shots("shots.yaml"):
        active = [{**example, "active": True} for example in shot["examples"]]
        silent = [{"text": text, "levels": [], "active": False} for text in shot["silent"]] if style.marks == "some" else []
        messages.append(Message("user", PROMPTS.fill("examples.j2", {**shot, "style": style, "examples": active + silent})))
        messages.append(Message("assistant", PROMPTS.fill("answer.j2", {**shot, "style": style})))
    return messages


def _shown(examples: Examples, place: int, known: Known, pieces: Sequence[bytes]) -> dict[str, Any]:
    tokens, values = examples.tokens[place], examples.activations[place]
    return {
        "text": marked_text(tokens, highlighted(values), pieces),
        "levels": listed(tokens, values, known.largest, pieces),
        "active": bool(examples.activating[place]),
    }


def _chosen(examples: Examples, settings: Settings, style: Style) -> list[int]:
    """Return which windows are shown: activating ones in their order, and for contrast the silent ones most like them."""
    active = np.flatnonzero(examples.activating)
    if style.marks == "all":
        return [int(place) for place in evenly(active, settings.examples)]
    active = evenly(active, max(1, settings.examples - settings.silent))
    silent = np.flatnonzero(~examples.activating)
    alike = _likeness(examples.tokens[silent], examples.tokens[active])
    nearest = silent[np.argsort(-alike, kind="stable")[: settings.silent]]
    return [*active.tolist(), *np.sort(nearest).tolist()]


def _likeness(silent: npt.NDArray[np.int32], active: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return for each silent window the share of its distinct tokens that activating windows hold, rare ones counting more."""
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
    """Return the explanation in an answer: what follows the last marker that anything follows, on one line."""
    text = _told(answer.text)
    if answer.finish == "length":
        what = "explanation was cut off" if text else "answer was cut off before any explanation,"
        return Failure("cut off", f"the {what} after {answer.output_tokens} tokens; raise `max_tokens`")
    if not text:
        return Failure("no explanation", f"the answer has no line [EXPLANATION]: … (it begins {answer.text.strip()[:60]!r})")
    return text


def _told(answer: str) -> str:
    """Return what *answer* says after its last marker that anything follows, or nothing."""
    end = len(answer)
    for mark in reversed(list(MARKER.finditer(answer))):
        text = " ".join(answer[mark.end() : end].split())
        if mark["open"] and mark["type"]:
            text = text.removesuffix(mark["type"]).rstrip()
        if text:
            return text
        end = mark.start()
    return ""
