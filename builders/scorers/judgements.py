"""Judged examples and what follows from them: the `judgements` and `scores` configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from builders.engines.requests import Answer, Outcome
from builders.lake.table import Column, Table
from builders.scorers.judging import Floats, Judged, Scorer

IDENTITY = (
    Column("sae", "string", "the dictionary", categorical=True),
    Column("latent", "int32", "the latent", low=0),
    Column("explainer", "string", "who explained; none where the scorer needs no explanation", categorical=True),
    Column("scorer", "string", "what was asked", categorical=True),
    Column("negatives", "string", "what the activating windows were told apart from: a kind of `contexts`, or none", categorical=True),
    Column("judge", "string", "who answered", categorical=True),
)
KEY = tuple(column.name for column in IDENTITY)
TOLD = ("number", "truth", "answer", "probability", "value", "status")  # of Judged, what becomes a column


def _share(name: str, doc: str) -> Column:
    return Column(name, "float64", doc, nullable=True, low=0, high=1)


def _tokens(name: str, doc: str) -> Column:
    return Column(name, "int64", doc, unit="tokens", nullable=True, low=0)


JUDGEMENTS = Table(
    name="judgements",
    row="one example judged by an explanation's words",
    key=(*KEY, "example"),
    columns=(
        *IDENTITY,
        Column("example", "int32", "number of the window in `contexts`, split test; of a scorer with trials or prompts, of these", low=0),
        Column("truth", "bool", "what the right answer is"),
        Column("answer", "bool", "what the judge answered; of a search, whether it found", nullable=True),
        Column("probability", "float32", "the judge's probability of yes", nullable=True, low=0, high=1),
        Column("value", "float64", "what the scorer measures: a cosine, a correlation, nats", nullable=True),
        Column("status", "string", "ok, or why there is no answer", categorical=True),
    ),
)

SCORES = Table(
    name="scores",
    row="how well an explanation predicts its latent, by one scorer and judge",
    key=KEY,
    columns=(
        *IDENTITY,
        Column("status", "string", "ok, or why there is no score", categorical=True),
        Column("unit", "string", "what the score is: balanced accuracy, AUROC, correlation, accuracy, nats", categorical=True),
        Column("score", "float64", "the score, in that unit", nullable=True),
        Column("score_se", "float64", "its standard error", nullable=True, low=0),
        Column("chance", "float64", "the score of an explanation that says nothing"),
        Column("n", "int32", "examples judged", unit="examples", low=0),
        Column("n_failed", "int32", "examples without an answer; they count neither for nor against", unit="examples", low=0),
        Column("n_positive", "int32", "examples judged whose truth is yes", unit="examples", low=0),
        _share("auroc", "P(value of a positive > of a negative) + ½ P(equal), of the probabilities or values"),
        Column("auroc_se", "float64", "its standard error (DeLong et al. 1988)", nullable=True, low=0),
        _share("accuracy", "share of right answers"),
        _share("precision", "share of yes that is right"),
        _share("recall", "share of positives answered yes"),
        _share("f1", "harmonic mean of precision and recall"),
        Column(
            "r_squared",
            "float64",
            "of a simulation (10: the largest shown): 1 − mean squared error / mean square of the truth",
            nullable=True,
            high=1,
        ),
        Column("deviation_explained", "float64", "of a simulation: 1 − mean absolute error / mean of the truth", nullable=True, high=1),
        Column("kl", "float64", "of an intervention: mean KL divergence on the scored prompts", unit="nats", nullable=True, low=0),
        Column("model", "string", "the language or embedding model that answered", nullable=True, categorical=True),
        Column("prompt_sha256", "string", "hash of the files that the prompts were made from", nullable=True, categorical=True),
        _tokens("prompt_tokens", "tokens read"),
        _tokens("cached_tokens", "those of them that the engine had read before"),
        _tokens("output_tokens", "tokens written"),
    ),
)


@dataclass(frozen=True)
class Identity:
    """What is scored, how and by whom."""

    sae: str
    latent: int
    explainer: str
    scorer: str
    negatives: str
    judge: str


def _known(values: Floats, kind: pa.DataType) -> pa.Array:
    return pa.array(np.nan_to_num(values), mask=np.isnan(values)).cast(kind, safe=False)


def judgement_rows(tasks: Sequence[tuple[Identity, Judged]]) -> pa.Table:
    """Return the JUDGEMENTS rows of tasks, all at once: rows of one task are few, and a table of their own costs more than they do."""
    if not tasks:
        return JUDGEMENTS.empty()
    owner = pa.array(np.repeat(np.arange(len(tasks)), [len(judged.number) for _, judged in tasks]))
    whose = {name: pa.array([getattr(identity, name) for identity, _ in tasks]).take(owner) for name in KEY}
    told = {name: np.concatenate([getattr(judged, name) for _, judged in tasks]) for name in TOLD}
    return JUDGEMENTS.build(
        {
            **whose,
            "example": told["number"],
            "truth": told["truth"],
            "answer": _known(told["answer"], pa.bool_()),
            "probability": _known(told["probability"], pa.float32()),
            "value": _known(told["value"], pa.float64()),
            "status": told["status"].tolist(),
        }
    )


def score_record(identity: Identity, scorer: Scorer, judged: Judged, model: str | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the SCORES record of one task, with what its answers cost."""
    answered = judged.status == "ok"
    record: dict[str, Any] = {column.name: None for column in SCORES.columns} | vars(identity)
    record |= {"unit": scorer.unit, "chance": scorer.chance, "model": model, "prompt_sha256": scorer.prompt_sha256}
    counts = {"n": answered.sum(), "n_failed": (~answered).sum(), "n_positive": judged.truth[answered].sum()}
    record |= {name: int(count) for name, count in counts.items()}
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    if outcomes:
        for name in ("prompt_tokens", "cached_tokens", "output_tokens"):
            record[name] = sum(getattr(answer, name) for answer in answers)
    return record | judged.measures
