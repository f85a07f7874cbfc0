"""The anatomy of a score: how much too narrow and how much too broad an explanation is, and both without the judge's own errors.

A latent fires in a share π of all windows, its prevalence. From the judge's yes to a share r of the firing windows and f of the silent ones
follow breadth, the share of all windows that it accepts, π r + (1 − π) f, and the positive predictive value, π r / breadth. A judge that
errs says yes more or less often than the explanation deserves; Rogan & Gladen 1978 (Am. J. Epidemiol. 107:71) undo that where its
sensitivity and specificity are known. Errors are by the delta method. See docs/science.md#error-anatomy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from builders.arrays import Floats
from builders.lake.table import Column, Table
from builders.scorers.judgements import IDENTITY, KEY, OF_SCORE
from builders.scorers.judges import Z
from builders.scorers.statistics import rate_variance

READ = [*KEY, "score", "n", "n_positive", "recall", "specificity"]
NOT_CALIBRATED, BLIND = "not calibrated", "no better than chance"  # why nothing is corrected


def _estimate(name: str, doc: str) -> tuple[Column, Column]:
    error = Column(f"{name}_se", "float64", f"standard error of `{name}`", nullable=True, low=0)
    return Column(name, "float64", doc, nullable=True), error


ANATOMY = Table(
    name="anatomy",
    row="what a score of detection or fuzzing is made of: how narrow and how broad the explanation is, with and without the judge's errors",
    key=KEY,
    columns=(
        *IDENTITY,
        Column("n_positive", "int32", "windows judged in which the latent fires", unit="windows", low=0),
        Column("n_negative", "int32", "windows judged in which it is silent, or whose marks are wrong", unit="windows", low=0),
        Column("prevalence", "float64", "share of the corpus's whole windows in which it fires", nullable=True, low=0, high=1),
        *_estimate("recall", "share of positives answered yes; 1 − recall is what the explanation leaves out (too narrow)"),
        *_estimate("specificity", "share of negatives answered no"),
        *_estimate("breadth", "detection with random or pool negatives: share of all windows that the judge accepts"),
        *_estimate("ppv", "the same: share of the accepted windows in which the latent fires; 1 − ppv is what is added (too broad)"),
        *_estimate("score", "balanced accuracy, as in `scores`"),
        Column("status", "string", "ok, or why nothing is corrected for the judge's errors", categorical=True),
        *_estimate("corrected_recall", "recall without the judge's errors; like breadth and scores it is not cut at 0 and 1"),
        *_estimate("corrected_specificity", "specificity without them"),
        *_estimate("corrected_breadth", "breadth without them"),
        *_estimate("corrected_ppv", "ppv without them, at most 1; null where firing windows are accepted by false alarm alone"),
        *_estimate("corrected_score", "balanced accuracy without them"),
    ),
    references=(OF_SCORE,),
)


@dataclass(frozen=True)
class Estimate:
    """Values [n] and the variances [n] of their errors, NaN where there is none."""

    value: Floats
    variance: Floats

    def where(self, known: Any) -> Estimate:
        """Return the same, with NaN where not *known* [n]."""
        return Estimate(np.where(known, self.value, np.nan), np.where(known, self.variance, np.nan))

    @property
    def rest(self) -> Estimate:
        """What is left of the whole: 1 − value."""
        return Estimate(1 - self.value, self.variance)


def breadth(recall: Estimate, false: Estimate, prevalence: Floats) -> Estimate:
    """Return the share of all windows that is accepted, from that of the firing (*recall*) and that of the silent windows (*false*)."""
    rest = 1 - prevalence
    return Estimate(prevalence * recall.value + rest * false.value, prevalence**2 * recall.variance + rest**2 * false.variance)


def ppv(recall: Estimate, false: Estimate, prevalence: Floats, alarm: Estimate | None = None) -> Estimate:
    """Return the share of the accepted windows in which the latent fires; NaN where no window is accepted.

    *alarm* is the judge's own rate of false alarms, which is taken off both rates; what would fall below 0 is 0. Its sensitivity cancels.
    """
    nothing = np.zeros(1)
    alarm = alarm or Estimate(nothing, nothing)
    r, f = recall.value - alarm.value, np.maximum(false.value - alarm.value, 0)
    accepted = prevalence * r + (1 - prevalence) * f
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = prevalence * (1 - prevalence) / accepted**2
        variance = slope**2 * (f**2 * recall.variance + r**2 * false.variance + (r - f) ** 2 * alarm.variance)
        return Estimate(prevalence * r / accepted, variance).where((r >= 0) & (accepted > 0))


def corrected(share: Estimate, hit: Estimate, alarm: Estimate) -> Estimate:
    """Return a share of windows without the judge's errors, (share − alarm) / (hit − alarm), by Rogan & Gladen.

    The judge says yes at the rate *hit* where it should, and at the rate *alarm* where it should not.
    """
    youden = hit.value - alarm.value
    value = (share.value - alarm.value) / youden
    return Estimate(value, (share.variance + (1 - value) ** 2 * alarm.variance + value**2 * hit.variance) / youden**2)


def corrected_score(score: Estimate, hit: Estimate, alarm: Estimate) -> Estimate:
    """Return a balanced accuracy without the judge's errors, ½ + (score − ½) / (hit − alarm)."""
    youden = hit.value - alarm.value
    above = (score.value - 0.5) / youden
    return Estimate(0.5 + above, (score.variance + above**2 * (hit.variance + alarm.variance)) / youden**2)


def anatomy_rows(scores: pd.DataFrame, ways: Mapping[str, str], latents: pd.DataFrame, judges: pd.DataFrame) -> pa.Table:
    """Return the ANATOMY rows of SCORES rows (their columns READ), of scorers that are among *ways* and where there is a score.

    *ways* are those in which scorers ask their judges, *latents* LATENTS rows (`sae`, `latent`, `window_density`), *judges* JUDGES rows.
    """
    asked = scores[scores["scorer"].isin(ways) & scores["score"].notna()].merge(latents, "left", on=["sae", "latent"])
    asked["way"] = asked["scorer"].map(ways)
    of_judge = judges.add_prefix("judge_")
    asked = asked.merge(of_judge, "left", left_on=["judge", "way"], right_on=["judge_judge", "judge_scorer"])
    status, found = estimates(asked)
    columns: dict[str, Any] = {name: asked[name].tolist() for name in KEY}
    for name, one in found.items():
        columns |= {name: _column(one.value), f"{name}_se": _column(np.sqrt(one.variance))}
    columns |= {"n_positive": asked["n_positive"], "n_negative": asked["n"] - asked["n_positive"], "status": status}
    return ANATOMY.sort(ANATOMY.build({**columns, "prevalence": _column(asked["window_density"].to_numpy(np.float64))}))


def estimates(asked: pd.DataFrame) -> tuple[list[str], dict[str, Estimate]]:
    """Return, for scores beside the latent's density and the rates of the judge, why each is not corrected (or `ok`), and all Estimates.

    There is breadth where positives and negatives stand for all windows: in detection with evenly drawn negatives.
    """
    positive, n = (asked[name].to_numpy(np.float64) for name in ("n_positive", "n"))
    recall, specificity = _rate(asked["recall"], positive), _rate(asked["specificity"], n - positive)
    false, prevalence = specificity.rest, asked["window_density"].where(asked["way"] == "detection").to_numpy(np.float64)
    score = Estimate(asked["score"].to_numpy(np.float64), (recall.variance + specificity.variance) / 4)
    hit, silent = (_given(asked, f"judge_{name}") for name in ("sensitivity", "specificity"))
    alarm = silent.rest
    sure = hit.value - alarm.value > Z * np.sqrt(hit.variance + alarm.variance)  # False where there are no rates
    told = asked["judge_status"].fillna(NOT_CALIBRATED)
    status = told.where((told != "ok") | sure, BLIND).tolist()
    hit, alarm = hit.where(sure), alarm.where(sure)
    accepted = breadth(recall, false, prevalence)
    return status, {
        "recall": recall,
        "specificity": specificity,
        "breadth": accepted,
        "ppv": ppv(recall, false, prevalence),
        "score": score,
        "corrected_recall": corrected(recall, hit, alarm),
        "corrected_specificity": corrected(false, hit, alarm).rest,
        "corrected_breadth": corrected(accepted, hit, alarm),
        "corrected_ppv": ppv(recall, false, prevalence, alarm),
        "corrected_score": corrected_score(score, hit, alarm),
    }


def _rate(share: pd.Series[float], n: Floats) -> Estimate:
    value = np.asarray(share, dtype=np.float64)
    return Estimate(value, rate_variance(value * n, n))


def _given(asked: pd.DataFrame, name: str) -> Estimate:
    return Estimate(asked[name].to_numpy(np.float64), asked[f"{name}_se"].to_numpy(np.float64) ** 2)


def _column(values: Floats) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
