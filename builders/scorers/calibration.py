"""Scorers held against the truth: planted rules, explained rightly and wrongly, judged by an oracle: the `calibration` config.

Every scorer is run through its real prompts. The oracle reads nothing but the prompt, so a prompt that does not say what it must,
an answer that is read wrongly, or a score that is computed wrongly shows here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import Any

import numpy as np

from builders.contexts.contexts import Examples
from builders.engines.requests import Answer, Chat, Outcome, Request, Score
from builders.lake.table import Column, Table
from builders.saes.planted import RULES
from builders.scorers.judging import Scorer, Task
from builders.seeds import uniforms

MEANINGS = ("true", "broad", "narrow", "other")
CALIBRATION = Table(
    name="calibration",
    row="a planted rule scored with an explanation that is true, too broad, too narrow, or another rule's",
    key=("sae", "latent", "scorer", "meaning"),
    columns=(
        Column("sae", "string", "the dictionary of rules", categorical=True),
        Column("latent", "int32", "the rule", low=0),
        Column("scorer", "string", "what was asked", categorical=True),
        Column("meaning", "string", "true, broad (says too much), narrow (too little), or other: another rule's truth", categorical=True),
        Column("text", "string", "the explanation"),
        Column("status", "string", "ok, or why there is no score", categorical=True),
        Column("unit", "string", "what the score is", categorical=True),
        Column("score", "float64", "the score, in that unit", nullable=True),
        Column("score_se", "float64", "its standard error", nullable=True, low=0),
        Column("chance", "float64", "the score of an explanation that says nothing"),
        Column("n", "int32", "examples judged", unit="examples", low=0),
        Column("n_failed", "int32", "examples without an answer", unit="examples", low=0),
        Column("prompt_characters", "int64", "length of all prompts of this explanation", unit="characters", low=0),
        Column("prefix_characters", "int64", "of these, what the prompts share", unit="characters", low=0),
        Column("answer_characters", "int64", "length of all answers", unit="characters", low=0),
    ),
)


def tasks_of(latents: Iterable[Examples], seed: int) -> Iterator[Task]:
    """Yield each rule's test windows with its four explanations; the other rule's is the next one's in a random order."""
    found = list(latents)
    order = np.argsort(uniforms(seed, np.array([examples.latent for examples in found], dtype=np.int64)))
    following = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
    for place, examples in enumerate(found):
        rule, other = RULES[examples.latent], RULES[found[following[place]].latent]
        texts = (rule.truth, rule.broad, rule.narrow, other.truth)
        yield from (Task(examples, meaning, told.words) for meaning, told in zip(MEANINGS, texts, strict=True))


def calibration_records(
    sae: str, tasks: Iterable[Task], scorers: Mapping[str, Scorer], oracle: Callable[[Request], Outcome]
) -> Iterator[dict[str, Any]]:
    """Yield the CALIBRATION records of all *tasks* by all *scorers*."""
    for task in tasks:
        for name, scorer in scorers.items():
            requests = scorer.requests(task)
            outcomes = [oracle(request) for request in requests]
            judged = scorer.judged(task, outcomes)
            answered = int((judged.status == "ok").sum())
            own = {"sae": sae, "latent": task.latent, "scorer": name, "meaning": task.explainer, "text": task.text}
            own |= {"unit": scorer.unit, "chance": scorer.chance, "n": answered, "n_failed": len(judged.status) - answered}
            yield own | lengths(requests, outcomes) | {name: judged.measures.get(name) for name in ("status", "score", "score_se")}


def lengths(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how many characters a model would read and write; what is scored and not written counts as read."""
    prompt = prefix = answer = 0
    prompts = [request.prompt for request in requests if isinstance(request, Score)]
    # Passages stand in the prompt, and are not shared.
    shared = len(commonprefix(prompts)) if prompts else sys.maxsize  # noqa: RUF071  # of texts, not of paths
    for request, outcome in zip(requests, outcomes, strict=True):
        if isinstance(request, Chat):
            parts = [len(message.content) for message in request.messages]
            answer += len(outcome.text) if isinstance(outcome, Answer) else 0
        else:
            parts = [len(request.prompt), len(request.continuation)]
        prompt, prefix = prompt + sum(parts), prefix + min(sum(parts[:-1]), shared)
    return {"prompt_characters": prompt, "prefix_characters": prefix, "answer_characters": answer}
