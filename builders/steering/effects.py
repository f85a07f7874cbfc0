"""What steering does to a subject's answers: the `steering` configs, their metrics and their error bars.

Half of a behaviour's test questions choose the layer, for each method, site and phase; effects are reported on the other half. Letters
count alike (:mod:`builders.steering.weights`): a push towards a letter is no effect on the behaviour.
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
from builders.lake.references import OF_SUBJECT
from builders.lake.table import Column, Reference, Table
from builders.seeds import seed_of
from builders.steering.ways import RESIDUAL, Push, columns_of
from builders.steering.weights import Letters, counted, mean_and_error

if TYPE_CHECKING:
    from builders.steering.vectors import Directions

IDENTITY = (
    Column("subject", "string", "the language model that is steered", categorical=True),
    Column("behaviour", "string", "what it is steered towards", categorical=True),
    Column("method", "string", "how the vectors are made: difference (of means) or lda; none without steering", categorical=True),
    Column(
        "site",
        "string",
        "where they are added: residual (stream), (recurrent) state, both, or one part of the state by its name; none without steering",
        categorical=True,
    ),
    Column(
        "phase",
        "string",
        "when the state is changed: late (before the token is read) or aligned (while it is read); none where no state is changed",
        categorical=True,
    ),
    Column("layer", "int32", "the block at whose output, or in whose state, they are added; -1 without steering", low=-1),
    Column("multiplier", "float64", "what the vectors are multiplied by; positive is towards the behaviour"),
)
WAY = ("method", "site", "phase")
KEY = ("subject", "behaviour", *WAY, "layer", "multiplier")

STEERING = Table(
    name="steering",
    row="a way to steer, and what it does on half of the test questions",
    key=(*KEY, "half"),
    columns=(
        *IDENTITY,
        Column("half", "string", "validation: the half that chose the layer; test: the other one", categorical=True),
        Column("chosen", "bool", "whether the validation half chose this layer for this method, site and phase"),
        Column("status", "string", "ok, or why there are no numbers", categorical=True),
        Column(
            "matching",
            "float64",
            "mean share of the matching answer in both answers' probability, letters counted alike; chance is 0.5",
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
    references=(OF_SUBJECT,),
)

STEERING_ANSWERS = Table(
    name="steering_answers",
    row="a test question with one order of its options, answered under one way to steer",
    key=(*KEY, "question", "order"),
    columns=(
        *IDENTITY,
        Column("question", "int32", "position of the question in the behaviour's test set", low=0),
        Column("order", "int32", "number of the order in which its options were offered; 0 if there is one order", low=0),
        Column("letter", "string", "the letter of the answer that matches the behaviour", categorical=True),
        Column("other", "string", "the letter of the other answer", categorical=True),
        Column("half", "string", "validation or test", categorical=True),
        Column("status", "string", "ok, or why there are no numbers", categorical=True),
        Column("matching", "float32", "share of the matching answer in both answers' probability", nullable=True, low=0, high=1),
        Column("nonsense", "float32", "probability of anything but both answers", nullable=True, low=-1e-5, high=1),
        Column("effect", "float32", "matching minus matching without steering", nullable=True, low=-1, high=1),
    ),
    references=(Reference((*KEY, "half"), "steering", (*KEY, "half")),),
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
    references=(OF_SUBJECT,),
)


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
    setting: Setting,
    pushes: Sequence[Push | None],
    places: Sequence[int],
    logprobs: Floats,
    validation: set[int],
    letters: Letters = (),
) -> pd.DataFrame:
    """Return answers with the columns of STEERING_ANSWERS, from *logprobs* [prompts, pushes, 2]; the first push must be None.

    *places* names the question of each prompt; a question that comes again has its options in another order. *validation* are the
    questions of the validation half. *letters* are those of each prompt's matching and other answer; without them, all count alike.
    """
    matching, nonsense = metrics(logprobs)
    named = [tuple(columns_of(push).values()) for push in pushes]
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
    named_letters = np.array(letters or [("", "")] * len(places), dtype=object).reshape(len(places), 2)
    letter, other = (np.tile(named_letters[:, side], len(pushes)) for side in range(2))
    facts = {"question": questions, "order": orders, "letter": letter, "other": other, "half": half, "status": status}
    return frame.assign(**setting.identity, **facts)


def answer_rows(answers: pd.DataFrame) -> pa.Table:
    """Return the frame of :func:`answer_frame` as STEERING_ANSWERS rows."""
    columns = {column.name: pa.array(answers[column.name], from_pandas=True) for column in STEERING_ANSWERS.columns}
    return STEERING_ANSWERS.sort(pa.Table.from_pydict(columns).cast(STEERING_ANSWERS.schema))


def effect_rows(setting: Setting, answers: pd.DataFrame, seed: int, chosen: Mapping[tuple[str, str, str], int]) -> pa.Table:
    """Return the STEERING rows of one subject and behaviour; all ways to steer share the questions that the bootstrap draws with *seed*.

    *chosen* is the layer that the validation half chose, by method, site and phase.
    """
    records = []
    for half in ("validation", "test"):
        side = answers[answers["half"] == half]
        asked = side["question"].nunique()
        grids = {name: by_answer(side, name) for name in ("matching", "nonsense", "effect")}
        grids = {name: grid[grids["effect"].notna().any(axis=1)] for name, grid in grids.items()}  # letters balance over what was answered
        index = grids["effect"].index.to_frame()
        letters = list(zip(index["letter"], index["other"], strict=True))
        draws = seed_of(seed, "steering", setting.subject, setting.behaviour, half)
        weights = counted(index["question"], letters, draws)
        cells = {name: mean_and_error(grid.to_numpy(), weights) for name, grid in grids.items()}
        for place, key in enumerate(grids["effect"].columns):
            there = np.isfinite(grids["effect"].iloc[:, place].to_numpy())
            numbers = {name: _known(mean[place]) for name, (mean, _) in cells.items()}
            numbers |= {f"{name}_se": _known(error[place]) for name, (_, error) in cells.items()}
            answered = index["question"][there & (weights.own > 0)].nunique()
            counts = {"n": answered, "n_failed": asked - index["question"][there].nunique()}
            records.append({**dict(zip(KEY[2:], key, strict=True)), "half": half, **numbers, **counts})
    found = pd.DataFrame(records)
    shared = {**setting.identity, "pairs": setting.pairs, "last": setting.last, "template": setting.template, "answers": setting.answers}
    rows = [
        {
            **shared,
            **row,
            "chosen": chosen.get((row["method"], row["site"], row["phase"])) == row["layer"],
            "status": "ok" if row["n"] else "no answers",
        }
        for row in found.astype(object).where(found.notna(), None).to_dict("records")
    ]
    return STEERING.rows(rows)


def by_answer(answers: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the column *name* [answers, ways to steer]; nan in all orders of a question if one of them has no number."""
    grid = answers.pivot(index=["question", "order", "letter", "other"], columns=list(KEY[2:]), values=name)
    whole = grid.notna().groupby("question").transform("all")
    return grid.where(whole)


def skipped_rows(setting: Setting, pushes: Sequence[Push], reason: str) -> pa.Table:
    """Return STEERING rows without numbers, for *pushes* that the subject does not allow; *reason* is their status."""
    nothing = dict.fromkeys(("matching", "matching_se", "nonsense", "nonsense_se", "effect", "effect_se"))
    shared = {"pairs": setting.pairs, "last": setting.last, "template": setting.template, "answers": setting.answers, "n": 0, "n_failed": 0}
    facts = {**setting.identity, **nothing, **shared, "chosen": False, "status": reason}
    return STEERING.rows([{**facts, **push.columns, "half": half} for push in pushes for half in ("validation", "test")])


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
