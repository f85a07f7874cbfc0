"""Statistics of known dictionaries, and their levels of chance. Whole matrices, and every order of latents, are the reference."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from alike import Given, dictionary, joined, measures_of, partners, taken
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.similarity import assignment, measures
from builders.similarity.partners import MEASURES
from builders.similarity.similarity import (
    SIMILARITY,
    STATISTICS,
    Pair,
    means,
    permuted,
    shared,
    statistic_records,
    values_of,
)

if TYPE_CHECKING:
    from builders.arrays import Floats

pytestmark = pytest.mark.numeric

SIZE = 1024
ORDER = np.random.default_rng(0).permutation(SIZE)
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
PAIR = Pair("a", "b", "layer", 2)
WIDER = [[0.9, 0.1], [0.2, 0.8], [0.3, 0.4]]  # A has three latents, B has two
seeds = st.integers(0, 2**31)


def drawn(seed: int, n: int, m: int) -> Floats:
    """Return values [n, m] between −0.8 and 1, of which neither two are equal nor two sums."""
    return np.random.default_rng(seed).uniform(-0.8, 1, (n, m))


def statistics(tables: dict[str, Any], measure: str = "decoder", thresholds: tuple[float, ...] = THRESHOLDS) -> dict[str, float]:
    """Return the mean of each statistic of a measure, from the values of all measures."""
    return means(values_of({name: partners(Given(table)) for name, table in tables.items()}, measure, thresholds))


# Known dictionaries


@pytest.mark.parametrize("measure", MEASURES)
def test_of_a_permuted_dictionary_everything_is_shared(measure: str) -> None:
    """By every measure, matched values are 1, and all latents are shared, mutual and agreed upon, in whatever order they stand."""
    a, thresholds = dictionary(0, 200), (*THRESHOLDS, 0.999)
    found = {name: partners(each) for name, each in measures_of(a, taken(a, np.random.default_rng(1).permutation(200))).items()}
    values = values_of(found, measure, thresholds)
    expected = {"matched", "mutual", "best", "best-back", *map(shared, thresholds)}

    assert set(values) == (expected | {"agree"} if measure == "decoder" else expected)
    assert {name: len(each) for name, each in values.items()} == dict.fromkeys(values, 200)
    assert means(values) == {name: pytest.approx(1, abs=1e-6) for name in values}


@pytest.mark.parametrize("measure", MEASURES)
def test_with_half_of_the_latents_replaced_by_noise_half_is_shared(measure: str) -> None:
    """By every measure, 1,024 latents of which 512 were replaced share half, whichever of both dictionaries is A."""
    a, half = dictionary(0, SIZE), np.arange(SIZE // 2)
    b = taken(joined(taken(a, half), dictionary(1, SIZE // 2)), ORDER)
    for pair in ((a, b), (b, a)):
        found = {measure: partners(measures_of(*pair)[measure])}

        assert means(values_of(found, measure, (0.7,)))["shared-0.7"] == 0.5


def test_signs_count() -> None:
    """Half of the rows turned round share nothing with what they were; a pair of opposite rows is matched and not shared."""
    a = dictionary(0, SIZE)
    b = {**a, "decoder": a["decoder"] * np.where(np.arange(SIZE) % 2, 1, -1)[:, None]}
    found = {"decoder": partners(measures_of(a, taken(b, ORDER))["decoder"])}

    assert means(values_of(found, "decoder", (0.7,)))["shared-0.7"] == 0.5
    assert statistics({"decoder": [[-0.875]]}, thresholds=(0, 0.7)) == {
        **dict.fromkeys(("matched", "best", "best-back"), -0.875), "mutual": 1, "shared-0": 0, "shared-0.7": 0,
    }  # fmt: skip


# What is counted


def test_a_small_case() -> None:
    """Of A's three latents and B's two: the mean over B's where they have partners of their own, over A's in `best` alone."""
    values = values_of({"pearson": partners(Given(WIDER))}, "pearson", (0.5, 0.85))

    assert {name: len(each) for name, each in values.items()} == {
        "matched": 2, "mutual": 2, "shared-0.5": 2, "shared-0.85": 2, "best": 3, "best-back": 2,
    }  # fmt: skip
    assert means(values) == pytest.approx(
        {"matched": 0.85, "mutual": 1, "shared-0.5": 1, "shared-0.85": 0.5, "best": 0.7, "best-back": 0.85}
    )


def test_agreement_is_of_the_smaller_dictionary() -> None:
    """Decoder and encoder assign the first of B's two latents the same partner, and the second one another."""
    tables = {"decoder": WIDER, "encoder": [[0.9, 0.1], [0.1, 0.2], [0.2, 0.8]]}
    turned = {name: np.transpose(table) for name, table in tables.items()}

    assert statistics(tables)["agree"] == statistics(turned)["agree"] == 0.5
    assert "agree" not in statistics(tables, "encoder")
    assert "agree" not in statistics({"decoder": WIDER})


@given(seeds, st.integers(1, 8), st.integers(1, 8))
@settings(max_examples=60)
def test_only_best_values_have_a_side(seed: int, n: int, m: int) -> None:
    """For any values and widths, all statistics are the same with A and B exchanged; `best` becomes `best-back`."""
    tables = {"decoder": drawn(seed, n, m), "encoder": drawn(seed + 1, n, m)}
    found, other = statistics(tables), statistics({name: table.T for name, table in tables.items()})

    assert {**found, "best": found["best-back"], "best-back": found["best"]} == pytest.approx(other)
    assert found["best"] == pytest.approx(np.float32(tables["decoder"]).max(axis=1).mean(dtype=np.float64))


def test_a_latent_without_a_partner_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among candidates, the two of 40 latents that are like one another are matched; the others are not shared, nor agreed upon."""
    monkeypatch.setattr(assignment, "EXACT", 1)
    table = np.zeros((40, 40))
    table[3, 7], table[5, 1] = 0.5, 0.25
    found = {name: partners(Given(table)) for name in ("decoder", "encoder")}
    values = values_of(found, "decoder", (0, 0.3))

    assert (len(values["matched"]), len(values["shared-0"]), len(values["agree"])) == (2, 40, 40)
    assert (values["matched"].mean(), values["shared-0"].sum(), values["shared-0.3"].sum(), values["agree"].sum()) == (0.375, 2, 1, 2)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_a_value_at_the_threshold_is_shared(threshold: float) -> None:
    """A latent whose value is the threshold counts, by chance and in fact, although values are float32 and thresholds are not."""
    measure = Given([[threshold]])

    assert means(values_of({"jaccard": partners(measure)}, "jaccard", (threshold,)))[shared(threshold)] == 1
    assert permuted(measure, (threshold,))[shared(threshold)] == 1


def test_statistics_of_nothing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has a partner, matched values have no mean."""
    monkeypatch.setattr(assignment, "EXACT", 1)
    values = values_of({"decoder": partners(Given(np.zeros((20, 20))))}, "decoder", (0.5,))

    assert len(values["matched"]) == 0
    assert means(values) == {"mutual": pytest.approx(1 / 20), "shared-0.5": 0, "best": 0, "best-back": 0}


# Chance


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.integers(1, 30))
@settings(max_examples=60)
def test_chance_is_the_mean_over_all_pairs(seed: int, n: int, m: int, cells: int) -> None:
    """For any values and size of a block, a value by chance is that of any pair, and a share by chance that of all pairs."""
    table = np.float32(drawn(seed, n, m))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "CELLS", cells)
        found = permuted(Given(table), THRESHOLDS)

    assert [found[name] for name in ("matched", "best", "best-back")] == pytest.approx([table.mean(dtype=np.float64)] * 3, abs=1e-7)
    assert [found[shared(each)] for each in THRESHOLDS] == pytest.approx([(table >= np.float32(each)).mean() for each in THRESHOLDS])


def in_any_order(tables: dict[str, Floats]) -> dict[str, float]:
    """Return the mean of each statistic of the decoder over all orders in which other latents take the places of A's and of B's."""
    found = {name: partners(Given(table)) for name, table in tables.items()}
    own, (n, m) = found["decoder"], tables["decoder"].shape
    has = np.flatnonzero(own.place >= 0)
    seen = []
    for a, b in product(map(list, permutations(range(n))), map(np.array, permutations(range(m)))):
        table = tables["decoder"][np.ix_(a, b)]
        value = table[has, own.place[has]]
        agree = b[own.place[has]] == found["encoder"].place[a][has]
        best, back = table[np.arange(n), own.there.best], table[own.back.best, np.arange(m)]
        seen.append([value.mean(), best.mean(), back.mean(), agree.mean(), (value >= 0.3).mean()])
    names = ("matched", "best", "best-back", "agree", "shared-0.3")
    return dict(zip(names, np.mean(seen, axis=0).tolist(), strict=True))


@given(seeds, st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=25)
def test_chance_is_what_random_orders_give(seed: int, n: int, m: int) -> None:
    """For any values and widths, chance is the mean over all orders of A's and of B's latents, with the partners of the true order."""
    tables = {"decoder": drawn(seed, n, m), "encoder": drawn(seed + 1, n, m)}

    found = permuted(Given(tables["decoder"]), (0.3,))
    del found["mutual"]  # the same in every order of latents

    assert found == pytest.approx(in_any_order(tables), abs=1e-6)


@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 2), (3, 2)])
def test_mutual_by_chance_is_what_values_in_random_order_give(n: int, m: int) -> None:
    """The chance of `mutual` is the mean share of the smaller dictionary's latents over all orders of the values of n · m pairs."""
    tables = (np.array(order, dtype=np.float64).reshape(n, m) / (n * m) for order in permutations(range(n * m)))
    shares = [means(values_of({"decoder": partners(Given(table))}, "decoder", (0.3,)))["mutual"] for table in tables]

    assert permuted(Given(np.zeros((n, m))), (0.3,))["mutual"] == pytest.approx(np.mean(shares))


def test_noise_is_matched_above_chance() -> None:
    """An assignment pairs noise, too: an independent dictionary is matched far above a pair at random, and shares nothing."""
    measure = measures_of(dictionary(0, 300), dictionary(1, 300))["decoder"]
    found, chance = means(values_of({"decoder": partners(measure)}, "decoder", (0.7,))), permuted(measure, (0.7,))

    assert abs(chance["matched"]) < 0.01
    assert found["matched"] > 0.2
    assert found["mutual"] > 0.2
    assert (found["shared-0.7"], chance["shared-0.7"]) == (0, 0)


# Records


def records(values: dict[str, Floats], chance: dict[str, dict[str, float]] | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Return the records of two dictionaries that lie two layers apart."""
    return list(statistic_records(PAIR, "pearson", values, chance or {}, seed))


def test_a_record_holds_a_statistic_and_its_chance() -> None:
    """Value, n, the ends of the interval around it, and the levels of chance that are known of this statistic."""
    values = {"matched": np.linspace(0, 1, 101), "mutual": np.repeat([0.0, 1.0], [30, 70])}
    chance = {"permuted": {"matched": 0.125, "mutual": 0.01}, "untrained": {"matched": 0.25}}
    matched, mutual = records(values, chance)
    known = {"sae_a": "a", "sae_b": "b", "relation": "layer", "layers": 2, "measure": "pearson", "status": "ok"}

    assert matched == {**known, "statistic": "matched", "n": 101, "value": pytest.approx(0.5), "permuted": 0.125, "untrained": 0.25} | {
        end: matched[end] for end in ("low", "high")
    }
    assert (mutual["n"], mutual["value"], mutual["permuted"], mutual["untrained"]) == (100, pytest.approx(0.7), 0.01, None)
    assert 0.4 < matched["low"] < 0.46
    assert 0.54 < matched["high"] < 0.6
    assert mutual["low"] == pytest.approx(0.7 - 1.96 * 0.21**0.5 / 10, abs=0.021)
    assert mutual["high"] == pytest.approx(0.7 + 1.96 * 0.21**0.5 / 10, abs=0.021)
    SIMILARITY.validate(SIMILARITY.rows([matched, mutual]))


def test_an_interval_has_an_address() -> None:
    """The same statistic of the same pair is resampled alike; another seed, statistic or measure is not."""
    values = np.random.default_rng(0).random(50)
    (one,), (again,), (other,) = records({"best": values}), records({"best": values}), records({"best": values}, seed=1)
    (named,) = records({"matched": values})
    (measured,) = statistic_records(PAIR, "jaccard", {"best": values}, {}, 0)

    assert one == again
    assert len({record["low"] for record in (one, other, named, measured)}) == 4


def test_where_there_is_nothing_to_mean_there_is_no_number() -> None:
    """A statistic over no latents has n 0, no value and no interval, and keeps its chance."""
    (found,) = records({"matched": np.zeros(0)}, {"permuted": {"matched": 0.5}})

    assert (found["n"], found["value"], found["low"], found["high"], found["permuted"]) == (0, None, None, None, 0.5)
    SIMILARITY.validate(SIMILARITY.rows([found]))


def test_a_pair_that_cannot_be_compared_is_a_row_with_the_reason() -> None:
    """Statistic `none` holds the reason and no number; layers are null where they are unknown."""
    rows = SIMILARITY.rows([Pair("a", "b", "subject", None).record("decoder", "none", status="64 and 96 dimensions")])

    SIMILARITY.validate(rows)
    assert rows.to_pylist() == [
        {"sae_a": "a", "sae_b": "b", "relation": "subject", "layers": None, "measure": "decoder", "statistic": "none"}
        | {"status": "64 and 96 dimensions", "n": 0, "value": None, "low": None, "high": None, "permuted": None, "untrained": None}
    ]


def test_every_statistic_is_explained() -> None:
    """The table says what each statistic means; a threshold stands for T."""
    found = statistics({"decoder": WIDER, "encoder": WIDER})

    assert {"shared-T" if name.startswith("shared-") else name for name in found} <= set(STATISTICS)
    assert [shared(each) for each in (0.25, 0.7, 1.0)] == ["shared-0.25", "shared-0.7", "shared-1"]
