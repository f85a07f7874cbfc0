"""How much answers count: letters alike, halves of the same letters, samples of the same questions."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.steering.weights import DRAWS, Counted, balanced, coins, counted, halves, kinds_of, mean_and_error, resamples, weighted

NAN = float("nan")
AB, BA = ("A", "B"), ("B", "A")
LETTERS = st.lists(st.sampled_from([AB, BA, ("C", "A"), ("A", "C"), ("D", "A")]), max_size=30)


class TestBalanced:
    """Weights in which no letter is the matching one more often than the other."""

    def test_by_hand(self) -> None:
        """Three answers (A) and one (B) count a sixth and a half: together as much for either letter."""
        np.testing.assert_allclose(balanced([AB, AB, BA, AB]), [1 / 6, 1 / 6, 1 / 2, 1 / 6])

    def test_a_letter_in_one_direction_counts_nothing(self) -> None:
        """Where D is always right against A, its letter looks like the behaviour; where all is so, nothing is left."""
        np.testing.assert_allclose(balanced([AB, BA, ("D", "A"), ("D", "A")]), [0.5, 0.5, 0, 0])
        assert balanced([AB, AB]).tolist() == [0, 0]
        assert balanced([]).tolist() == []

    def test_pairs_of_letters_count_as_often_as_they_occur(self) -> None:
        """Of six answers four are between A and B, so these have two thirds of the weight."""
        weights = balanced([AB, AB, AB, BA, ("C", "A"), ("A", "C")])
        np.testing.assert_allclose(weights, [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 6, 1 / 6])

    @given(LETTERS)
    def test_either_letter_has_the_same_weight(self, letters: list[tuple[str, str]]) -> None:
        """Within each pair of letters, both directions have the same weight, and all weights add up to 1 or 0."""
        weights = balanced(letters)
        for pair in set(letters):
            one, other = (sum(w for w, some in zip(weights, letters, strict=True) if some == way) for way in (pair, pair[::-1]))
            assert one == pytest.approx(other)
        assert weights.sum() == pytest.approx(1) or not weights.any()


def test_a_letter_is_no_effect() -> None:
    """What pushes towards (A) by 8 points, however often (A) matches, moves the balanced mean by nothing; the plain mean by 4 points."""
    letters = [AB] * 75 + [BA] * 25
    values = np.where([some == AB for some in letters], 0.08, -0.08)[:, None]
    assert weighted(values, balanced(letters))[0] == pytest.approx(0, abs=1e-12)
    assert values.mean() == pytest.approx(0.04)


class TestHalves:
    """Which questions choose a layer and which tell its effect."""

    @given(st.integers(0, 60), st.integers(0, 2**63 - 1))
    def test_halves_are_all_and_disjoint(self, count: int, seed: int) -> None:
        """Every question is in one half, in order, and the second half has at most one more where all are alike."""
        validation, other = halves([0] * count, seed)
        assert sorted(validation + other) == list(range(count))
        assert (validation, other) == (sorted(validation), sorted(other))
        assert len(other) - len(validation) == count % 2

    def test_halves_are_drawn_by_address(self) -> None:
        """The same seed draws the same half, another seed another, and the halves are no stripes."""
        assert halves([0] * 50, 7) == halves([0] * 50, 7)
        assert halves([0] * 50, 7) != halves([0] * 50, 8)
        assert halves([0] * 10, 7) == ([1, 2, 3, 7, 8], [0, 4, 5, 6, 9])

    @given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(0, 99))
    def test_halves_hold_the_same_letters(self, kinds: list[str], seed: int) -> None:
        """Of each kind, both halves have as many questions, or the second has one more."""
        one, other = (Counter(kinds[place] for place in half) for half in halves(kinds, seed))
        assert all(other[kind] - one[kind] == Counter(kinds)[kind] % 2 for kind in kinds)

    def test_the_kind_of_a_question_is_its_letters(self) -> None:
        """A question asked in both orders is of another kind than one asked in one."""
        assert kinds_of([4, 2, 4], [AB, BA, BA]) == [(AB, BA), (BA,), (AB, BA)]


class TestBootstrap:
    """Resampled means."""

    @given(st.lists(st.sampled_from("ab"), min_size=1, max_size=40), st.integers(0, 2**62))
    def test_samples_hold_as_many_of_each_kind(self, kinds: list[str], seed: int) -> None:
        """Each sample has as many questions of each kind as there are, drawn with replacement by the seed."""
        drawn = resamples(kinds, seed)
        assert drawn.shape == (DRAWS, len(kinds))
        for kind in set(kinds):
            own = [place for place, other in enumerate(kinds) if other == kind]
            assert (drawn[:, own].sum(1) == len(own)).all()
        assert (drawn == resamples(kinds, seed)).all()

    def test_every_question_is_drawn_alike(self) -> None:
        """Over all samples each question is drawn once a sample on average, with the variance of a binomial."""
        drawn = resamples([0] * 10, 0)
        assert np.abs(drawn.mean(0) - 1).max() < 0.15
        assert drawn.var() == pytest.approx(0.9, rel=0.1)

    def test_orders_are_drawn_together(self) -> None:
        """Both orders of a question are in a sample equally often, with the balanced weights."""
        found = counted([3, 3, 5, 5], [AB, BA, AB, BA], 0)
        assert found.own.tolist() == [0.25] * 4
        assert (found.drawn[:, 0] == found.drawn[:, 1]).all()
        np.testing.assert_allclose(found.drawn.sum(1), 1)

    def test_few_questions_of_a_kind_have_their_whole_error(self) -> None:
        """Two questions each of four kinds, and one each of four kinds: the error is that of the stratified mean, and of the mean."""
        letters = [some for pair in ("B", "C", "D", "E") for some in (("A", pair), (pair, "A"))]
        values = np.random.default_rng(0).normal(0, 1, (4000, 16))
        twice = [mean_and_error(v[:, None], counted(range(16), letters * 2, 0))[1][0] for v in values[:100]]
        once = [mean_and_error(v[:8, None], counted(range(8), letters, 0))[1][0] for v in values[:100]]
        assert np.mean(np.square(twice)) == pytest.approx(1 / 16, rel=0.15)
        assert np.mean(np.square(once)) == pytest.approx(1 / 8, rel=0.15)

    def test_by_hand(self) -> None:
        """Means of columns over what is there, and deviations of the resampled means; nothing and one value have no error."""
        values = np.array([[1.0, 4.0, NAN, NAN], [3.0, NAN, NAN, NAN], [2.0, 8.0, 5.0, NAN]])
        weights = Counted(np.full(3, 1 / 3), np.array([[3.0, 0, 0], [0, 3, 0], [1, 0, 2]]))
        means, errors = mean_and_error(values, weights)
        np.testing.assert_allclose(means, [2.0, 6.0, 5.0, NAN])
        resampled = np.std([1.0, 3.0, 5 / 3], ddof=1), np.std([4.0, 20 / 3], ddof=1)  # the second sample has none of the second column
        np.testing.assert_allclose(errors, [*resampled, NAN, NAN])


def test_labels_are_permuted_by_coins() -> None:
    """The first draw leaves all labels; the others exchange about half, each draw others, and the seed decides."""
    signs = coins(200, 20, 3)
    assert signs.shape == (21, 200)
    assert (signs[0] == 1).all()
    assert set(np.unique(signs)) == {-1, 1}
    assert np.abs(signs[1:].mean(1)).max() < 0.25
    assert len({tuple(row) for row in signs}) == 21
    assert (coins(200, 20, 3) == signs).all()
    assert not (coins(200, 20, 4) == signs).all()
