"""The `judgements` config, one row per judged example, and the `scores` config, one row per score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from builders.arrays import Floats
from builders.engines.requests import Answer, Outcome
from builders.lake.references import OF_EXPLANATION, OF_LATENT, OF_TEST_WINDOW
from builders.lake.table import Column, Reference, Table
from builders.scorers.judging import Judged, Scorer

IDENTITY = (
    Column("sae", "string", "the dictionary", categorical=True),
    Column("latent", "int32", "the latent", low=0),
    Column("explainer", "string", "who wrote the explanation; `none` where the scorer needs no explanation", categorical=True),
    Column("scorer", "string", "the scorer", categorical=True),
    Column("negatives", "string", "kind of the negatives: a silent kind of `contexts`, active, internal, or none", categorical=True),
    Column("judge", "string", "the judge or embedder that answered", categorical=True),
)
KEY = tuple(column.name for column in IDENTITY)
OF_SCORE = Reference(KEY, "scores", KEY)
# Scorers without explanations number their trials, and interventions their prompts. Windows of `pool`, and windows whose active tokens are
# marked wrongly, are numbered after those of `contexts`, so that a number alone does not say whether it is theirs.
UNNUMBERED = (("explainer", "none"), *(("negatives", kind) for kind in ("none", "pool", "active")))
OF_WINDOW = replace(OF_TEST_WINDOW, unless=UNNUMBERED)
PER_EXAMPLE = ("number", "truth", "answer", "probability", "value", "null_value", "status")  # fields of Judged that become columns


def _share(name: str, doc: str) -> Column:
    return Column(name, "float64", doc, nullable=True, low=0, high=1)


def _tokens(name: str, doc: str) -> Column:
    return Column(name, "int64", doc, unit="tokens", nullable=True, low=0)


JUDGEMENTS = Table(
    name="judgements",
    row="one example that a scorer judged",
    key=(*KEY, "example"),
    columns=(
        *IDENTITY,
        Column(
            "example",
            "int32",
            "number of the window in `contexts` (split test; windows of `pool` come after), or of the trial or prompt",
            low=0,
        ),
        Column("truth", "bool", "the right answer"),
        Column("answer", "bool", "what the judge answered; for intruder, whether it found the intruder", nullable=True),
        Column("probability", "float32", "the judge's probability of yes", nullable=True, low=0, high=1),
        Column("value", "float64", "what the scorer measures: a cosine, a margin, a correlation, nats, or the slot named", nullable=True),
        Column("null_value", "float64", "intervention: the same where a random direction is pushed", unit="nats", nullable=True),
        Column("status", "string", "ok, or why there is no answer", categorical=True),
    ),
    references=(OF_SCORE, OF_WINDOW),
)

SCORES = Table(
    name="scores",
    row="how well an explanation predicts its latent, by one scorer and judge",
    key=KEY,
    columns=(
        *IDENTITY,
        Column(
            "status",
            "string",
            "ok, or why there is no score; or `constant prediction`: a simulation that is the same for every token, whose score is 0",
            categorical=True,
        ),
        Column("unit", "string", "what the score is: balanced accuracy, AUROC, correlation, accuracy, nats", categorical=True),
        Column("score", "float64", "the score, in that unit", nullable=True),
        Column("score_se", "float64", "its standard error; null where there is none, as of a constant prediction", nullable=True, low=0),
        _share("score_low", "balanced accuracy, accuracy: the score if all examples without an answer were answered wrongly"),
        _share("score_high", "the same if all of them were answered rightly; both are the score where `n_failed` is 0"),
        Column("chance", "float64", "the score that an explanation gets which says nothing"),
        Column("n", "int32", "examples judged", unit="examples", low=0),
        Column("n_failed", "int32", "examples without an answer, which are left out of the score", unit="examples", low=0),
        Column("n_positive", "int32", "examples judged whose truth is yes", unit="examples", low=0),
        _share("auroc", "P(a positive's value > a negative's) + ½ P(equal), where values are `probability` or `value` of `judgements`"),
        Column("auroc_se", "float64", "its standard error (DeLong et al. 1988)", nullable=True, low=0),
        Column("auroc_n", "int32", "examples that have a value or probability for it", unit="examples", nullable=True, low=0),
        _share("accuracy", "share of right answers"),
        _share("precision", "share of yes answers that are right"),
        _share("recall", "share of positives answered yes; `anatomy` says what follows of the explanation"),
        _share("specificity", "share of negatives answered no"),
        _share("f1", "harmonic mean of precision and recall"),
        Column(
            "r_squared",
            "float64",
            "simulation: 1 − mean squared error / mean square of the true levels, where level 10 is the latent's largest activation",
            nullable=True,
            high=1,
        ),
        Column("deviation_explained", "float64", "simulation: 1 − mean absolute error / mean of the true levels", nullable=True, high=1),
        Column("kl", "float64", "intervention: mean KL divergence on the scored prompts", unit="nats", nullable=True, low=0),
        Column("null_score", "float64", "intervention: the score of a random direction pushed to the same KL", unit="nats", nullable=True),
        Column("null_score_se", "float64", "its standard error", unit="nats", nullable=True, low=0),
        Column("over_null", "float64", "intervention: score − null_score", unit="nats", nullable=True),
        Column("over_null_se", "float64", "its standard error, paired by prompt", unit="nats", nullable=True, low=0),
        Column("model", "string", "the language or embedding model that answered", nullable=True, categorical=True),
        Column("prompt_sha256", "string", "hash of the files that the prompts were made from", nullable=True, categorical=True),
        _tokens("prompt_tokens", "tokens of the prompts"),
        _tokens("cached_tokens", "tokens of the prompts that the engine took from its cache"),
        _tokens("output_tokens", "tokens of the answers"),
    ),
    references=(OF_LATENT, OF_EXPLANATION),
)


@dataclass(frozen=True)
class Identity:
    """The key of a score: whose explanation of which latent, the scorer, its negatives and its judge."""

    sae: str
    latent: int
    explainer: str
    scorer: str
    negatives: str
    judge: str


def _known(values: Floats, kind: pa.DataType) -> pa.Array:
    return pa.array(np.nan_to_num(values), mask=np.isnan(values)).cast(kind, safe=False)


def judgement_rows(tasks: Sequence[tuple[Identity, Judged]]) -> pa.Table:
    """Return the JUDGEMENTS rows of all *tasks*, built together: one table per task would be slow, since a task has few rows."""
    if not tasks:
        return JUDGEMENTS.empty()
    owner = pa.array(np.repeat(np.arange(len(tasks)), [len(judged.number) for _, judged in tasks]))
    whose = {name: pa.array([getattr(identity, name) for identity, _ in tasks]).take(owner) for name in KEY}
    columns = {name: np.concatenate([getattr(judged, name) for _, judged in tasks]) for name in PER_EXAMPLE}
    return JUDGEMENTS.build(
        {
            **whose,
            "example": columns["number"],
            "truth": columns["truth"],
            "answer": _known(columns["answer"], pa.bool_()),
            "probability": _known(columns["probability"], pa.float32()),
            "value": _known(columns["value"], pa.float64()),
            "null_value": _known(columns["null_value"], pa.float64()),
            "status": columns["status"].tolist(),
        }
    )


def score_record(identity: Identity, scorer: Scorer, judged: Judged, model: str | None, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the SCORES record of one task, with the tokens that its requests took."""
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
