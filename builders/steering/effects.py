"""What steering does to a subject's answers: the `steering` configs, their metrics and their error bars.

Half of a behaviour's test questions choose the layer, for each method and site; effects are reported on the other half. A question whose
options are offered in several orders counts once, by the mean of its answers: a push towards a letter is no effect on the behaviour.
Sources: Rimsky et al. 2024; Paulo, Marshall and Belrose 2024 (arXiv:2404.05971); see docs/science.md#steering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.special import expit

from builders.arrays import Floats
from builders.seeds import seed_of
from builders.steering.ways import RESIDUAL, Push

if TYPE_CHECKING:
    from builders.steering.vectors import Directions
from builders.lake.table import Column, Table

IDENTITY = (
    Column("subject", "string", "the language model that is steered", categorical=True),
    Column("behaviour", "string", "what it is steered towards", categorical=True),
    Column("method", "string", "how the vectors are made: difference (of means) or lda; none without steering", categorical=True),
    Column("site", "string", "where they are added: residual (stream), (recurrent) state, both; none without steering", categorical=True),
    Column("layer", "int32", "the block at whose output, or in whose state, they are added; -1 without steering", low=-1),
    Column("multiplier", "float64", "what the vectors are multiplied by; positive is towards the behaviour"),
)
KEY = ("subject", "behaviour", "method", "site", "layer", "multiplier")
NONE = "none"

STEERING = Table(
    name="steering",
    row="a way to steer, and what it does on half of the test questions",
    key=(*KEY, "half"),
    columns=(
        *IDENTITY,
        Column("half", "string", "validation: the half that chose the layer; test: the other one", categorical=True),
        Column("chosen", "bool", "whether the validation half chose this layer for this method and site"),
        Column("status", "string", "ok, or why there are no numbers", categorical=True),
        Column(
            "matching",
            "float64",
            "mean share of the matching answer in both answers' probability; chance is 0.5",
            nullable=True,
            low=0,
            high=1,
        ),
        Column("matching_se", "float64", "its standard error (bootstrap over questions)", nullable=True, low=0),
        Column("nonsense", "float64", "mean probability of anything but both answers", nullable=True, low=-1e-6, high=1),
        Column("nonsense_se", "float64", "its standard error (bootstrap over questions)", nullable=True, low=0),
        Column("effect", "float64", "mean matching minus mean matching without steering; 0 is no effect", nullable=True, low=-1, high=1),
        Column("effect_se", "float64", "its standard error (paired bootstrap over questions)", nullable=True, low=0),
        Column("n", "int32", "questions with an answer", unit="questions", low=0),
        Column("n_failed", "int32", "questions without an answer: too long, or the probabilities are no numbers", unit="questions", low=0),
        Column("pairs", "int32", "pairs of answers that the vectors were made from", unit="pairs", low=0),
        Column("last", "int32", "last tokens of the prompt at which the vectors were added", unit="tokens", low=1),
        Column("template", "string", "the subject's template for a question, with the opening of an answer", categorical=True),
        Column("answers", "string", "how the options are named: letters or numbers", categorical=True),
    ),
)

STEERING_ANSWERS = Table(
    name="steering_answers",
    row="a test question with one order of its options, answered under one way to steer",
    key=(*KEY, "question", "order"),
    columns=(
        *IDENTITY,
        Column("question", "int32", "position of the question in the behaviour's test set", low=0),
        Column("order", "int32", "number of the order in which its options were offered; 0 if there is one order", low=0),
        Column("half", "string", "validation or test", categorical=True),
        Column("status", "string", "ok, or why there are no numbers", categorical=True),
        Column("matching", "float32", "share of the matching answer in both answers' probability", nullable=True, low=0, high=1),
        Column("nonsense", "float32", "probability of anything but both answers", nullable=True, low=-1e-5, high=1),
        Column("effect", "float32", "matching minus matching without steering", nullable=True, low=-1, high=1),
    ),
)

STEERING_VECTORS = Table(
    name="steering_vectors",
    row="a steering vector: it is added, times a multiplier, at one layer",
    key=("subject", "behaviour", "method", "layer", "part"),
    columns=(
        *IDENTITY[:3],
        Column("layer", "int32", "the block at whose output, or in whose state, it is added", low=0),
        Column("part", "string", "residual, or a part of the state (conv, ssm; feed_forward, attention, value, weight)", categorical=True),
        Column("hookpoint", "string", "the module whose output is the residual stream there", categorical=True),
        Column("shape", "list<int32>", "the vector's shape", low=1),
        Column("values", "list<float32>", "the vector's values, the last dimension varying fastest"),
        Column("norm", "float32", "the vector's Euclidean norm", low=0),
        Column("pairs", "int32", "pairs of answers that the vector was made from", unit="pairs", low=0),
    ),
    row_group=100,
)
DRAWS = 1000  # samples of a bootstrap


@dataclass(frozen=True)
class Setting:
    """What all rows of one subject and behaviour share; the fields are columns of STEERING."""

    subject: str
    behaviour: str
    pairs: int
    last: int
    template: str
    answers: str

    @property
    def identity(self) -> dict[str, str]:
        """The columns that identify subject and behaviour."""
        return {"subject": self.subject, "behaviour": self.behaviour}


def vector_rows(setting: Setting, directions: Mapping[str, Directions], hookpoints: Sequence[str]) -> pa.Table:
    """Return the STEERING_VECTORS rows of one subject and behaviour."""
    records = []
    for method, found in directions.items():
        for layer, hookpoint in enumerate(hookpoints):
            for part, vector in {RESIDUAL: found.residual[layer], **found.state[layer]}.items():
                place = {**setting.identity, "method": method, "layer": layer, "part": part, "hookpoint": hookpoint}
                flat = vector.flatten().tolist()
                records.append({**place, "shape": list(vector.shape), "values": flat, "norm": float(vector.norm()), "pairs": setting.pairs})
    return STEERING_VECTORS.rows(records)


def metrics(logprobs: Floats) -> tuple[Floats, Floats]:
    """Return *matching* and *nonsense* from the log-probabilities [..., 2] of the matching and the other letter; nan where these are nan.

    matching = p(match) / (p(match) + p(other)), computed from the logarithms, so that it exists however small both are;
    nonsense = 1 - p(match) - p(other). Source: Paulo, Marshall and Belrose 2024 (arXiv:2404.05971).
    """
    match, other = logprobs[..., 0], logprobs[..., 1]
    return expit(match - other), 1 - np.exp(match) - np.exp(other)


def answer_frame(
    setting: Setting, pushes: Sequence[Push | None], places: Sequence[int], logprobs: Floats, validation: set[int]
) -> pd.DataFrame:
    """Return answers with the columns of STEERING_ANSWERS, from *logprobs* [prompts, pushes, 2]; the first push must be None.

    *places* names the question of each prompt; a question that comes again has its options in another order. *validation* are the
    questions of the validation half.
    """
    matching, nonsense = metrics(logprobs)
    named = [(NONE, NONE, -1, 0.0) if push is None else (push.method, push.site, push.layer, push.multiplier) for push in pushes]
    frame = pd.DataFrame(np.repeat(np.array(named, dtype=object), len(places), axis=0), columns=list(KEY[2:]))
    frame = frame.astype({"layer": "int32", "multiplier": "float64"})
    asked = pd.Series(places, dtype="int32")
    questions, orders = (np.tile(column.to_numpy(dtype=np.int32), len(pushes)) for column in (asked, asked.groupby(asked).cumcount()))
    numbers = {"matching": matching, "nonsense": nonsense, "effect": matching - matching[:, :1]}
    there = np.isfinite(np.stack(list(numbers.values()))).all(0).T.ravel()
    for name, values in numbers.items():
        frame[name] = np.where(there, values.T.ravel(), np.nan)
    half = np.where(np.isin(questions, list(validation)), "validation", "test")
    status = np.where(there, "ok", "probabilities are no numbers")
    return frame.assign(**setting.identity, question=questions, order=orders, half=half, status=status)


def answer_rows(answers: pd.DataFrame) -> pa.Table:
    """Return the frame of :func:`answer_frame` as STEERING_ANSWERS rows."""
    columns = {column.name: pa.array(answers[column.name], from_pandas=True) for column in STEERING_ANSWERS.columns}
    return STEERING_ANSWERS.sort(pa.Table.from_pydict(columns).cast(STEERING_ANSWERS.schema))


def effect_rows(setting: Setting, answers: pd.DataFrame, seed: int) -> pa.Table:
    """Return the STEERING rows of one subject and behaviour; all ways to steer share the questions that the bootstrap draws with *seed*."""
    records = []
    for half in ("validation", "test"):
        side = answers[answers["half"] == half]
        grids = {name: by_question(side, name) for name in ("matching", "nonsense", "effect")}
        weights = resamples(len(grids["effect"]), seed_of(seed, "steering", setting.subject, setting.behaviour, half))
        cells = {name: mean_and_error(grid.to_numpy(), weights) for name, grid in grids.items()}
        for place, key in enumerate(grids["effect"].columns):
            there = int(np.isfinite(grids["effect"].iloc[:, place]).sum())
            numbers = {name: _known(mean[place]) for name, (mean, _) in cells.items()}
            numbers |= {f"{name}_se": _known(error[place]) for name, (_, error) in cells.items()}
            counts = {"n": there, "n_failed": len(grids["effect"]) - there}
            records.append({**dict(zip(KEY[2:], key, strict=True)), "half": half, **numbers, **counts})
    found = pd.DataFrame(records)
    best = chosen_layers(found[found["half"] == "validation"])
    shared = {**setting.identity, "pairs": setting.pairs, "last": setting.last, "template": setting.template, "answers": setting.answers}
    rows = [
        {**shared, **row, "chosen": best.get((row["method"], row["site"])) == row["layer"], "status": "ok" if row["n"] else "no answers"}
        for row in found.astype(object).where(found.notna(), None).to_dict("records")
    ]
    return STEERING.rows(rows)


def by_question(answers: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the mean of the column *name* over each question's orders [questions, ways to steer]; nan if an order has no number."""
    grid = answers.pivot(index=["question", "order"], columns=list(KEY[2:]), values=name)
    return grid.groupby("question").mean(skipna=False)


def skipped_rows(setting: Setting, pushes: Sequence[Push], reason: str) -> pa.Table:
    """Return STEERING rows without numbers, for *pushes* that the subject does not allow; *reason* is their status."""
    nothing = dict.fromkeys(("matching", "matching_se", "nonsense", "nonsense_se", "effect", "effect_se"))
    shared = {"pairs": setting.pairs, "last": setting.last, "template": setting.template, "answers": setting.answers, "n": 0, "n_failed": 0}
    rows = [
        {**setting.identity, **vars(push), "half": half, "chosen": False, "status": reason, **nothing, **shared}
        for push in pushes
        for half in ("validation", "test")
    ]
    return STEERING.rows(rows)


def resamples(count: int, seed: int) -> Floats:
    """Return how often each bootstrap sample draws each of *count* questions [DRAWS, count]."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)


def mean_and_error(values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the mean of each column of *values* [questions, columns] over its finite values, and its bootstrap standard error.

    *weights* [draws, questions] come from :func:`resamples`. The mean of no value and the error of fewer than two values are nan.
    """
    there = np.isfinite(values)
    filled, counts = np.where(there, values, 0.0), there.sum(0)
    errors = np.full(len(counts), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ filled) / (weights @ there)
        errors[counts > 1] = np.nanstd(means[:, counts > 1], axis=0, ddof=1)
        return filled.sum(0) / counts, errors


def chosen_layers(effects: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Return, for each method and site, the layer whose effects go furthest in the direction of their multipliers, on average."""
    steered = effects[effects["multiplier"] != 0]
    along = steered.assign(along=np.sign(steered["multiplier"]) * steered["effect"].astype(float))
    means = along.groupby(["method", "site", "layer"])["along"].mean().dropna().reset_index()
    best = means.loc[means.groupby(["method", "site"])["along"].idxmax()]
    return dict(zip(zip(best["method"], best["site"], strict=True), best["layer"].astype(int), strict=True))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
