"""Judged examples and what follows from them: the `judgements` and `scores` configs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.scorers.statistics import Counts, auroc, count_outcomes
from builders.scorers.trials import Judge, Trials
from builders.table import Column, Table

IDENTITY = (
    Column("sae", "string", "the dictionary", categorical=True),
    Column("latent", "int32", "the latent", low=0),
    Column("explainer", "string", "who explained", categorical=True),
    Column("scorer", "string", "what was asked", categorical=True),
    Column("judge", "string", "who answered", categorical=True),
)
KEY = tuple(column.name for column in IDENTITY)

JUDGEMENTS = Table(
    name="judgements",
    row="one example judged by an explanation's words",
    key=(*KEY, "example"),
    columns=(
        *IDENTITY,
        Column("example", "int32", "number of the window in `contexts`, split test", low=0),
        Column("truth", "bool", "what the right answer is"),
        Column("answer", "bool", "what the judge answered", nullable=True),
        Column("probability", "float32", "the judge's probability of yes", nullable=True, low=0, high=1),
        Column("status", "string", "ok, or why there is no answer", categorical=True),
    ),
)

SCORES = Table(
    name="scores",
    row="how well an explanation predicts its latent, by one scorer and judge",
    key=KEY,
    columns=(
        *IDENTITY,
        Column("negatives", "string", "where the non-activating windows came from", categorical=True),
        Column("status", "string", "ok, or why there is no score", categorical=True),
        Column("score", "float64", "balanced accuracy, (TPR + TNR) / 2", nullable=True, low=0, high=1),
        Column("score_se", "float64", "its standard error, from (k+1)/(n+2) so that a perfect score has one too", nullable=True, low=0),
        Column("chance", "float64", "the score of an explanation that says nothing", low=0, high=1),
        Column("n", "int32", "examples judged", unit="examples", low=0),
        Column("n_failed", "int32", "examples without an answer; they count neither for nor against", unit="examples", low=0),
        Column("n_positive", "int32", "examples judged whose truth is yes", unit="examples", low=0),
        Column("auroc", "float64", "P(probability of a positive > of a negative) + ½ P(equal)", nullable=True, low=0, high=1),
        Column("auroc_se", "float64", "its standard error (DeLong et al. 1988)", nullable=True, low=0),
        Column("accuracy", "float64", "share of right answers", nullable=True, low=0, high=1),
        Column("precision", "float64", "share of yes that is right", nullable=True, low=0, high=1),
        Column("recall", "float64", "share of positives answered yes", nullable=True, low=0, high=1),
        Column("f1", "float64", "harmonic mean of precision and recall", nullable=True, low=0, high=1),
    ),
)


@dataclass(frozen=True)
class Identity:
    """Whose explanation is scored, how and by whom."""

    sae: str
    latent: int
    explainer: str
    scorer: str
    judge: str


def judge_trials(identity: Identity, text: str, trials: Trials, judge: Judge) -> tuple[pa.Table, dict[str, Any]]:
    """Return the JUDGEMENTS rows of one explanation and its SCORES record."""
    probability = np.where([status == "ok" for status in trials.status], judge(text, trials), np.nan)
    failed = np.isnan(probability)
    status = ["no answer" if bad and was == "ok" else was for bad, was in zip(failed, trials.status, strict=True)]
    rows = JUDGEMENTS.build(
        {
            **identity.__dict__,
            "example": trials.number,
            "truth": trials.truth,
            "answer": pa.array(probability >= 0.5, mask=failed),
            "probability": pa.array(probability.astype(np.float32), mask=failed),
            "status": status,
        }
    )
    return rows, score(identity, trials.truth[~failed], probability[~failed], int(failed.sum()))


def score(identity: Identity, truth: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64], n_failed: int) -> dict[str, Any]:
    """Return the SCORES record that follows from answered examples; without both classes there is no score."""
    n, positive = len(truth), int(truth.sum())
    record: dict[str, Any] = {column.name: None for column in SCORES.columns} | identity.__dict__
    record |= {"negatives": "random", "chance": 0.5, "n": n, "n_failed": n_failed, "n_positive": positive}
    if positive in (0, n):
        return record | {"status": "no answers" if not n else "one class only"}
    counts: Counts = count_outcomes(truth, probability >= 0.5)
    area, area_se = auroc(truth, probability)
    rates = {"score": counts.balanced_accuracy, "score_se": counts.balanced_accuracy_se, "accuracy": counts.accuracy}
    shape = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    return record | rates | shape | {"status": "ok", "auroc": area, "auroc_se": area_se}
