"""Agreement of scorers against known correlations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr

from builders.scorers.agreement import AGREEMENT, LEAST, agreement_records, correlations, ranked


def rows(sae: str, explainer: str, scorer: str, scores: list[float], kind: str = "trained") -> pd.DataFrame:
    """Return scores of latents 0, 1, … by one scorer."""
    latents = np.arange(len(scores))
    return pd.DataFrame({"sae": sae, "latent": latents, "explainer": explainer, "scorer": scorer, "score": scores, "kind": kind})


@given(st.integers(LEAST, 60), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_correlations_are_those_of_scipy(n: int, seed: int) -> None:
    """Pearson's and Spearman's are scipy's, ties included, inside their intervals, and the same again by the same address."""
    rng = np.random.default_rng(seed)
    pair = np.stack([rng.integers(0, 6, n), rng.normal(size=n)], axis=1).astype(float)
    pair[0, 0], pair[1, 0] = -1, 7
    found = correlations(pair, seed)

    assert found["pearson"] == pytest.approx(pearsonr(*pair.T)[0])
    assert found["spearman"] == pytest.approx(spearmanr(*pair.T)[0])
    assert found["pearson_low"] <= found["pearson"] <= found["pearson_high"]
    assert found == correlations(pair, seed)


@given(st.integers(1, 20), st.integers(0, 10**6))
def test_ranks_of_resamples_are_those_of_scipy(n: int, seed: int) -> None:
    """Bit for bit, each column of each resample is ranked as scipy ranks it, ties included."""
    rng = np.random.default_rng(seed)
    pair, draws = rng.integers(0, 5, (n, 2)).astype(float), rng.integers(0, n, (4, n))
    assert ranked(pair, draws).tolist() == rankdata(pair[draws], axis=1).tolist()


@given(st.integers(0, 20))
@settings(max_examples=5, deadline=None)
def test_the_interval_is_about_as_wide_as_theory_says(seed: int) -> None:
    """Of two independent normal columns of 400 the interval is about ± 1.96 / √400 wide."""
    found = correlations(np.random.default_rng(seed).normal(size=(400, 2)), seed)

    assert found["pearson_high"] - found["pearson_low"] == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.25)


@pytest.mark.parametrize("pair", [np.ones((50, 2)), np.stack([np.arange(50.0), np.ones(50)], axis=1), np.ones((LEAST - 1, 2))])
def test_what_cannot_be_correlated_has_no_number(pair: np.ndarray) -> None:
    """A constant column, or too few latents, gives n and nothing else."""
    found = correlations(pair, 0)

    assert found.pop("n") == len(pair)
    assert set(found.values()) == {None}


def test_only_latents_that_both_scored_count() -> None:
    """Pairs are of the same latent of the same dictionary; a latent that one scorer left out is left out."""
    first, second = list(range(20)), [float("nan")] * 5 + list(range(20, 5, -1))
    frame = pd.concat([rows("a", "lexical", "one", first), rows("a", "lexical", "two", second)]).dropna(subset="score")
    found = {(row["kind"], row["sae"]): row for row in agreement_records(frame, 0)}

    assert set(found) == {("trained", "all"), ("trained", "a")}
    assert found["trained", "a"]["n"] == 15
    assert found["trained", "a"]["spearman"] == pytest.approx(-1)


def test_direct_scorers_meet_every_explainer_and_each_other_once() -> None:
    """A scorer without explanations is paired with those of each explainer; two such are paired once, under none."""
    parts = [rows("a", who, "detection", list(range(12))) for who in ("lexical", "llm")]
    parts += [rows("a", "none", scorer, list(range(12))) for scorer in ("intruder", "nearness")]
    found = [row for row in agreement_records(pd.concat(parts), 0) if row["sae"] == "a"]
    pairs = sorted((row["explainer"], row["scorer_a"], row["scorer_b"]) for row in found)

    assert pairs == [
        ("lexical", "detection", "intruder"),
        ("lexical", "detection", "nearness"),
        ("llm", "detection", "intruder"),
        ("llm", "detection", "nearness"),
        ("none", "intruder", "nearness"),
    ]
    AGREEMENT.validate(AGREEMENT.rows(found))


def test_dictionaries_of_a_kind_are_taken_together() -> None:
    """The pooled row counts the latents of all dictionaries of one kind, and of no other kind."""
    parts = [rows(sae, "lexical", scorer, list(range(12))) for sae in ("a", "b") for scorer in ("one", "two")]
    parts += [rows("c", "lexical", scorer, list(range(12)), "random") for scorer in ("one", "two")]
    found = {(row["kind"], row["sae"]): row["n"] for row in agreement_records(pd.concat(parts), 0)}

    assert found == {("trained", "all"): 24, ("trained", "a"): 12, ("trained", "b"): 12, ("random", "all"): 12, ("random", "c"): 12}
