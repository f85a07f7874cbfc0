"""What readers are told of broad explanations, of judges and of several explanations, against known answers."""

from __future__ import annotations

from typing import Any

import pytest

from builders.lake.table import Table
from builders.saes.latents import LATENTS
from builders.scorers.anatomy import ANATOMY
from builders.scorers.best import BEST, FIGURES
from builders.scorers.judges import JUDGES
from cards.anatomy import anatomy_summary, beside_permuted, best_rows, judge_rows
from cards.render import render


def row(table: Table, **known: Any) -> dict[str, Any]:
    """Return a row of *table* with *known* columns, and something that fits in the others that may not be null."""
    usual = {"string": "x", "bool": False, "int32": 1, "int64": 1, "float32": 0.5, "float64": 0.5}
    return {c.name: None if c.nullable else [] if c.is_list else usual[c.dtype] for c in table.columns} | known


def parts(latent: int, scorer: str, breadth: float | None, explainer: str = "lexical", negatives: int = 50) -> dict[str, Any]:
    """Return an ANATOMY row of a latent."""
    whose = {"sae": "one", "latent": latent, "scorer": scorer, "explainer": explainer, "judge": "lexical", "n_negative": negatives}
    return row(ANATOMY, **whose, breadth=breadth, recall=0.5 + latent / 10, prevalence=0.1, ppv=0.8, score=0.7)


KINDS = {"one": "trained"}


def latents(inclusion: dict[int, float]) -> Any:
    """Return LATENTS rows of one dictionary with these probabilities."""
    return LATENTS.rows([row(LATENTS, sae="one", latent=latent, inclusion=some) for latent, some in inclusion.items()])


def test_the_scorer_that_judged_most_silent_windows_tells_the_breadth() -> None:
    """Medians are over the latents of the pool's scorer; fuzzing has no breadth, and detection judged fewer windows."""
    rows = [
        *(parts(latent, "detection-pool", 0.2 + latent / 10, negatives=400) for latent in (0, 1, 2)),
        parts(0, "detection", 0.9),
        parts(0, "fuzzing", None),
    ]
    (record,) = anatomy_summary(ANATOMY.rows(rows), latents({0: 1.0, 1: 1.0, 2: 1.0}), KINDS)
    assert (record["scorer"], record["kind"], record["explainer"]) == ("detection-pool", "trained", "lexical")
    assert [record[name]["median"] for name in ("recall", "breadth", "ppv")] == pytest.approx([0.6, 0.3, 0.8])
    assert (record["breadth"]["n"], record["corrected_score"]["n"]) == (3, 0)


def test_latents_of_a_sample_are_weighed() -> None:
    """A latent that was drawn with probability ¼ stands for four."""
    rows = [parts(0, "detection-pool", 0.1), parts(1, "detection-pool", 0.5)]
    (record,) = anatomy_summary(ANATOMY.rows(rows), latents({0: 1.0, 1: 0.25}), KINDS)
    assert record["breadth"]["mean"] == pytest.approx((0.1 + 4 * 0.5) / 5)


def test_nothing_has_a_breadth() -> None:
    """Without a scorer that knows breadth there is no record and no table."""
    assert anatomy_summary(ANATOMY.rows([parts(0, "fuzzing", None)]), latents({0: 1.0}), KINDS) == []
    assert render("anatomy.md.j2", {"anatomy": [], "corrected": False}).strip() == ""


def test_permuted_explanations_stand_below_real_ones() -> None:
    """Each kind of dictionary has a row for real explanations, then one for permuted ones."""
    rows = [parts(0, "detection-pool", 0.2, explainer) for explainer in ("lexical-permuted", "lexical")]
    records = beside_permuted(anatomy_summary(ANATOMY.rows(rows), latents({0: 1.0}), KINDS))
    assert [record["explainer"] for record in records] == ["lexical", "lexical-permuted"]
    lines = render("anatomy.md.j2", {"anatomy": records, "corrected": False}).splitlines()
    assert lines[2] == "| trained | lexical | lexical | 0.10 | 0.50 | 0.20 | 0.80 | 0.70, n 1 |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == 9


def test_judges_are_told_with_their_rates_or_the_reason() -> None:
    """The oracle comes first; a judge that cannot read explanations has its status and no rate; surprisal has no rates but an AUROC."""
    known = {"status": "ok", "rules": 16, "n_positive": 800, "n_negative": 800, "sensitivity": 0.93, "sensitivity_se": 0.04}
    rows = [
        row(JUDGES, judge="lexical", scorer="detection", status="names no token", rules=16),
        row(JUDGES, judge="oracle", scorer="detection", **known, specificity=0.99, specificity_se=0.01),
        row(JUDGES, judge="oracle", scorer="surprisal", status="ok", rules=16, auroc=1.0, auroc_se=0.0),
        row(JUDGES, judge="small", scorer="surprisal", status="ok", rules=16, auroc=0.6, auroc_se=0.02, apart=0.9, apart_se=0.05),
    ]
    found = judge_rows(JUDGES.rows(rows))
    assert [some["judge"] for some in found] == ["oracle", "lexical", "small"]
    text = render("calibration.md.j2", {"calibration": [], "judges": found})
    assert text.strip() == ""  # without calibrated scorers there is no section
    text = render("calibration.md.j2", {"calibration": [CALIBRATED], "judges": found})
    assert "| lexical | detection | 16 | names no token | – | – | – |" in text
    assert "| small | surprisal | 16 | – | – | 0.60 ± 0.02 | 0.90 ± 0.05 |" in text


CALIBRATED = {
    "scorer": "detection",
    "unit": "balanced accuracy",
    "chance": 0.5,
    "auroc": 0.9,
    "auroc_se": 0.1,
    **{name: {"mean": 0.9, "se": 0.1, "n": 16} for name in ("true", "broad", "narrow", "other")},
}


def test_the_best_of_several_is_told_over_all_dictionaries() -> None:
    """Only rows over all dictionaries of a kind are told, with what the largest score promises too much."""
    figures = {f"{name}{end}": 0.6 for name in FIGURES for end in ("", "_low", "_high")} | {"optimism": 0.04}
    rows = [
        {**row(BEST, sae=sae, kind="trained", scorer="fuzzing", explainer="default", unit="AUROC", samples=5, n=20), **figures}
        for sae in ("all", "one")
    ]
    (record,) = best_rows(BEST.rows(rows))
    assert (record["sae"], record["optimism"]["mean"]) == ("all", 0.04)
    assert "| 5 of each of 20 latents | 0.60 | 0.60 | 0.60 | +0.040 (+0.600 to +0.600), n 20 |" in render("best.md.j2", {"best": [record]})
