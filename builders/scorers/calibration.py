"""Calibration of scorers and judges on planted rules, whose true explanations are known: the `calibration` config.

Each rule is scored with right and wrong explanations. Scorers write their real prompts, and an oracle answers from the prompt
alone. So a prompt that lacks something, an answer that is misread, or a score that is computed wrongly shows here. Judges of params are
asked with the true explanation and with another rule's: how often they err, and whether they tell both apart, is what `judges` says. See
docs/science.md#calibration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os.path import commonprefix
from typing import Any

import numpy as np

from builders.contexts.contexts import Examples
from builders.engines.requests import Answer, Chat, Outcome, Request, Score
from builders.lake.references import OF_LATENT
from builders.lake.table import Column, Table
from builders.saes.planted import RULES
from builders.scorers.judging import Judged, Scorer, Task
from builders.seeds import uniforms

MEANINGS = ("true", "broad", "narrow", "other")
ORACLE = "oracle"


def _characters(name: str, doc: str) -> Column:
    said = f"oracle: {doc}; `judges` has the tokens of other judges"
    return Column(f"{name}_characters", "int64", said, unit="characters", nullable=True, low=0)


CALIBRATION = Table(
    name="calibration",
    row="a planted rule scored with an explanation that is true, too broad, too narrow, or another rule's",
    key=("sae", "latent", "scorer", "meaning", "judge"),
    columns=(
        Column("sae", "string", "the dictionary of rules", categorical=True),
        Column("latent", "int32", "the rule", low=0),
        Column("scorer", "string", "the scorer", categorical=True),
        Column("meaning", "string", "true, broad (too much), narrow (too little), or other: the truth of another rule", categorical=True),
        Column("judge", "string", "who answered: `oracle`, which knows what explanations mean, or a judge of params", categorical=True),
        Column("text", "string", "the explanation"),
        Column("status", "string", "that of `scores`, or of the windows where none has an answer", categorical=True),
        Column("unit", "string", "what the score is", categorical=True),
        Column("score", "float64", "the score, in that unit", nullable=True),
        Column("score_se", "float64", "its standard error", nullable=True, low=0),
        Column("chance", "float64", "the score that an explanation gets which says nothing"),
        Column("auroc", "float64", "AUROC of the windows, where each has a probability or a value", nullable=True, low=0, high=1),
        Column("n", "int32", "examples judged", unit="examples", low=0),
        Column("n_failed", "int32", "examples without an answer", unit="examples", low=0),
        Column("n_positive", "int32", "examples judged whose truth is yes", unit="examples", low=0),
        Column("recall", "float64", "detection, fuzzing: share of positives answered yes", nullable=True, low=0, high=1),
        Column("specificity", "float64", "the same: share of negatives answered no", nullable=True, low=0, high=1),
        _characters("prompt", "length of all prompts of this explanation"),
        _characters("prefix", "of these, what prompts share at their beginning"),
        _characters("answer", "length of all answers"),
    ),
    references=(OF_LATENT,),
)


def tasks_of(latents: Iterable[Examples], seed: int) -> Iterator[Task]:
    """Yield each rule's test windows with its four explanations, in the order of MEANINGS.

    The explanation of another rule is the true one of the next rule, in a random order of the rules that *seed* gives.
    """
    found = list(latents)
    order = np.argsort(uniforms(seed, np.array([examples.latent for examples in found], dtype=np.int64)))
    following = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))
    for place, examples in enumerate(found):
        rule, other = RULES[examples.latent], RULES[found[following[place]].latent]
        explanations = (rule.truth, rule.broad, rule.narrow, other.truth)
        yield from (Task(examples, name, explained.words) for name, explained in zip(MEANINGS, explanations, strict=True))


def calibration_records(
    sae: str, tasks: Iterable[Task], scorers: Mapping[str, Scorer], oracle: Callable[[Request], Outcome]
) -> Iterator[dict[str, Any]]:
    """Yield the CALIBRATION records of all *tasks* by all *scorers*."""
    for task in tasks:
        for name, scorer in scorers.items():
            requests = scorer.requests(task)
            outcomes = [oracle(request) for request in requests]
            found = calibration_record(sae, ORACLE, name, scorer, task, scorer.judged(task, outcomes))
            yield found | lengths(requests, outcomes)


def calibration_record(sae: str, judge: str, name: str, scorer: Scorer, task: Task, judged: Judged) -> dict[str, Any]:
    """Return the CALIBRATION record of one task, whose *explainer* is the meaning of its explanation, judged by *judge* for *scorer*."""
    answered = judged.status == "ok"
    found: dict[str, Any] = {column.name: None for column in CALIBRATION.columns if column.nullable}
    found |= {"sae": sae, "latent": task.latent, "scorer": name, "meaning": task.explainer, "judge": judge, "text": task.explanation}
    counts = {"n": answered.sum(), "n_failed": (~answered).sum(), "n_positive": judged.truth[answered].sum()}
    found |= {"unit": scorer.unit, "chance": scorer.chance, **{name: int(count) for name, count in counts.items()}}
    found |= {name: judged.measures.get(name) for name in ("status", "score", "score_se", "auroc", "recall", "specificity")}
    return found if answered.any() or not len(answered) else found | {"status": str(judged.status[0])}


def lengths(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how many characters a model would read and write; text that it only scores counts as read."""
    prompt = prefix = answer = 0
    prompts = [request.prompt for request in requests if isinstance(request, Score)]
    # Prompts that are scored hold a passage, so only their common beginning is shared.
    shared = len(commonprefix(prompts)) if prompts else sys.maxsize  # noqa: RUF071  # of texts, not of paths
    for request, outcome in zip(requests, outcomes, strict=True):
        if isinstance(request, Chat):
            parts = [len(message.content) for message in request.messages]
            answer += len(outcome.text) if isinstance(outcome, Answer) else 0
        else:
            parts = [len(request.prompt), len(request.continuation)]
        prompt, prefix = prompt + sum(parts), prefix + min(sum(parts[:-1]), shared)
    return {"prompt_characters": prompt, "prefix_characters": prefix, "answer_characters": answer}
