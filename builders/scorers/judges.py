"""How often a judge is right where the explanation is known to be true: the `judges` config, from the rows of `calibration`.

Sensitivity is its recall and specificity its share of silent windows answered no, both with the true explanations of planted rules. A judge
that tells true explanations from false ones gives a rule a better score with its own explanation than with another rule's. Windows of one
rule share an explanation, so rules are the independent units. See docs/science.md#calibration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from builders.arrays import Floats, Ints
from builders.lake.table import Column, Table
from builders.scorers.statistics import auroc, mean, rate_variance

Z = 1.96  # of a 95 % interval
TRUE, OTHER = "true", "other"  # meanings of explanations in CALIBRATION: a rule's own truth, and that of another rule
EVEN = ("random", "pool")  # kinds of negatives that are drawn evenly from all silent windows


def way(kind: str, negatives: str, marks: str = "borrowed") -> str:
    """Return the name of the way in which a scorer asks its judge, such as `fuzzing-active`: its *kind*, *negatives* and *marks*."""
    parts = [kind, *([] if negatives in EVEN else [negatives]), *([] if marks == "borrowed" else [f"{marks}-marks"])]
    return "-".join(parts)


def _rate(name: str, doc: str) -> tuple[Column, ...]:
    parts = {name: doc, f"{name}_se": "its standard error", f"{name}_low": "lower end of its 95 % interval", f"{name}_high": "upper end"}
    return tuple(Column(part, "float64", said, nullable=True, low=0, high=1) for part, said in parts.items())


def _tokens(name: str, doc: str) -> Column:
    return Column(name, "int64", doc, unit="tokens", nullable=True, low=0)


JUDGES = Table(
    name="judges",
    row="how often a judge is right about windows of planted rules, and how well it tells true explanations from false ones",
    key=("judge", "scorer"),
    columns=(
        Column("judge", "string", "the judge; `oracle`: one that knows what the explanations mean", categorical=True),
        Column(
            "scorer",
            "string",
            "what it is asked: the scorer's kind, and its form or negatives where not the usual",
            categorical=True,
        ),
        Column("status", "string", "ok, or why there are no rates", categorical=True),
        Column("rules", "int32", "rules that it was asked about", unit="rules", low=0),
        Column("n_positive", "int32", "windows answered in which the rule fires", unit="windows", low=0),
        Column("n_negative", "int32", "windows answered in which it does not, or whose marks are wrong", unit="windows", low=0),
        Column("n_failed", "int32", "windows without an answer", unit="windows", low=0),
        *_rate("sensitivity", "detection, fuzzing: share of positives answered yes"),
        *_rate("specificity", "detection, fuzzing: share of negatives answered no"),
        Column("youden", "float64", "sensitivity + specificity − 1; 0 for a judge that guesses", nullable=True, low=-1, high=1),
        Column("youden_se", "float64", "its standard error", nullable=True, low=0),
        Column("auroc", "float64", "mean over rules of the AUROC of their windows", nullable=True, low=0, high=1),
        Column("auroc_se", "float64", "its standard error over rules", nullable=True, low=0),
        Column(
            "apart",
            "float64",
            "P(a rule's AUROC, or else score, with its truth > one with another's); chance: 0.5",
            nullable=True,
            low=0,
            high=1,
        ),
        Column("apart_se", "float64", "its standard error, over rules", nullable=True, low=0),
        Column("apart_rules", "int32", "rules with both scores", unit="rules", low=0),
        Column("model", "string", "the language model that answered", nullable=True, categorical=True),
        Column("prompt_sha256", "string", "hash of the files that the prompts were made from", nullable=True, categorical=True),
        _tokens("prompt_tokens", "tokens of the prompts"),
        _tokens("cached_tokens", "tokens of the prompts that the engine took from its cache"),
        _tokens("output_tokens", "tokens of the answers"),
    ),
)
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
SPENT = ("model", "prompt_sha256", *TOKENS)  # columns that do not follow from CALIBRATION


@dataclass(frozen=True)
class Rate:
    """A share of all windows of all rules, its standard error, and the ends of its 95 % interval."""

    value: float
    se: float
    low: float
    high: float


def pooled(hits: Ints, n: Ints) -> Rate:
    """Return the share of *hits* among *n*, both [rules], with rules as the independent units.

    The error is that of a ratio of sums (Cochran 1977, 6.4), but no less than if windows were independent, whose share is taken as
    (k+1)/(n+2). The interval is Wilson's, with the number of independent windows that would have this error.
    """
    total, m = int(n.sum()), len(n)
    share = float(hits.sum() / total)
    variance = rate_variance(int(hits.sum()), total)
    if m > 1:
        variance = max(variance, m / (m - 1) * float(((hits - share * n) ** 2).sum()) / total**2)
    shrunk = (hits.sum() + 1) / (total + 2)
    effective = float(shrunk * (1 - shrunk) / variance)
    centre, half = share + Z**2 / (2 * effective), Z * math.sqrt(share * (1 - share) / effective + Z**2 / (4 * effective**2))
    whole = 1 + Z**2 / effective
    return Rate(share, math.sqrt(variance), max(0.0, (centre - half) / whole), min(1.0, (centre + half) / whole))


def judge_records(calibration: Iterable[Mapping[str, Any]], spent: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the JUDGES records of the CALIBRATION records with each rule's truth, and with that of another rule.

    *spent* holds, by judge and scorer, the columns SPENT of judges that ask a language model.
    """

    def key(row: Mapping[str, Any]) -> tuple[str, str]:
        return row["judge"], row["scorer"]

    known = [row for row in calibration if row["meaning"] in {TRUE, OTHER}]
    for own, group in groupby(sorted(known, key=key), key):
        yield dict.fromkeys(SPENT) | dict(zip(JUDGES.key, own, strict=True)) | judge_record(list(group)) | dict(spent.get(own, {}))


def judge_record(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the CALIBRATION records of one judge and scorer say of it together."""
    true = [row for row in rows if row["meaning"] == TRUE]
    known = [row for row in true if row["status"] == "ok"]
    found: dict[str, Any] = dict.fromkeys(column.name for column in JUDGES.columns if column.nullable and column.name not in SPENT)
    positive, n = (np.array([row[name] for row in known], dtype=np.int64) for name in ("n_positive", "n"))
    found |= {"rules": len(true), "n_positive": int(positive.sum()), "n_negative": int((n - positive).sum())}
    found |= {"n_failed": sum(row["n_failed"] for row in true), "status": "ok" if known else true[0]["status"]}
    found |= areas(known) | apart(rows)
    if not known or known[0]["recall"] is None:
        return found
    rates = {"sensitivity": _of(known, "recall", positive), "specificity": _of(known, "specificity", n - positive)}
    for name, rate in rates.items():
        found |= {name: rate.value, f"{name}_se": rate.se, f"{name}_low": rate.low, f"{name}_high": rate.high}
    hit, silent = rates.values()
    return found | {"youden": hit.value + silent.value - 1, "youden_se": math.hypot(hit.se, silent.se)}


def areas(known: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns about the AUROC of windows, from the records of rules with their truths; none where there are no AUROCs."""
    told = mean(np.array([row["auroc"] for row in known if row["auroc"] is not None], dtype=np.float64))
    return {"auroc": told.get("score"), "auroc_se": told.get("score_se")}


def apart(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how well rules with their own truth are told from the same rules with another's: the columns `apart`.

    The error is the jackknife's, which leaves out a rule with both its scores, but no less than that of a share of as many rules.
    """
    told: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        value = row["score"] if row["auroc"] is None else row["auroc"]
        if row["status"] == "ok" and value is not None:
            told.setdefault((row["sae"], row["latent"]), {})[row["meaning"]] = value
    values = np.array([[pair[TRUE], pair[OTHER]] for pair in told.values() if len(pair) > 1], dtype=np.float64).reshape(-1, 2)
    n = len(values)
    if n < 2:
        return {"apart_rules": n}
    whole, without = _over(values), np.array([_over(np.delete(values, place, axis=0)) for place in range(n)])
    variance = max((n - 1) / n * float(((without - without.mean()) ** 2).sum()), rate_variance(whole * n, n))
    return {"apart": whole, "apart_se": math.sqrt(variance), "apart_rules": n}


def _over(values: Floats) -> float:
    """Return P(v > w) + ½ P(v = w) of *values* [n, 2], the columns v and w."""
    return auroc(np.repeat([True, False], len(values)), values.T.reshape(-1))[0]


def _of(rows: list[Mapping[str, Any]], name: str, n: Ints) -> Rate:
    shares: Floats = np.array([row[name] for row in rows], dtype=np.float64)
    return pooled(np.rint(shares * n).astype(np.int64), n)
