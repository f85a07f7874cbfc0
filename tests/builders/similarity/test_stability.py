"""Whether latents come back in sister SAEs, from rows made by hand; correlations against scipy's and against residuals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import rows_of
from scipy.stats import pearsonr, rankdata, spearmanr

from builders.scorers.agreement import LEAST
from builders.seeds import seed_of
from builders.similarity.partners import MATCHES
from builders.similarity.stability import (
    STABILITY,
    STABILITY_SCORES,
    correlations,
    stability_rows,
    stability_score_records,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from builders.arrays import Floats

pytestmark = pytest.mark.numeric

READ = ["latent", "other", "measure", "value", "mutual"]  # what stage `agreement` reads of MATCHES
PARTIAL = ("partial", "partial_low", "partial_high")
SPEARMAN = ("spearman", "spearman_low", "spearman_high")


def matched(*rows: tuple[int, str, str, float, bool]) -> pa.Table:
    """Return MATCHES rows of an SAE: latent, other SAE, measure, value, and whether the partner is mutual."""
    return rows_of(MATCHES, *({"sae": "a"} | dict(zip(READ, row, strict=True)) for row in rows)).select(READ)


# Latents that come back


def test_found_is_the_share_of_sisters_with_a_mutual_partner_that_is_alike() -> None:
    """A partner counts if it is mutual and has at least the threshold; the mean value is over all sisters, whatever counts."""
    rows = matched(
        (0, "b", "decoder", 0.875, True),
        (0, "c", "decoder", 0.625, True),  # not alike enough
        (3, "b", "decoder", 1.0, False),  # not mutual
        (3, "c", "decoder", 0.5, False),
        (5, "b", "decoder", 0.75, True),
        (5, "c", "decoder", 0.75, True),
    )
    found = stability_rows("a", rows, ["b", "c"], 0.75)

    STABILITY.validate(found)
    assert found.to_pylist() == [
        {"sae": "a", "latent": latent, "measure": "decoder", "sisters": 2, "found": share, "value": value}
        for latent, share, value in ((0, 0.5, 0.75), (3, 0.0, 0.75), (5, 1.0, 0.75))
    ]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9])
def test_a_value_at_the_threshold_counts(threshold: float) -> None:
    """A value that is the threshold is at least the threshold, although values are float32."""
    found = stability_rows("a", matched((0, "b", "jaccard", threshold, True)), ["b"], threshold)

    assert found["found"].to_pylist() == [1]


def test_every_measure_has_rows_of_its_own_sisters() -> None:
    """A latent is told of by each measure, over the sisters that this measure could be compared with."""
    rows = matched(
        (0, "b", "decoder", 0.75, True),
        (0, "c", "decoder", 0.25, True),
        (0, "b", "pearson", 0.5, False),
    )
    found = stability_rows("a", rows, ["b", "c"], 0.7).to_pylist()

    assert [(row["measure"], row["sisters"], row["found"], row["value"]) for row in found] == [
        ("decoder", 2, 0.5, 0.5),
        ("pearson", 1, 0.0, 0.5),
    ]


def test_only_sisters_count() -> None:
    """Partners in other dictionaries say nothing of another seed; values may be negative."""
    rows = matched((0, "b", "decoder", -0.5, True), (0, "layer", "decoder", 1.0, True), (1, "layer", "decoder", 1.0, True))
    found = stability_rows("a", rows, {"b"}, 0.7).to_pylist()

    assert found == [{"sae": "a", "latent": 0, "measure": "decoder", "sisters": 1, "found": 0.0, "value": -0.5}]


@pytest.mark.parametrize("rows", [matched(), matched((0, "layer", "decoder", 1.0, True))], ids=["no rows", "no sister"])
def test_without_sisters_there_are_no_rows(rows: pa.Table) -> None:
    """An SAE without sisters has no row, and the table is a table."""
    found = stability_rows("a", rows, [], 0.7)

    STABILITY.validate(found)
    assert found.num_rows == 0


# Stability beside scores


SCORERS = (("detection", "lexical"), ("intruder", "none"))


def frames(n: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return stability by two measures, scores by two scorers and counts of *n* latents of SAE a."""
    rng = np.random.default_rng(0)
    latents = np.arange(n)
    stable = [pd.DataFrame({"sae": "a", "latent": latents, "measure": name, "value": rng.random(n)}) for name in ("decoder", "pearson")]
    scores = [
        pd.DataFrame({"sae": "a", "latent": latents, "scorer": scorer, "explainer": explainer, "score": rng.random(n)})
        for scorer, explainer in SCORERS
    ]
    return pd.concat(stable), pd.concat(scores), pd.DataFrame({"sae": "a", "latent": latents, "count": rng.integers(1, 9, n)})


def test_each_measure_meets_each_scorer() -> None:
    """There is a record for every measure and scorer, in order, with the correlations of its own columns at its own address."""
    stability, scores, counts = frames(30)
    found = list(stability_score_records(stability, scores, counts, 7))
    keys = [tuple(record[name] for name in STABILITY_SCORES.key) for record in found]
    value, score = stability[stability["measure"] == "pearson"]["value"], scores[scores["scorer"] == "intruder"]["score"]
    last = correlations(np.stack([value, score, counts["count"]], axis=1).astype(float), seed_of(7, "stability", *keys[3]))

    assert keys == [("a", measure, *scorer) for measure in ("decoder", "pearson") for scorer in SCORERS]
    assert {record["n"] for record in found} == {30}
    assert found[3] == {"sae": "a", "measure": "pearson", "scorer": "intruder", "explainer": "none", "n": 30, **last}
    STABILITY_SCORES.validate(STABILITY_SCORES.rows(found))


def test_only_latents_with_both_count() -> None:
    """Latents without a score, without stability, or of another SAE are left out; n says how many are left."""
    stability, scores, counts = frames(30)
    scores = scores[scores["latent"] >= 12]
    stability = stability[(stability["measure"] == "decoder") & (stability["latent"] < 28)]
    other = stability.assign(sae="b")
    whole = list(stability_score_records(stability, scores, counts, 0))

    assert {record["n"] for record in whole} == {16}
    assert list(stability_score_records(pd.concat([stability, other]), scores, counts, 0)) == whole


def test_saes_do_not_mix() -> None:
    """Two SAEs with scores have records of their own."""
    stability, scores, counts = (pd.concat([frame, frame.assign(sae="b")]) for frame in frames(20))
    found = list(stability_score_records(stability, scores, counts, 0))

    assert [(record["sae"], record["n"]) for record in found] == [("a", 20)] * 4 + [("b", 20)] * 4
    assert found[0]["spearman"] == pytest.approx(found[4]["spearman"])


def test_without_stable_latents_there_is_nothing_to_tell() -> None:
    """Where no SAE has sisters, there are no records, and the table is a table."""
    _, scores, counts = frames(20)
    found = list(stability_score_records(STABILITY.empty().to_pandas(), scores, counts, 0))

    assert found == []
    STABILITY_SCORES.validate(STABILITY_SCORES.rows(found))


# Correlations


def columns_of(seed: int, n: int) -> Floats:
    """Return three columns [n, 3] that go together somewhat; the second has ties."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    columns = common + rng.normal(size=(n, 3))
    columns[:, 1] = columns[:, 1].round()
    return columns


@given(st.integers(LEAST, 60), st.integers(0, 10**6))
@settings(max_examples=30)
def test_rank_correlations_are_those_of_scipy(n: int, seed: int) -> None:
    """For any columns, ties included, Spearman's is scipy's; it lies within its interval, which the seed decides."""
    columns = columns_of(seed, n)
    found = correlations(columns, seed)

    assert found["spearman"] == pytest.approx(spearmanr(columns[:, 0], columns[:, 1])[0])
    assert list(found) == [*SPEARMAN, *PARTIAL]
    for value, low, high in (SPEARMAN, PARTIAL):
        assert -1 <= number(found[low]) <= number(found[value]) <= number(found[high]) <= 1
    assert found == correlations(columns, seed)
    assert found != correlations(columns, seed + 1)


@given(st.integers(LEAST, 60), st.integers(0, 10**6))
@settings(max_examples=30)
def test_a_partial_correlation_is_that_of_what_is_left(n: int, seed: int) -> None:
    """For any columns, it is the correlation of what a straight line in the third column's ranks leaves of the ranks of both."""
    columns = columns_of(seed, n)
    x, y, z = rankdata(columns, axis=0).T
    rest = [side - np.polyval(np.polyfit(z, side, 1), z) for side in (x, y)]

    assert correlations(columns, 0)["partial"] == pytest.approx(pearsonr(*rest)[0], abs=1e-9)


def test_a_partial_correlation_by_hand() -> None:
    """Ranks with 31/33 between the first two, and 5/11 and 17/33 with the third: (31/33 − 5/11 · 17/33) / √((1 − 25/121)(1 − 289/1089))."""
    x, y, z = np.arange(10), [1, 0, 3, 2, 5, 4, 7, 6, 9, 8], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    found = correlations(np.stack([x, y, z], axis=1).astype(float), 0)

    assert found["spearman"] == pytest.approx(31 / 33)
    assert found["partial"] == pytest.approx((31 / 33 - 5 / 11 * 17 / 33) / math.sqrt((1 - 25 / 121) * (1 - 289 / 1089)))


def number(value: float | None) -> float:
    """Return a number that must be there."""
    assert value is not None
    return value


def test_what_the_third_column_explains_is_taken_away() -> None:
    """Two columns that go together because both follow the third do not among equals of it: 0.48 in all, and about 0 then."""
    rng = np.random.default_rng(0)
    third = rng.normal(size=2000)
    found = correlations(np.stack([third + rng.normal(size=2000), third + rng.normal(size=2000), third], axis=1), 0)

    assert found["spearman"] == pytest.approx(6 / math.pi * math.asin(1 / 4), abs=0.04)
    assert found["partial"] == pytest.approx(0, abs=0.04)
    assert number(found["partial_low"]) < 0 < number(found["partial_high"])
    assert number(found["spearman_low"]) > 0.4


def test_what_the_third_column_hides_is_shown() -> None:
    """Two columns that the third drives apart do not go together in all, and do among equals of it."""
    rng = np.random.default_rng(0)
    third, common = rng.normal(size=(2, 2000))
    found = correlations(np.stack([common + third, common - third, third], axis=1) + rng.normal(0, 0.1, (2000, 3)), 0)

    assert found["spearman"] == pytest.approx(0, abs=0.05)
    assert number(found["partial"]) > 0.85


def test_intervals_are_as_wide_as_theory_says() -> None:
    """Of three independent columns of 400 both intervals are about 2 × 1.96 / √400 wide."""
    found = correlations(np.random.default_rng(3).normal(size=(400, 3)), 0)

    for _, low, high in (SPEARMAN, PARTIAL):
        assert number(found[high]) - number(found[low]) == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.15)


def test_too_few_latents_have_no_number() -> None:
    """Below LEAST latents nothing is told; with LEAST everything is."""
    columns = columns_of(0, LEAST)

    assert correlations(columns[1:], 0) == dict.fromkeys([*SPEARMAN, *PARTIAL])
    assert None not in correlations(columns, 0).values()


@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_column_has_no_correlation(constant: int) -> None:
    """Where all latents are equally stable, or score alike, nothing is told."""
    columns = columns_of(0, 40)
    columns[:, constant] = 0.25

    assert correlations(columns, 0) == dict.fromkeys([*SPEARMAN, *PARTIAL])


@pytest.mark.parametrize(
    "same",
    [lambda columns: columns[:, 0] ** 3, lambda columns: -columns[:, 1], lambda columns: np.ones(len(columns))],
    ids=["the first", "the second turned round", "constant"],
)
@given(n=st.integers(LEAST, 60), seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_nothing_is_left_beside_a_third_column_that_is_one_of_both(same: Any, n: int, seed: int) -> None:
    """For any columns, the third of which ranks latents as the first or second does, or not at all, there is no partial correlation."""
    columns = columns_of(seed, n)
    columns[:, 2] = same(columns)
    found = correlations(columns, 0)

    assert [found[name] for name in PARTIAL] == [None] * 3
    assert found["spearman"] == pytest.approx(spearmanr(columns[:, 0], columns[:, 1])[0])
    assert number(found["spearman_low"]) < number(found["spearman_high"])
