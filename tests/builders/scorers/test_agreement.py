"""Agreement of scorers against known correlations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr

from builders.scorers.agreement import AGREEMENT, LEAST, Facts, agreement_records, compared, comparison, ranked


def rows(sae: str, explainer: str, scorer: str, scores: list[float], kind: str = "trained") -> pd.DataFrame:
    """Return scores of latents 0, 1, … by one scorer."""
    latents = np.arange(len(scores))
    return pd.DataFrame({"sae": sae, "latent": latents, "explainer": explainer, "scorer": scorer, "score": scores, "kind": kind})


class Apart(dict[str, Facts]):
    """Facts of scorers of one unit, each of its own family."""

    def __missing__(self, scorer: str) -> Facts:
        """Return the facts of any scorer."""
        return Facts("balanced accuracy", 0.5, "random", scorer)


FACTS = Apart()


@given(st.integers(LEAST, 60), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_correlations_are_those_of_scipy(n: int, seed: int) -> None:
    """Pearson's and Spearman's are scipy's, ties included, inside their intervals, and the same again by the same address."""
    rng = np.random.default_rng(seed)
    pair = np.stack([rng.integers(0, 6, n), rng.normal(size=n)], axis=1).astype(float)
    pair[0, 0], pair[1, 0] = -1, 7
    found = comparison(pair, seed)

    assert found["pearson"] == pytest.approx(pearsonr(*pair.T)[0])
    assert found["spearman"] == pytest.approx(spearmanr(*pair.T)[0])
    assert found["pearson_low"] <= found["pearson"] <= found["pearson_high"]
    assert found == comparison(pair, seed)


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
    found = comparison(np.random.default_rng(seed).normal(size=(400, 2)), seed)

    assert found["pearson_high"] - found["pearson_low"] == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.25)


@pytest.mark.parametrize("pair", [np.ones((50, 2)), np.stack([np.arange(50.0), np.ones(50)], axis=1)])
def test_a_constant_side_has_no_correlation_but_a_difference(pair: np.ndarray) -> None:
    """Of a constant column there is no correlation; its mean difference from the other is as good as any."""
    found = comparison(pair, 0)

    assert (found["n"], found["difference"]) == (50, pytest.approx(pair[:, 0].mean() - 1))
    assert {found[name] for name in ("pearson", "pearson_low", "spearman", "spearman_high")} == {None}


def test_too_few_latents_have_no_number() -> None:
    """Below LEAST latents there is n and nothing else."""
    found = comparison(np.random.default_rng(0).normal(size=(LEAST - 1, 2)), 0)

    assert found.pop("n") == LEAST - 1
    assert set(found.values()) == {None}


@given(st.integers(0, 20))
@settings(max_examples=5, deadline=None)
def test_a_difference_is_paired(seed: int) -> None:
    """Two scores that vary by 1 from latent to latent and differ by 0.1 ± 0.02 in each differ by 0.1 ± 0.02/√n on average."""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=200)
    gains = rng.normal(0.1, 0.02, 200)
    found = comparison(np.stack([latents + gains, latents], axis=1), seed)

    assert found["difference"] == pytest.approx(gains.mean())
    assert found["difference_low"] < found["difference"] < found["difference_high"]
    assert found["difference_high"] - found["difference_low"] == pytest.approx(2 * 1.96 * 0.02 / math.sqrt(200), rel=0.25)


def test_what_is_compared_differs_in_one_thing() -> None:
    """Scorers meet with the same explanations; explainers, further samples and permuted explanations with the same scorer."""
    facts = {scorer: Facts("balanced accuracy", 0.5, negatives, "detection") for scorer, negatives in (("a", "random"), ("b", "similar"))}
    facts |= {"twin": Facts("balanced accuracy", 0.5, "random", "detection"), "c": Facts("AUROC", 0.5, "random", "embedding")}
    facts["direct"] = Facts("accuracy", 0.2, "random", "intruder")
    found = {
        (("a", "x"), ("a", "x-permuted")): "permuted",
        (("a", "x"), ("a", "y")): "explainer",
        (("a", "x"), ("b", "x")): "negatives",
        (("a", "x"), ("c", "x")): "scorer",
        (("a", "x"), ("twin", "x")): "scorer",
        (("a", "x"), ("direct", "none")): "scorer",
        (("a", "x"), ("a", "x-sample-2")): "sample",
        (("a", "x-sample-1"), ("a", "x-sample-2")): None,
        (("a", "x-sample-1"), ("b", "x-sample-1")): None,
        (("a", "x-sample-1"), ("a", "y")): None,
        (("a", "x"), ("b", "x-sample-1")): None,
        (("a", "x-sample-1"), ("direct", "none")): None,
        (("a", "x-permuted"), ("a", "y-permuted")): None,
        (("a", "x-permuted"), ("a", "y")): None,
        (("a", "x-permuted"), ("b", "x-permuted")): None,
        (("a", "x-permuted"), ("direct", "none")): None,
        (("a", "x"), ("b", "y")): None,
    }

    assert {pair: compared(*pair, facts) for pair in found} == found


def test_scores_of_other_units_are_not_subtracted() -> None:
    """Where unit or chance level differ there is a correlation and no difference; else the difference has the scores' unit."""
    frame = pd.concat([rows("a", "lexical", scorer, list(range(12))) for scorer in ("one", "two", "three")])
    units = {"one": ("AUROC", 0.5), "two": ("AUROC", 0.5), "three": ("AUROC", 0.0)}
    facts = {scorer: Facts(*unit, "random", scorer) for scorer, unit in units.items()}
    found = {(row["scorer_a"], row["scorer_b"]): row for row in agreement_records(frame, facts, 0) if row["sae"] == "a"}

    assert {pair: (row["unit"], row["difference"]) for pair, row in found.items()} == {
        ("one", "three"): (None, None),
        ("one", "two"): ("AUROC", 0.0),
        ("three", "two"): (None, None),
    }
    assert all(row["pearson"] == pytest.approx(1) for row in found.values())
    AGREEMENT.validate(AGREEMENT.rows(list(found.values())))


def test_permuted_explanations_are_compared_with_the_same_ones() -> None:
    """An explainer's score minus that of the same explanations permuted is a mean over the latents that have both."""
    real, permuted = [0.9] * 15, [float("nan")] * 3 + [0.5] * 12
    frame = pd.concat([rows("a", "lexical", "one", real), rows("a", "lexical-permuted", "one", permuted)]).dropna(subset="score")
    found = {row["sae"]: row for row in agreement_records(frame, FACTS, 0)}

    assert set(found) == {"all", "a"}
    assert (found["a"]["differ"], found["a"]["n"], found["a"]["difference"]) == ("permuted", 12, pytest.approx(0.4))


def test_only_latents_that_both_scored_count() -> None:
    """Pairs are of the same latent of the same dictionary; a latent that one scorer left out is left out."""
    first, second = list(range(20)), [float("nan")] * 5 + list(range(20, 5, -1))
    frame = pd.concat([rows("a", "lexical", "one", first), rows("a", "lexical", "two", second)]).dropna(subset="score")
    found = {(row["kind"], row["sae"]): row for row in agreement_records(frame, FACTS, 0)}

    assert set(found) == {("trained", "all"), ("trained", "a")}
    assert found["trained", "a"]["n"] == 15
    assert found["trained", "a"]["spearman"] == pytest.approx(-1)


def test_direct_scorers_meet_every_explainer_and_each_other_once() -> None:
    """A scorer without explanations is paired with those of each explainer; two such are paired once; explainers are paired too."""
    parts = [rows("a", who, "detection", list(range(12))) for who in ("lexical", "llm")]
    parts += [rows("a", "none", scorer, list(range(12))) for scorer in ("intruder", "nearness")]
    found = [row for row in agreement_records(pd.concat(parts), FACTS, 0) if row["sae"] == "a"]

    assert [(row["scorer_a"], row["explainer_a"], row["scorer_b"], row["explainer_b"]) for row in found] == [
        ("detection", "lexical", "detection", "llm"),
        ("detection", "lexical", "intruder", "none"),
        ("detection", "lexical", "nearness", "none"),
        ("detection", "llm", "intruder", "none"),
        ("detection", "llm", "nearness", "none"),
        ("intruder", "none", "nearness", "none"),
    ]
    AGREEMENT.validate(AGREEMENT.rows(found))


def test_dictionaries_of_a_kind_are_taken_together() -> None:
    """The pooled row counts the latents of all dictionaries of one kind, and of no other kind."""
    parts = [rows(sae, "lexical", scorer, list(range(12))) for sae in ("a", "b") for scorer in ("one", "two")]
    parts += [rows("c", "lexical", scorer, list(range(12)), "random") for scorer in ("one", "two")]
    found = {(row["kind"], row["sae"]): row["n"] for row in agreement_records(pd.concat(parts), FACTS, 0)}

    assert found == {("trained", "all"): 24, ("trained", "a"): 12, ("trained", "b"): 12, ("random", "all"): 12, ("random", "c"): 12}
